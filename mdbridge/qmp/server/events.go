package server

import (
	"time"

	"meta9/fs/store"
	"meta9/mdbridge/qmp"
)

// eventType is an event of ours.
type eventType struct {
	name    string
	data    *typ
	limited bool // similar events are limited to one a second
}

// The members of events' data.
var (
	changeMembers  = []member{required("uuid", strType), required("rev", intType), optional("by", strType), optional("as", strType)}
	sessionMembers = []member{required("session", strType), optional("uuid", strType), optional("who", strType)}
)

// The events. Not limited are VM_CREATED and VM_DELETED, since each makes the other
// untrue, and those of sessions.
var (
	vmCreated       = &eventType{"VM_CREATED", object(changeMembers...), false}
	vmChanged       = &eventType{"VM_CHANGED", object(changeMembers...), true}
	vmDeleted       = &eventType{"VM_DELETED", object(changeMembers...), false}
	metadataChanged = &eventType{"METADATA_CHANGED", object(append(changeMembers[:4:4],
		required("key", strType), required("space", spaceType), required("change", enum("set", "removed")))...), true}
	sessionParked  = &eventType{"SESSION_PARKED", object(sessionMembers...), false}
	sessionResumed = &eventType{"SESSION_RESUMED", object(sessionMembers...), false}
	eventsLost     = &eventType{"EVENTS_LOST", object(required("from", intType), required("to", intType)), false}
	shutdown       = &eventType{"SHUTDOWN", object(required("guest", boolType), required("reason", enum("host-qmp-quit", "host-signal"))), false}

	events = []*eventType{
		eventsLost, metadataChanged, sessionParked, sessionResumed, shutdown, vmChanged, vmCreated, vmDeleted,
	}
)

// ofStore maps the store's events to those that clients get.
var ofStore = map[store.EventType]*eventType{
	store.VMCreated: vmCreated, store.VMChanged: vmChanged, store.VMDeleted: vmDeleted,
	store.KeySet: metadataChanged, store.KeyRemoved: metadataChanged,
	store.SessionParked: sessionParked, store.SessionResumed: sessionResumed,
}

// dataOf is an event's data, by the members of its type.
func dataOf(t *eventType, e *store.Event) map[string]any {
	d := map[string]any{}
	who := "by"
	if t == sessionParked || t == sessionResumed {
		d["session"], who = e.Key, "who"
	} else {
		d["rev"] = e.Rev
		if e.As != "" {
			d["as"] = e.As
		}
	}
	if e.VM != "" {
		d["uuid"] = e.VM
	}
	if e.By != "" {
		d[who] = e.By
	}
	if t == metadataChanged {
		d["key"], d["space"], d["change"] = e.Key, e.Space.String(), "set"
		if e.Type == store.KeyRemoved {
			d["change"] = "removed"
		}
	}
	return d
}

// appendEvent appends an event that happened at date, in Unix nanoseconds.
func appendEvent(b []byte, t *eventType, date int64, data map[string]any) []byte {
	text, err := qmp.Marshal(data)
	if err != nil {
		text = nil
	}
	return qmp.AppendEvent(b, &qmp.Event{
		Name: t.name, Data: text,
		Timestamp: qmp.Stamp{Seconds: date / 1e9, Microseconds: date % 1e9 / 1e3},
	})
}

// appendShutdown appends the last event.
func (s *Server) appendShutdown(b []byte) []byte {
	data := map[string]any{"guest": false, "reason": s.reason()}
	return appendEvent(b, shutdown, s.cfg.Now().UnixNano(), data)
}

// eventReader reads the store's events for one connection and makes QMP events of them.
type eventReader struct {
	ring  *store.Ring
	rev   uint64 // the newest that was taken from the ring
	limit limiter
}

// eventsAtOnce is how many events are taken from the ring at a time.
const eventsAtOnce = 64

// append appends the events that are there. due is the time until an event that is held
// back must be written; 0: none is.
func (t *eventReader) append(b []byte, now time.Time) (_ []byte, due time.Duration) {
	b = t.limit.expire(b, now)
	for t.ring.Last() > t.rev {
		events, lost := t.ring.After(t.rev, eventsAtOnce, nil)
		if lost != 0 {
			b = appendEvent(b, eventsLost, now.UnixNano(), map[string]any{"from": t.rev + 1, "to": lost})
			t.rev = lost
		}
		for i := range events {
			b = t.limit.add(b, &events[i], now)
			t.rev = events[i].Rev
		}
		if len(events) == 0 {
			break
		}
	}
	return b, t.limit.due(now)
}
