package fs

import (
	"strconv"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/store"
	"meta9/fs/vm/ordjson"
)

// eventsFile is events: a VM's, or with no dir the root's.
type eventsFile struct {
	v   *View
	dir *vmDir
}

func (n *eventsFile) QID() p9.QID { return n.dir.streamQID(slotEvents, pathEvents) }

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

// Open starts a stream at the newest event.
func (n *eventsFile) Open(f Flags) (Handle, error) {
	if err := refuseWrite(n, f); err != nil {
		return nil, err
	}
	src := &ringSource{ring: n.v.tree.store.Ring(), guest: n.v.guest()}
	if n.dir != nil {
		src.cell, src.ring = n.dir.cell, n.dir.cell.Ring()
	}
	h := openStream(n, f, src)
	// The VM is looked up after the ring's position: a deletion after that is an event.
	if n.dir != nil {
		if _, err := n.dir.vm(); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// ringSource makes lines of a ring's events, as one reader may see them.
type ringSource struct {
	ring  *store.Ring
	cell  *store.Cell // nil: the root's
	guest bool
}

// Last is the revision of the newest event.
func (s *ringSource) Last() uint64 { return s.ring.Last() }

// Lines makes lines of the events after a revision. A VM's end with its deletion.
func (s *ringSource) Lines(after uint64, room int) (buf []byte, to uint64, ended bool) {
	found := make([]store.Event, 0, 16)
	for to = after; ; {
		events, lost := s.ring.After(to, cap(found), found[:0])
		if lost != 0 {
			buf = AppendLost(buf, to+1, lost)
			to = lost
			ended = ended || s.cell != nil && s.cell.VM() == nil
		}
		if len(events) == 0 {
			return buf, to, ended
		}
		for i := range events {
			line := len(buf)
			if s.shows(&events[i]) {
				buf = appendEvent(buf, &events[i])
			}
			if line > 0 && len(buf) > room {
				return buf[:line], to, ended
			}
			to = events[i].Rev
			ended = ended || s.cell != nil && events[i].Type == store.VMDeleted
		}
	}
}

// Wait is the ring's.
func (s *ringSource) Wait(after uint64, wake func()) (cancel func(), ready bool) {
	return s.ring.Wait(after, wake)
}

// shows tells whether the reader may see the event. A guest sees events of its own VM and
// of keys that it sees, not those about files that only an admin has.
func (s *ringSource) shows(e *store.Event) bool {
	if !s.guest {
		return true
	}
	switch e.Type {
	case store.VMCreated, store.VMChanged, store.VMDeleted:
		return true
	case store.KeySet, store.KeyRemoved:
		m := s.cell.VM()
		return m != nil && m.GuestSees(e.Space, e.Key)
	}
	return false
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
	b = appendMember(b, "as", e.As)
	return append(b, '}', '\n')
}

func appendMember(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return ordjson.Value{Kind: ordjson.String, Text: text}.AppendJSON(b)
}
