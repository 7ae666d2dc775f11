package libvirt

import (
	"fmt"
	"strings"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// soon is how long a change of a domain may take until meta9d shows it. A machine may stand
// still for longer, which within waits out.
const soon = time.Second

// within measures how long after virsh has returned `meta9 vm list` shows a state.
func (h *virt) within(meta9 func(...string) string, uuid, want string) time.Duration {
	h.t.Helper()
	began := time.Now()
	for {
		list := meta9("vm", "list", "-H", "-o", "uuid,state")
		for line := range strings.Lines(list) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == uuid && f[1] == want {
				return time.Since(began)
			}
		}
		if time.Since(began) > 60*soon {
			h.t.Fatalf("not %s after %v:\n%s", want, time.Since(began), list)
		}
	}
}

// states: what virsh does with a domain shows in the list of VMs, and so does what was
// done while libvirtd or meta9d was not there.
func (h *virt) states() {
	t := h.t
	dom, twin, transient := testenv.UUID(11), testenv.UUID(12), testenv.UUID(13)
	qmp := "/var/lib/libvirt/qemu/twin.meta9-qmp"
	h.define("dom", dom, "")
	h.define("nobody", testenv.UUID(14), "")
	h.Virsh("define", h.xml("twin", twin, "", "<qemu:commandline><qemu:arg value='-qmp'/><qemu:arg value='unix:"+qmp+",server=on,wait=off'/></qemu:commandline>"))
	d := h.meta9d(daemon.Options{Args: []string{"--libvirt", "", "--qmp", "unix:" + qmp}})
	meta9 := func(args ...string) string {
		t.Helper()
		return h.Must(append([]string{h.meta9, "--addr", "unix:" + d.Admin()}, args...)...)
	}
	for _, uuid := range []string{dom, transient} {
		d.NewVM(uuid, fmt.Sprintf(`{"uuid":%q}`, uuid))
	}
	h.within(meta9, dom, "stopped")
	// A busy machine may be late once or twice: each is some 30 ms of a second.
	slowest, late := time.Duration(0), []string(nil)
	for _, step := range [][2]string{
		{"start", "running"}, {"suspend", "paused"}, {"resume", "running"}, {"destroy", "stopped"}, {"start", "running"}, {"suspend", "paused"},
	} {
		h.Virsh(step[0], "dom")
		took := h.within(meta9, dom, step[1])
		slowest = max(slowest, took)
		if took > soon {
			late = append(late, fmt.Sprintf("%s after %v", step[0], took))
		}
		if words, want := h.words(meta9, dom), strings.TrimSpace(h.Virsh("domstate", "--reason", "dom")); words != want {
			t.Errorf("after virsh %s: libvirt_state is %q, and virsh says %q", step[0], words, want)
		}
	}
	if t.Logf("slowest: %v", slowest); len(late) > 2 {
		t.Errorf("what virsh has done shows late: %v", late)
	}
	if list := meta9("vm", "list", "-H", "-o", "uuid"); strings.Contains(list, testenv.UUID(14)) {
		t.Error("a domain that nobody has adopted is a VM")
	}

	// A domain that is gone when it is shut off.
	h.Virsh("create", h.xml("transient", transient, "", ""))
	h.within(meta9, transient, "running")
	h.Virsh("destroy", "transient")
	h.within(meta9, transient, "stopped")
	if words := h.words(meta9, transient); words != "no domain" {
		t.Errorf("of a domain that is gone libvirt_state is %q", words)
	}

	// QMP has the last word as long as it is there.
	h.Virsh("start", "twin")
	h.within(meta9, twin, "running")
	h.eventuallyIn(meta9, twin, "qmp/status", "running")
	h.Virsh("suspend", "twin")
	h.within(meta9, twin, "paused")
	if words := h.words(meta9, twin); strings.HasPrefix(words, "paused") {
		t.Errorf("libvirt_state is %q, though QMP has the VM", words)
	}
	h.Virsh("destroy", "twin")
	h.within(meta9, twin, "stopped")

	// libvirtd is restarted: the VM keeps its state, and what was changed after is seen.
	status := func() string { return meta9("status") }
	if s := status(); !strings.Contains(s, "libvirt      connected, since ") {
		t.Errorf("status:\n%s", s)
	}
	h.Stop()
	testenv.Eventually(t, "status says that libvirt is gone", func() bool { return strings.Contains(status(), "libvirt      not connected: ") })
	h.within(meta9, dom, "paused")
	h.Start()
	h.Virsh("resume", "dom")
	h.within(meta9, dom, "running") // after a pause between tries
	testenv.Eventually(t, "status says that libvirt is there", func() bool { return strings.Contains(status(), "libvirt      connected, since ") })

	// meta9d is restarted: what was done meanwhile is found.
	d.Kill()
	h.Virsh("suspend", "dom")
	d.Restart()
	h.within(meta9, dom, "paused")
	h.Virsh("destroy", "dom")
	h.within(meta9, dom, "stopped")
	for _, name := range []string{"dom", "twin", "nobody"} {
		h.Virsh("undefine", name)
	}
	if n := strings.Count(d.Log(), "\n"); n > 12 {
		t.Errorf("%d lines of log:\n%s", n, d.Log())
	}
}

// words is the VM's libvirt_state.
func (h *virt) words(meta9 func(...string) string, uuid string) string {
	h.t.Helper()
	_, text, _ := strings.Cut(meta9("vm", "get", uuid), `"libvirt_state": "`)
	text, _, _ = strings.Cut(text, `"`)
	return text
}

// eventuallyIn waits until a file of the VM's has a text.
func (h *virt) eventuallyIn(meta9 func(...string) string, uuid, file, want string) {
	h.t.Helper()
	testenv.Eventually(h.t, file+" has "+want, func() bool { return strings.Contains(meta9("cat", "vms/"+uuid+"/"+file), want) })
}
