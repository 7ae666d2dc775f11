package fs

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// keyNode is one key, whatever it is called by now.
type keyNode struct {
	dir  *spaceDir
	id   uint64
	key  string // as it was called when it was walked to
	file string // the same, as a file name
}

// view is whose node it is.
func (n *keyNode) view() *View { return n.dir.dir.v }

// entry is the key as it is now. errs.Stale: it was removed or replaced.
func (n *keyNode) entry() (*vm.Entry, error) {
	if e := n.dir.find(n.id); e != nil {
		return e, nil
	}
	return nil, errs.Stale
}

// held tells whether the View sees the key as empty.
func (n *keyNode) held() bool { return n.view().held(n.id) }

// QID has version 0, which nobody caches, once the key is gone.
func (n *keyNode) QID() p9.QID {
	e, err := n.entry()
	if err != nil {
		return streamQID(n.id)
	}
	return fileQID(n.id, e.Rev)
}

func (n *keyNode) Stat(st *Stat) error {
	e, err := n.entry()
	if err != nil {
		return err
	}
	n.stat(st, e)
	return nil
}

// stat fills st from e; only a key that was renamed needs a new file name.
func (n *keyNode) stat(st *Stat, e *vm.Entry) {
	file := n.file
	if e.Name != n.key {
		file = vm.FileName(e.Name)
	}
	statKey(st, e, file, n.held())
}

// mayWrite tells whether this View may change the key now. It is the early answer,
// as for an open; the committer asks again, by the name that the key has then.
func (n *keyNode) mayWrite() error {
	e, err := n.entry()
	if err != nil {
		return err
	}
	if err := n.view().tree.store.Writable(); err != nil {
		return err
	}
	m := n.dir.dir.cell.VM()
	if !n.view().guest() || m == nil {
		return nil
	}
	return m.GuestMayWrite(n.dir.space, e.Name)
}

// intent begins an intent on the key, by its ID: it follows a rename, and never
// hits another key that has the name by now.
func (n *keyNode) intent(kind store.OpKind, by string) *store.Intent {
	in := n.dir.intent(kind, by)
	in.ID = n.id
	return in
}

// Open pins the value for reading, and holds a truncation. What is only written is
// not pinned.
func (n *keyNode) Open(f Flags) (Handle, error) {
	if f&(Write|Trunc|AppendTo) != 0 {
		if err := n.mayWrite(); err != nil {
			return nil, err
		}
	}
	h := &keyHandle{node: n, flags: f}
	if f&Read != 0 && h.open() == nil {
		h.reader.close()
		return nil, errs.Stale
	}
	if f&Trunc != 0 {
		if err := h.truncate(); err != nil {
			h.reader.close()
			return nil, errs.Stale
		}
	}
	return h, nil
}

// AppendValue gives the newest value, which is that of no open file.
func (n *keyNode) AppendValue(b []byte, max int) ([]byte, error) {
	e, err := n.entry()
	switch {
	case err != nil:
		return b, err
	case n.held():
		return b, nil
	case len(e.Value) > max:
		return b, errs.New(errs.TooBig, "%d bytes, and %d fit", len(e.Value), max)
	}
	return append(b, e.Value...), nil
}

// PutValue replaces the value of the key under the name that it has now.
func (n *keyNode) PutValue(data []byte, by string, done func(error)) {
	e, err := n.entry()
	if err != nil {
		done(err)
		return
	}
	n.dir.Put(vm.FileName(e.Name), data, by, done)
}

// Remove removes this very key; errs.Gone when somebody else did.
func (n *keyNode) Remove(by string, done func(error)) {
	if err := n.mayWrite(); err != nil {
		done(err)
		return
	}
	n.dir.submit(n.intent(store.Remove, by), ending(done))
}

// SetStat is one commit of all that changes.
func (n *keyNode) SetStat(c Change, by string, done func(error)) {
	if err := n.mayWrite(); err != nil {
		done(err)
		return
	}
	in := n.intent(store.Set, by)
	in.Length, in.Mode, in.Mtime = c.Length, c.Mode, c.Mtime
	if c.Name != nil {
		key, err := n.dir.writable(*c.Name)
		if err != nil {
			done(err)
			return
		}
		in.NewName = key
	}
	n.dir.submit(in, ending(done))
}
