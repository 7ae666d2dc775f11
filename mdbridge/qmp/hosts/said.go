package hosts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf16"

	"meta9/mdbridge/qmp"
	"meta9/mdbridge/said"
)

// Texts from a QEMU are cut, and what does not print is escaped, before they are kept,
// logged or shown: a QEMU that its guest has taken over may send anything.
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

// printableJSON is the same JSON value on one line, with characters that do not print
// escaped in its strings (\u202e). False: it is no JSON, or has more than most bytes.
func printableJSON(text []byte, most int) ([]byte, bool) {
	var b bytes.Buffer
	switch {
	case len(text) > most || json.Compact(&b, text) != nil:
		return nil, false
	case !bytes.ContainsFunc(text, unprintable):
		return text, true
	}
	var out []byte
	for _, r := range b.String() {
		switch {
		case !unprintable(r):
			out = append(out, string(r)...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, "\\u%04x\\u%04x", high, low)
		default:
			out = fmt.Appendf(out, "\\u%04x", r)
		}
	}
	return out, true
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// eventLine is an event as it is kept, on one line.
func eventLine(e *qmp.Event) []byte {
	line := bytes.TrimRight(qmp.AppendEvent(nil, e), "\r\n")
	if text, ok := printableJSON(line, maxLineBytes); ok {
		return text
	}
	plain := qmp.Event{Name: said.Text(e.Name), Timestamp: e.Timestamp}
	return bytes.TrimRight(qmp.AppendEvent(nil, &plain), "\r\n")
}
