// Package vminfo is vminfod's HTTP API as a client needs it: the events of its
// stream, the queries that meta9d understands beside it, and the client itself.
// The facts are from the real service: its code and recorded streams
// (docs/vminfo.md).
//
// Nothing here is shared between goroutines but a Client, which any number may
// use; a Stream belongs to one.
package vminfo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// DateFormat is how a date is written, always in UTC: JavaScript's toISOString.
const DateFormat = "2006-01-02T15:04:05.000Z"

// The types of events.
const (
	Ready  = "ready"  // the first: all VMs
	Create = "create" // a VM is there
	Modify = "modify" // a VM has changed
	Delete = "delete" // a VM is gone
	Fault  = "error"  // meta9d's only, and the last: why the stream ends
)

// Event is one line of the stream.
type Event struct {
	Type     string          `json:"type"`
	Date     time.Time       `json:"date"`
	Zonename string          `json:"zonename"`
	UUID     string          `json:"uuid"`    // Ready, Fault: the listener's
	VM       json.RawMessage `json:"vm"`      // Create, Modify: the whole VM
	Changes  []Change        `json:"changes"` // Modify
	VMs      string          `json:"vms"`     // Ready: the text of an array of VMs
	Error    string          `json:"error"`   // Fault
	Rev      uint64          `json:"rev"`     // meta9d's only, to a client that said since=

	// Raw is the line, without its end.
	Raw []byte `json:"-"`
}

// Change is one difference that a Modify made. A value that is not there is nil.
type Change struct {
	PrettyPath string          `json:"prettyPath"`
	Action     string          `json:"action"` // "added", "removed", "changed"
	OldValue   json.RawMessage `json:"oldValue"`
	NewValue   json.RawMessage `json:"newValue"`
	Ident      string          `json:"ident"`
}

// ErrNoEvent is in the chain of every error that is about what a service has sent,
// and not about the connection to it.
var ErrNoEvent = errors.New("no event")

// ParseEvent reads one line. Like vminfod's own client it takes nothing but an
// object with a valid date. The Event keeps the line.
func ParseEvent(line []byte) (*Event, error) {
	ev := &Event{Raw: line}
	err := json.Unmarshal(line, ev)
	switch {
	case err != nil:
	case ev.Type == "":
		err = errors.New("without a type")
	case ev.Date.IsZero():
		err = errors.New("without a date")
	case (ev.Type == Create || ev.Type == Modify) && ev.VM == nil:
		err = fmt.Errorf("a %s without its VM", ev.Type)
	default:
		return ev, nil
	}
	return nil, fmt.Errorf("%w: %w: %.80q", ErrNoEvent, err, line)
}

// Alias is the alias of the event's VM, or "".
func (ev *Event) Alias() string {
	var m struct {
		Alias string `json:"alias"`
	}
	if json.Unmarshal(ev.VM, &m) != nil {
		return ""
	}
	return m.Alias
}

// errNoArray is for a list of VMs that is null.
var errNoArray = fmt.Errorf("%w: the list of VMs is no array", ErrNoEvent)

// UUIDOf is the uuid in the text of a VM, or "". It stops there: texts are long, and the
// uuid is near the beginning.
func UUIDOf(vm []byte) string {
	dec := json.NewDecoder(bytes.NewReader(vm))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return ""
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return ""
		}
		if name == "uuid" {
			value, _ := dec.Token()
			uuid, _ := value.(string)
			return uuid
		}
		var skipped json.RawMessage
		if dec.Decode(&skipped) != nil {
			return ""
		}
	}
	return ""
}
