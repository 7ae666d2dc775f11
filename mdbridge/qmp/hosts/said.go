package hosts

import (
	"bytes"

	"meta9/mdbridge/qmp"
	"meta9/mdbridge/said"
)

// A QEMU that its guest has taken over may send anything. Of its JSON qmp.Client has made one
// line of printable ASCII; here it is cut. Its names and errors are texts (package said).
const maxJSON = 16 << 10 // bytes of a status or a version

// runStates are the states that query-status returns: RunState of QEMU's qapi/run-state.json,
// and preconfig, which QEMU 2.12 to 7.2 have.
var runStates = map[string]bool{
	"debug": true, "inmigrate": true, "internal-error": true, "io-error": true, "paused": true,
	"postmigrate": true, "prelaunch": true, "finish-migrate": true, "restore-vm": true, "running": true,
	"save-vm": true, "shutdown": true, "suspended": true, "watchdog": true, "guest-panicked": true,
	"colo": true, "preconfig": true,
}

// stateUnknown is the state of a VM whose QEMU sends a state that is not in runStates.
const stateUnknown = "unknown"

// eventLine is an event as it is kept, on one line.
func eventLine(e *qmp.Event) []byte {
	line := bytes.TrimRight(qmp.AppendEvent(nil, e), "\r\n")
	if len(line) <= maxLineBytes {
		return line
	}
	plain := qmp.Event{Name: said.Text(e.Name), Timestamp: e.Timestamp}
	return bytes.TrimRight(qmp.AppendEvent(nil, &plain), "\r\n")
}
