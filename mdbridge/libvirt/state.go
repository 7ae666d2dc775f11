package libvirt

import "fmt"

// State is a domain's state and why it is so: virDomainState, and the enumeration of
// reasons that belongs to it (virDomainRunningReason and others, libvirt-domain.h).
type State struct{ State, Reason int32 }

// states has, by virDomainState, the words that `virsh domstate --reason` prints, and the
// state of a VM that QMP calls the same.
var states = []struct {
	words   string
	vm      string
	reasons []string
}{
	{"no state", "unknown", []string{"unknown"}},
	{"running", "running", []string{
		"unknown", "booted", "migrated", "restored", "from snapshot", "unpaused", "migration canceled", "save canceled",
		"event wakeup", "crashed", "post-copy", "post-copy failed",
	}},
	{"idle", "running", []string{"unknown"}}, // waits for something, as Xen says it
	{"paused", "paused", []string{
		"unknown", "user", "migrating", "saving", "dumping", "I/O error", "watchdog", "from snapshot", "shutting down",
		"creating snapshot", "crashed", "starting up", "post-copy", "post-copy failed", "api error",
	}},
	{"in shutdown", "shutdown", []string{"unknown", "user"}},
	{"shut off", "stopped", []string{
		"unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from snapshot", "daemon",
	}},
	{"crashed", "guest-panicked", []string{"unknown", "panicked"}}, // and kept so, by <on_crash>
	{"pmsuspended", "suspended", []string{"unknown"}},
}

// paused has the states of a VM that QMP tells apart where libvirt has one, by the reason
// (virDomainPausedReason).
var paused = map[int32]string{
	2: "finish-migrate", 3: "save-vm", 4: "save-vm", 5: "io-error", 6: "watchdog", 8: "shutdown", 9: "save-vm",
	10: "guest-panicked", 11: "prelaunch", 13: "postmigrate",
}

// Unknown is the VM's state where libvirt says one that it does not have.
const Unknown = "unknown"

// VM is the state of a VM as QMP says it (RunState of QEMU's qapi/run-state.json), stopped
// for a domain that is shut off, or Unknown.
func (s State) VM() string {
	if s.State < 0 || int(s.State) >= len(states) {
		return Unknown
	}
	is := &states[s.State]
	if is.words == "paused" {
		if vm := paused[s.Reason]; vm != "" {
			return vm
		}
	}
	return is.vm
}

// Incoming is VM for a domain that is no VM here. Such a domain may wait for its guest from another
// host, for which libvirt has no state of its own: it is paused, because it starts or migrates.
// That is QEMU's inmigrate.
func (s State) Incoming() string {
	switch state := s.VM(); state {
	case "prelaunch", "finish-migrate":
		return "inmigrate"
	default:
		return state
	}
}

// String is what `virsh domstate --reason` prints: "shut off (destroyed)". What libvirt
// does not have is said by its number.
func (s State) String() string {
	if s.State < 0 || int(s.State) >= len(states) {
		return fmt.Sprintf("state %d (%d)", s.State, s.Reason)
	}
	is := &states[s.State]
	if s.Reason < 0 || int(s.Reason) >= len(is.reasons) {
		return fmt.Sprintf("%s (%d)", is.words, s.Reason)
	}
	return is.words + " (" + is.reasons[s.Reason] + ")"
}
