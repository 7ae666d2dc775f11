package fs

import (
	"maps"
	"slices"
	"sync"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// State names this place so that Restore finds it again.
func (r *Ref) State() NodeState {
	ns := NodeState{ID: r.QID().Path, As: []byte(r.by.As), Look: r.look}
	for at := r; at.parent != nil; at = at.parent {
		ns.Path = append(ns.Path, at.name)
	}
	slices.Reverse(ns.Path)
	ns.Top = len(ns.Path)
	for at := r; at.parent != nil && !at.top; at = at.parent {
		ns.Top--
	}
	return ns
}

// Restore finds the place that ns names. What stands there by name must have the
// same qid.path; a key that was renamed meanwhile is found by that, and one that is
// gone is as gone as for a fid that was there all the time. For what else is gone it
// gives a Ref whose operations answer errs.Stale. Errors: AuthFailed for nobody,
// Invalid when ns cannot be a State.
func (v *View) Restore(ns NodeState) (*Ref, error) {
	if len(ns.Path) > 2*maxNames || ns.Top < 0 || ns.Top > len(ns.Path) {
		return nil, errs.New(errs.Invalid, "no place in the tree has %d names", len(ns.Path))
	}
	r, err := v.root(string(ns.As))
	if errs.KindOf(err) == errs.AuthFailed {
		return nil, err
	}
	if err != nil { // the VM is gone
		r = &Ref{view: v, node: goneNode{}, name: "/", by: v.author(string(ns.As))}
	}
	r.look = ns.Look
	for i := 0; ; i++ {
		if i == ns.Top {
			r.top = true
		}
		if i == len(ns.Path) {
			return v.checked(r, ns.ID), nil
		}
		r = r.restoreChild(ns.Path[i], ns.ID, i == len(ns.Path)-1)
	}
}

// restoreChild walks to a name, or, at the end of a path, to the key of that ID.
func (r *Ref) restoreChild(name string, id uint64, last bool) *Ref {
	var n Node
	err := r.view.Await(new(sync.Mutex), func() (err error) {
		n, err = Walk(r.node, name)
		return err
	})
	if d, ok := r.node.(*spaceDir); ok && last && (err != nil || n.QID().Path != id) {
		// Also one that is gone is that key's, with what its name leads to: see Current.
		n := &keyNode{dir: d, id: id, file: name}
		if e := d.find(id); e != nil {
			n.saw(e)
		}
		return r.to(n, name)
	}
	if err != nil {
		n = goneNode{}
	}
	return r.to(n, name)
}

// checked is r, if it has the ID that it had.
func (v *View) checked(r *Ref, id uint64) *Ref {
	if r.QID().Path == id {
		return r
	}
	gone := *r
	gone.node = goneNode{id: id}
	return &gone
}

// Tails gives fn what open event files have not read yet, one Tail for each ring that
// they read. readers are the positions that the States of open files had (their Rev),
// by the qid.path: the smallest of each; what is no event file is passed over. Unless the
// store was stopped, a Tail may lack events that are published meanwhile. An error of fn ends it, and is returned.
func (t *Tree) Tails(readers map[uint64]uint64, fn func(store.Tail) error) error {
	for _, path := range slices.Sorted(maps.Keys(readers)) {
		ring, uuid := t.ringAt(path)
		if ring == nil {
			continue
		}
		tail := store.TailOf(ring, readers[path])
		tail.VM = uuid
		if err := fn(tail); err != nil {
			return err
		}
	}
	return nil
}

// EventsOf is the VM whose events the file of that qid.path has, "" for the root's; false:
// it is no event file.
func (t *Tree) EventsOf(path uint64) (uuid string, is bool) {
	ring, uuid := t.ringAt(path)
	return uuid, ring != nil
}

// ringAt is the ring that the event file of that qid.path reads, and its VM; nil: no
// event file has that path.
func (t *Tree) ringAt(path uint64) (ring *store.Ring, uuid string) {
	if path == pathEvents {
		return t.store.Ring(), ""
	}
	if path <= store.FirstID {
		return nil, ""
	}
	t.store.Cells(path-slotEvents-1, func(c *store.Cell) bool {
		if c.ID() == path-slotEvents {
			ring, uuid = c.Ring(), c.UUID()
		}
		return false
	})
	return ring, uuid
}

// goneNode stands where Restore found nothing. Missing answers for all that it
// cannot do.
type goneNode struct{ id uint64 }

func (n goneNode) QID() p9.QID      { return streamQID(n.id) }
func (n goneNode) Stat(*Stat) error { return errs.Stale }
