package fs

import (
	"slices"
	"strconv"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// eventsFile is events: a VM's, or with no dir the root's.
type eventsFile struct {
	v   *View
	dir *vmDir
}

func (n *eventsFile) QID() p9.QID {
	if n.dir == nil {
		return streamQID(pathEvents)
	}
	return streamQID(n.dir.cell.ID() + slotEvents)
}

func (n *eventsFile) Stat(st *Stat) error {
	return n.v.statStream(st, n.QID(), n.dir, "events", 0o444)
}

// statStream fills st for a file without length or version.
func (v *View) statStream(st *Stat, qid p9.QID, dir *vmDir, name string, mode uint16) error {
	*st = Stat{QID: qid, Mode: mode, Mtime: v.tree.mtime.Load(), Name: name}
	if dir == nil {
		return nil
	}
	m, err := dir.vm()
	if err != nil {
		return err
	}
	st.Mtime = m.Mtime
	return nil
}

// Open starts a stream at the newest event. With NonBlock the Handle is no Waiter.
func (n *eventsFile) Open(f Flags) (Handle, error) {
	if err := refuseWrite(n, f); err != nil {
		return nil, err
	}
	h := &events{plain: plain{node: n, flags: f}, ring: n.v.tree.store.Ring(), guest: n.v.guest()}
	if n.dir != nil {
		h.cell, h.ring = n.dir.cell, n.dir.cell.Ring()
	}
	h.rev = h.ring.Last()
	// Looked at after the ring: a deletion from now on is an event that is read.
	if n.dir != nil {
		if _, err := n.dir.vm(); err != nil {
			return nil, err
		}
	}
	if f&NonBlock != 0 {
		return h, nil
	}
	return &blockingEvents{h}, nil
}

// events is an open events file: a byte stream of lines, made from the ring as it
// is read. The bytes that the last read gave are kept, and given again to a read
// at the same offset; a read at any other goes on. So a client that never saw the
// reply, as its transport was lost, asks again and misses nothing.
//
// Nothing is kept for it but those bytes and a revision: who reads slowly is told
// what it lost, and holds up nobody.
type events struct {
	plain
	ring  *store.Ring
	cell  *store.Cell // nil: the root's
	guest bool

	rev   uint64 // the newest that was made into lines
	base  uint64 // the offset of last
	last  []byte // what the last read gave
	rest  []byte // what of its lines it had no room for; follows last in memory
	gave  bool   // data was given since a read answered 0
	ended bool   // the VM's deletion was among the events
}

// blockingEvents is one whose reads may wait.
type blockingEvents struct{ *events }

// eventBuffer is how many bytes of lines are made at a time; one more line may
// pass it.
const eventBuffer = 8 << 10

// Read gives the next bytes. It answers ErrWait where there are none, or with
// Linux 0 once after a read that gave some. errs.Gone: the VM was deleted, and
// all its events were read.
func (h *events) Read(p []byte, off uint64) (int, error) {
	switch {
	case !h.readable():
		return 0, errs.BadUse
	case len(p) == 0:
		return 0, nil
	case off == h.base && len(h.last) > 0:
		return h.again(p), nil
	}
	if len(h.rest) == 0 {
		h.rest = h.lines(min(len(p), eventBuffer))
	}
	if len(h.rest) == 0 {
		return 0, h.nothing()
	}
	n := copy(p, h.rest)
	h.base, h.last, h.rest = off, h.rest[:n], h.rest[n:]
	h.gave = true
	return n, nil
}

// again gives what the last read gave. Where p has less room, what is left comes
// next after all.
func (h *events) again(p []byte) int {
	n := copy(p, h.last)
	h.last, h.rest = h.last[:n], h.last[n:len(h.last)+len(h.rest)]
	h.gave = true
	return n
}

// nothing is what a read gets that finds no line.
func (h *events) nothing() error {
	switch {
	case h.ended:
		return errs.Gone
	case h.flags&Linux != 0 && h.gave:
		h.gave = false
		return nil
	}
	return ErrWait
}

// lines makes lines of what is new, as many as fit the room and at least one.
func (h *events) lines(room int) []byte {
	if h.ring.Last() <= h.rev {
		return nil
	}
	var buf []byte
	found := make([]store.Event, 0, 16)
	for {
		events, lost := h.ring.After(h.rev, cap(found), found[:0])
		if lost != 0 {
			buf = appendLost(buf, h.rev+1, lost)
			h.rev = lost
			h.ended = h.ended || h.cell != nil && h.cell.VM() == nil
		}
		if len(events) == 0 {
			return buf
		}
		for i := range events {
			line := len(buf)
			if h.shows(&events[i]) {
				buf = appendEvent(buf, &events[i])
			}
			if line > 0 && len(buf) > room {
				return buf[:line]
			}
			h.rev = events[i].Rev
			h.ended = h.ended || h.cell != nil && events[i].Type == store.VMDeleted
		}
	}
}

// shows tells whether the reader may see the event. A guest is told of its own VM
// and its keys, not of what only an admin has a file for.
func (h *events) shows(e *store.Event) bool {
	if !h.guest {
		return true
	}
	switch e.Type {
	case store.VMCreated, store.VMChanged, store.VMDeleted:
		return true
	case store.KeySet, store.KeyRemoved:
		m := h.cell.VM()
		return m != nil && m.GuestSees(e.Space, e.Key)
	}
	return false
}

// Wait asks to be woken when Read may have more. That may turn out to be nothing
// that a guest is shown: then Read answers ErrWait again.
func (h *blockingEvents) Wait(wake func()) (cancel func(), ready bool) {
	if len(h.rest) > 0 || h.ended {
		return func() {}, true
	}
	return h.ring.Wait(h.rev, wake)
}

// State keeps the position and the bytes last given.
func (h *events) State() HandleState {
	return HandleState{
		Flags: h.flags, Rev: h.rev, Offset: h.base,
		Last: slices.Clone(h.last), Rest: slices.Clone(h.rest),
	}
}

// restore goes on where the State was taken. A revision that this store has not
// reached is another's: then there is nothing to have missed.
func (h *events) restore(hs HandleState) {
	h.rev, h.base = min(hs.Rev, h.rev), hs.Offset
	all := slices.Concat(hs.Last, hs.Rest)
	h.last, h.rest = all[:len(hs.Last)], all[len(hs.Last):]
}

// appendEvent appends the event's line.
func appendEvent(b []byte, e *store.Event) []byte {
	b = strconv.AppendUint(append(b, `{"rev":`...), e.Rev, 10)
	b = time.Unix(0, e.Date).UTC().AppendFormat(append(b, `,"date":"`...), "2006-01-02T15:04:05.000Z")
	b = append(b, `","type":"`...)
	b = append(b, e.Type...)
	b = append(b, '"')
	b = appendMember(b, "vm", e.VM)
	b = appendMember(b, "key", e.Key)
	if e.Type == store.KeySet || e.Type == store.KeyRemoved {
		b = appendMember(b, "space", e.Space.String())
	}
	b = appendMember(b, "by", e.By)
	return append(b, '}', '\n')
}

// appendLost appends the line that says which events the reader missed.
func appendLost(b []byte, from, to uint64) []byte {
	b = strconv.AppendUint(append(b, `{"type":"lost","from":`...), from, 10)
	b = strconv.AppendUint(append(b, `,"to":`...), to, 10)
	return append(b, '}', '\n')
}

func appendMember(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return vm.Value{Kind: vm.StringValue, Text: text}.AppendJSON(b)
}
