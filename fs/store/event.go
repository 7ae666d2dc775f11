package store

import (
	"meta9/fs/ring"
	"meta9/fs/vm"
)

// EventType is the "type" of an event line.
type EventType string

// The types of events (docs/tree.md, "Events").
const (
	VMCreated      EventType = "vm-created"
	VMChanged      EventType = "vm-changed"
	VMDeleted      EventType = "vm-deleted"
	VMArrived      EventType = "vm-arrived" // in the root's ring alone
	VMLeft         EventType = "vm-left"    // in the root's ring alone
	KeySet         EventType = "key-set"
	KeyRemoved     EventType = "key-removed"
	SessionParked  EventType = "session-parked"
	SessionResumed EventType = "session-resumed"
	QMP            EventType = "qmp"
)

// known tells whether it is one of these.
func (t EventType) known() bool {
	switch t {
	case VMCreated, VMChanged, VMDeleted, VMArrived, VMLeft, KeySet, KeyRemoved, SessionParked, SessionResumed, QMP:
		return true
	}
	return false
}

// Changes tells whether an event of this type is that of a change. The others are notes.
func (t EventType) Changes() bool {
	switch t {
	case SessionParked, SessionResumed, QMP:
		return false
	}
	return true
}

// Event is one thing that happened. Every event has a revision of its own.
type Event struct {
	Rev   uint64
	Date  int64 // Unix nanoseconds
	Type  EventType
	VM    string // UUID, "" for what belongs to no VM
	Key   string // key-set, key-removed: the key; else what the event is about
	Space vm.Space
	By    string // the principal that made the change: what its channel proved
	As    string // what the one who made it calls himself; anything, "" for nothing
}

// Ring is the newest events of one VM, or of all, by their revisions. The committer
// adds to it.
type Ring = ring.Ring[Event]

// newRing makes a Ring that begins after rev.
func newRing(size int, rev uint64) *Ring {
	return ring.New(ring.Config[Event]{Items: size, Position: func(ev *Event) uint64 { return ev.Rev }}, rev)
}
