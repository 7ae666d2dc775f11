package store

import (
	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Tail is the newest events of a Ring in a plain form, so that they outlive the
// process: who had read up to After, or further, misses nothing on the Ring that is
// made of it.
type Tail struct {
	VM     string // UUID; "": the root's
	After  uint64 // Events are all that came after this revision
	Last   uint64 // up to which the Ring had come: no less than that of any event
	Events []Event
}

// TailOf is what a Ring has after a revision. Where that is no longer all there was,
// After says so.
func TailOf(r *Ring, after uint64) Tail {
	events, lost := r.After(after, 0, nil)
	last := r.Last()
	return Tail{After: min(max(after, lost), last), Last: last, Events: events}
}

// RestoreTail makes the Ring of the Tail's VM, or the root's, as it was. It must be
// called before the first Submit and before anybody reads that Ring. A Tail of a VM
// that is not there is nothing. errs.Invalid: it is no Tail of this store's.
func (s *Store) RestoreTail(t Tail) error {
	if err := t.check(s.Rev()); err != nil {
		return err
	}
	ring := s.ring
	if t.VM != "" {
		c := s.Cell(t.VM)
		if c == nil {
			return nil
		}
		ring = c.Ring()
	}
	ring.Restore(t.After, t.Events, t.Last)
	return nil
}

// check says what no Tail can have whose store has come to a revision.
func (t *Tail) check(rev uint64) error {
	at := t.After
	for i := range t.Events {
		ev := &t.Events[i]
		if ev.Rev <= at || !ev.Type.known() || ev.Space >= vm.NumSpaces || t.VM != "" && ev.VM != t.VM {
			return errs.New(errs.Invalid, "event %d of a ring of %q is none", i, t.VM)
		}
		at = ev.Rev
	}
	if at > t.Last || t.Last > rev {
		return errs.New(errs.Invalid, "a ring of %q at revision %d, the store is at %d", t.VM, t.Last, rev)
	}
	return nil
}
