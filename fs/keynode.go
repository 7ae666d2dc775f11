package fs

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// keyNode is one key, also after a rename. It stays that key's when another key gets the
// name: Ref.Current says what then happens to a fid.
type keyNode struct {
	dir *spaceDir
	id  uint64

	// The key as it was last seen: it may be gone by now.
	rev  uint64
	key  string
	file string // key, as a file name
}

// newKeyNode is the node of an entry that was found in d.
func newKeyNode(d *spaceDir, e *vm.Entry, file string) *keyNode {
	return &keyNode{dir: d, id: e.ID, rev: e.Rev, key: e.Name, file: file}
}

// view is the View of the node.
func (n *keyNode) view() *View { return n.dir.dir.v }

// entry is the key as it is now. errs.NotFound: it was removed or replaced, or is
// hidden from this View.
func (n *keyNode) entry() (*vm.Entry, error) {
	e := n.dir.find(n.id)
	if e == nil {
		return nil, errs.NotFound
	}
	n.saw(e)
	return e, nil
}

// saw notes the key's revision and name; a new file name is made only after a rename.
func (n *keyNode) saw(e *vm.Entry) {
	n.rev = e.Rev
	if e.Name != n.key {
		n.key, n.file = e.Name, vm.FileName(e.Name)
	}
}

// held tells whether the View sees the key as empty.
func (n *keyNode) held() bool { return n.view().held(n.id) }

// QID is that of the key as it was last seen: a reply must not have a newer version than
// the value that its request has read.
func (n *keyNode) QID() p9.QID { return fileQID(n.id, n.rev) }

func (n *keyNode) Stat(st *Stat) error {
	e, err := n.entry()
	if err != nil {
		return err
	}
	statKey(st, e, n.file, n.held())
	return nil
}

// writable is the key as it is now, if this View may change it. An open needs the answer
// early; the committer checks again, with the name that the key has then.
func (n *keyNode) writable() (*vm.Entry, error) {
	e, err := n.entry()
	if err != nil {
		return nil, err
	}
	if err := n.view().tree.store.Writable(); err != nil {
		return nil, err
	}
	m := n.dir.dir.cell.VM()
	if !n.view().guest() || m == nil {
		return e, nil
	}
	return e, m.GuestMayWrite(n.dir.space, e.Name)
}

// intent begins an intent on the key, by its ID: it follows a rename, and never
// hits another key that has the name by now.
func (n *keyNode) intent(kind store.OpKind, by Author) *store.Intent {
	in := n.dir.intent(kind, by)
	in.ID = n.id
	return in
}

// Open pins the value for reading, and holds a truncation. What is only written is
// not pinned.
func (n *keyNode) Open(f Flags) (Handle, error) {
	h := &keyHandle{node: n, flags: f}
	if f&(Write|Trunc|AppendTo) != 0 {
		e, err := n.writable()
		if err != nil {
			return nil, err
		}
		if f&Read == 0 {
			h.keepStat(e)
		}
	}
	if f&Read != 0 {
		e := h.open()
		if e == nil {
			h.reader.close()
			return nil, errs.NotFound
		}
		n.saw(e)
	}
	if f&Trunc != 0 {
		if err := h.truncate(); err != nil {
			h.reader.close()
			return nil, unopened(err)
		}
	}
	return h, nil
}

// AppendValue appends the newest value; it does not use those that open files pin.
func (n *keyNode) AppendValue(b []byte, max int) ([]byte, error) {
	e, err := n.entry()
	if err != nil {
		return b, err
	}
	return n.dir.appendEntry(b, e, max)
}

// PutValue replaces the value of the key under the name that it has now.
func (n *keyNode) PutValue(data []byte, by Author, done func(error)) {
	if _, err := n.entry(); err != nil {
		done(err)
		return
	}
	n.dir.Put(n.file, data, by, done)
}

// Remove removes this very key.
func (n *keyNode) Remove(by Author, done func(error)) {
	if _, err := n.writable(); err != nil {
		done(err)
		return
	}
	n.dir.submit(n.intent(store.Remove, by), func(r store.Result) { done(unopened(r.Err)) })
}

// SetStat changes this very key.
func (n *keyNode) SetStat(c Change, by Author, done func(error)) {
	n.change(c, by, func(err error) { done(unopened(err)) })
}

// rename gives this very key another name, in the same folder.
func (n *keyNode) rename(to Node, newName string, by Author, done func(error)) {
	if err := n.dir.sameFolder(to); err != nil {
		done(err)
		return
	}
	n.SetStat(Change{Name: &newName}, by, done)
}

// change is one commit of all that changes. errs.NotFound and errs.Gone: the key is
// no longer there.
func (n *keyNode) change(c Change, by Author, done func(error)) {
	if _, err := n.writable(); err != nil {
		done(err)
		return
	}
	in := n.intent(store.Set, by)
	in.Length, in.Mtime = c.Length, c.Mtime
	if c.Mode != nil {
		mode := *c.Mode&0o777 | modeSet
		in.Mode = &mode
	}
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

// unopened is the error for a fid that is not open: that a key is gone is the same
// for it as that there is none, and find(1) and rsync(1) expect ENOENT only.
func unopened(err error) error {
	if errs.KindOf(err) == errs.Gone {
		return errs.NotFound
	}
	return err
}

// opened is the error for an open file: it is there, but what it was opened on is
// not.
func opened(err error) error {
	if errs.KindOf(err) == errs.NotFound {
		return errs.Gone
	}
	return err
}
