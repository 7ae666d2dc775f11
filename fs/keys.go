package fs

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// spaceDir is keys/ or internal/ of one VM.
type spaceDir struct {
	dir   *vmDir
	space vm.Space
}

// slot is the space's in the VM's block of qid paths.
func (d *spaceDir) slot() uint64 {
	if d.space == vm.Internal {
		return slotInternal
	}
	return slotKeys
}

func (d *spaceDir) QID() p9.QID { return dirQID(d.dir.cell.ID()+d.slot(), d.dir.rev()) }

func (d *spaceDir) Stat(st *Stat) error {
	return d.dir.statSlot(st, d.slot(), d.space.String())
}

// sees tells whether the key is there for this View.
func (d *spaceDir) sees(m *vm.VM, key string) bool {
	return d.dir.v.who.Admin || m.GuestSees(d.space, key)
}

// find is the entry of that ID; nil when it is gone, or no longer for this View.
func (d *spaceDir) find(id uint64) *vm.Entry {
	m := d.dir.cell.VM()
	if m == nil {
		return nil
	}
	e := m.GetID(d.space, id)
	if e == nil || !d.sees(m, e.Name) {
		return nil
	}
	return e
}

// named finds a key by its file name. errs.NotFound also for a spelling that is not the
// canonical one, and for a hidden key.
func (d *spaceDir) named(name string) (*vm.Entry, error) {
	m, err := d.dir.vm()
	if err != nil {
		return nil, err
	}
	key, err := vm.KeyName(name)
	if err != nil {
		return nil, errs.NotFound
	}
	e := m.Get(d.space, key)
	if e == nil || !d.sees(m, key) {
		return nil, errs.NotFound
	}
	return e, nil
}

func (d *spaceDir) Walk(name string) (Node, error) {
	e, err := d.named(name)
	if err != nil {
		return nil, err
	}
	return newKeyNode(d, e, name), nil
}

// AppendFile finds the key and its value in one row of the store, so that a key
// which is replaced meanwhile is always there.
func (d *spaceDir) AppendFile(b []byte, name string, max int) ([]byte, error) {
	e, err := d.named(name)
	if err != nil {
		return b, err
	}
	return d.appendEntry(b, e, max)
}

// appendEntry appends the value of e as this View sees it. errs.TooBig: it is over
// max bytes.
func (d *spaceDir) appendEntry(b []byte, e *vm.Entry, max int) ([]byte, error) {
	if d.dir.v.held(e.ID) {
		return b, nil
	}
	return appendWhole(b, e.Value, max)
}

// List uses the keys' IDs as cookies, which are in the order of creation: a key that is
// there all the time is listed exactly once, whatever keys come and go.
func (d *spaceDir) List(after uint64, fn func(uint64, *Stat) bool) error {
	m, err := d.dir.vm()
	if err != nil {
		return err
	}
	v := d.dir.v
	d.entries()(m, after, func(id uint64, st *Stat) bool {
		if v.Empties(id) {
			st.Length = 0
		}
		return fn(id, st)
	})
	return nil
}

func (d *spaceDir) inVM() (*vmDir, uint64) { return d.dir, d.slot() }

func (d *spaceDir) atLeast(m *vm.VM) int { return m.CountOf(d.space) }

func (d *spaceDir) entries() func(m *vm.VM, after uint64, fn func(uint64, *Stat) bool) {
	space, guest := d.space, d.dir.v.guest()
	return func(m *vm.VM, after uint64, fn func(uint64, *Stat) bool) {
		var st Stat
		for e := range m.EntriesAfter(space, after) {
			if guest && !m.GuestSees(space, e.Name) {
				continue
			}
			statKey(&st, e, vm.FileName(e.Name), false)
			if !fn(e.ID, &st) {
				break
			}
		}
	}
}

// newMode is the mode of a key without a chmod. modeSet marks a mode that was set by a
// chmod, also one to newMode.
const (
	newMode = 0o600
	modeSet = 0o1000
)

// statKey fills st for a key; held: this View sees it as empty.
func statKey(st *Stat, e *vm.Entry, name string, held bool) {
	*st = Stat{
		QID: fileQID(e.ID, e.Rev), Mode: e.Mode & 0o777, Length: uint64(len(e.Value)),
		Mtime: e.Mtime, Name: name, Muid: e.Muid, OwnMode: e.Mode != newMode,
	}
	if held {
		st.Length = 0
	}
}

// writable is the key that a file name is for, if this View may write it now. The
// committer checks again, since the reserved namespaces may change.
func (d *spaceDir) writable(name string) (key string, err error) {
	m, err := d.dir.vm()
	if err != nil {
		return "", err
	}
	if key, err = vm.KeyName(name); err != nil {
		return "", err
	}
	if err := d.dir.v.tree.store.Writable(); err != nil {
		return "", err
	}
	if d.dir.v.guest() {
		err = m.GuestMayWrite(d.space, key)
	}
	return key, err
}

// intent begins an intent on this space.
func (d *spaceDir) intent(kind store.OpKind, by Author) *store.Intent {
	return &store.Intent{Kind: kind, Cell: d.dir.cell, Space: d.space, By: by.By, As: by.As}
}

// submit sends it, as the View's.
func (d *spaceDir) submit(in *store.Intent, done func(store.Result)) {
	d.dir.v.submit(in, done)
}

// ending makes a function of an intent's result of one of its error.
func ending(done func(error)) func(store.Result) {
	return func(r store.Result) { done(r.Err) }
}

// Create commits an empty value at once. A key that is there stays as it is, or is
// errs.Exists with Excl.
func (d *spaceDir) Create(name string, f Flags, by Author, done func(Node, error)) {
	key, err := d.writable(name)
	if err != nil {
		done(nil, err)
		return
	}
	in := d.intent(store.Create, by)
	in.Name, in.Exclusive = key, f&Excl != 0
	d.submit(in, func(r store.Result) {
		if r.Err != nil {
			done(nil, r.Err)
			return
		}
		done(newKeyNode(d, r.Entry, name), nil)
	})
}

// Put replaces the value of the key that has the name at commit time, or creates it.
func (d *spaceDir) Put(name string, data []byte, by Author, done func(error)) {
	key, err := d.writable(name)
	if err != nil {
		done(err)
		return
	}
	in := d.intent(store.Put, by)
	in.Name, in.Data = key, string(data)
	d.submit(in, ending(done))
}

// Unlink removes the key that has the name when it is committed.
func (d *spaceDir) Unlink(name string, by Author, done func(error)) {
	key, err := d.writable(name)
	if err != nil {
		done(err)
		return
	}
	in := d.intent(store.Remove, by)
	in.Name = key
	d.submit(in, ending(done))
}

// Rename renames within the folder. An intent is about one space of one VM; a move to
// another would need two commits, so it is errs.CrossDevice, after which mv copies.
func (d *spaceDir) Rename(name string, to Node, newName string, by Author, done func(error)) {
	if err := d.sameFolder(to); err != nil {
		done(err)
		return
	}
	key, err := d.writable(name)
	if err != nil {
		done(err)
		return
	}
	newKey, err := d.writable(newName)
	if err != nil {
		done(err)
		return
	}
	in := d.intent(store.Set, by)
	in.Name, in.NewName = key, newKey
	d.submit(in, ending(done))
}

// sameFolder refuses a rename to another folder than this.
func (d *spaceDir) sameFolder(to Node) error {
	other, ok := to.(*spaceDir)
	switch {
	case !ok:
		return Missing(to, OpRename)
	case other.dir.cell != d.dir.cell || other.space != d.space:
		return errs.New(errs.CrossDevice, "a key is renamed within its folder only")
	}
	return nil
}
