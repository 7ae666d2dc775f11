package vm

import (
	"meta9/fs/errs"
	"meta9/fs/vm/ordjson"
)

// Edit makes a new VM of an old one. It belongs to one goroutine. What it has
// not changed yet is still the old VM's.
//
// An old entry that a method takes is that of the VM as it is now (Get, GetID).
type Edit struct {
	vm      *VM
	own     bool            // vm is a copy of this Edit's
	ownMeta [NumSpaces]bool // so is what holds the pieces of the space
	changes []Change
}

// Edit begins one. The VM itself stays as it is.
func (v *VM) Edit() *Edit { return &Edit{vm: v} }

// VM is the VM as it is now, for ever: a later change copies again. It is the VM
// that Edit was called on when nothing was changed.
func (e *Edit) VM() *VM {
	e.own, e.ownMeta = false, [NumSpaces]bool{}
	return e.vm
}

// Now is the VM as it is now, until the next change.
func (e *Edit) Now() *VM { return e.vm }

// Save gives the Edit as it is now: assigning it to the Edit undoes what was done
// since. What follows is done on copies.
func (e *Edit) Save() Edit {
	saved := *e
	e.VM()
	return saved
}

// Changes is what was changed since Edit, in order, each with a revision of its
// own; the last is that of the VM.
func (e *Edit) Changes() []Change { return e.changes }

// Note adds changes that were made otherwise.
func (e *Edit) Note(c ...Change) { e.changes = append(e.changes, c...) }

// Get is the entry of that name as it is now, or nil.
func (e *Edit) Get(s Space, name string) *Entry { return e.vm.Get(s, name) }

// GetID is the entry with that ID as it is now, or nil when it was removed.
func (e *Edit) GetID(s Space, id uint64) *Entry { return e.vm.GetID(s, id) }

// Put gives the key old a value, or with nil makes the key of that name, which is
// not there: it gets an ID and mode 0600. The errors are those of NewKey for a
// new name, TooLarge for a value past its limit, NoSpace for a VM past its; then
// nothing is changed.
func (e *Edit) Put(s Space, old *Entry, name, value string, st Stamp, lim Limits) (*Entry, error) {
	return e.set(old, Setting{s, name, value, Text}, st, lim)
}

// set is Put for a value of any kind, as an update has them.
func (e *Edit) set(old *Entry, w Setting, st Stamp, lim Limits) (*Entry, error) {
	if err := e.room(old, w, lim); err != nil {
		return nil, err
	}
	next := &Entry{Mtime: st.Now, Kind: w.Kind, Value: w.Value, Muid: st.By}
	if old != nil {
		next.ID, next.Mode, next.Name = old.ID, old.Mode, old.Name
	} else {
		next.ID, next.Mode, next.Name = st.NextID(1), 0o600, w.Name
	}
	e.replace(w.Space, old, next, st)
	return next, nil
}

// room is nil when the limits and the rules of names let w take the place of
// old, which may be nil. A VM that is past a limit, lowered since, may shrink.
func (e *Edit) room(old *Entry, w Setting, lim Limits) error {
	if err := lim.checkValue(w.Name, len(w.Value)); err != nil {
		return err
	}
	grow := int64(len(w.Value))
	if old != nil {
		grow -= int64(len(old.Value))
		return lim.checkBytes(e.vm.bytes, grow)
	}
	if err := NewKey(w.Name); err != nil {
		return err
	}
	if err := lim.checkKeys(e.vm.Count(), 1); err != nil {
		return err
	}
	return lim.checkBytes(e.vm.bytes, grow+int64(len(w.Name)))
}

// replace puts next into the space where old (or nil) was under the same name,
// and stamps it.
func (e *Edit) replace(s Space, old, next *Entry, st Stamp) {
	e.ownSpace(s)
	next.Rev = e.change(Change{Type: KeySet, Space: s, Key: next.Name}, st)
	e.vm.spaces[s].put(next)
	e.vm.bytes += next.bytes()
	if old != nil {
		e.vm.bytes -= old.bytes()
	}
}

// Remove takes a key away.
func (e *Edit) Remove(s Space, old *Entry, st Stamp) {
	e.drop(s, old)
	e.change(Change{Type: KeyRemoved, Space: s, Key: old.Name}, st)
}

// drop takes an entry out of the space without a Change.
func (e *Edit) drop(s Space, old *Entry) {
	e.ownSpace(s)
	e.vm.spaces[s].remove(old)
	e.vm.bytes -= old.bytes()
}

// Rename gives the key another name. Its ID, value and times stay; a key that
// has that name already is replaced. The errors are those of Put; then nothing is
// changed, nor by a name that is the same.
func (e *Edit) Rename(s Space, old *Entry, to string, st Stamp, lim Limits) (*Entry, error) {
	if old.Name == to {
		return old, nil
	}
	if err := NewKey(to); err != nil {
		return nil, err
	}
	grow := int64(len(to) - len(old.Name))
	over := e.Get(s, to)
	if over != nil {
		grow -= over.bytes()
	}
	if err := lim.checkBytes(e.vm.bytes, grow); err != nil {
		return nil, err
	}
	e.drop(s, old)
	if over != nil {
		e.drop(s, over)
	}
	e.change(Change{Type: KeyRemoved, Space: s, Key: old.Name}, st)
	next := *old
	next.Name = to
	e.replace(s, nil, &next, st)
	return &next, nil
}

// SetMeta sets the permission bits (07777), the time of the last change, or both; nil
// leaves one as it is. It gives the key as it is then.
func (e *Edit) SetMeta(s Space, old *Entry, mode *uint16, mtime *int64, st Stamp) *Entry {
	if mode == nil && mtime == nil {
		return old
	}
	next := *old
	if mode != nil {
		next.Mode = *mode & 0o7777
	}
	if mtime != nil {
		next.Mtime = *mtime
	}
	e.replace(s, old, &next, st)
	return &next
}

// change stamps the VM, which is this Edit's own by now, with a new revision and
// notes what it is for.
func (e *Edit) change(c Change, st Stamp) uint64 {
	c.Rev = st.NextRev()
	e.vm.Rev, e.vm.Mtime = c.Rev, st.Now
	e.changes = append(e.changes, c)
	return c.Rev
}

// ownVM makes the VM itself this Edit's own; its properties and spaces are still
// the old one's.
func (e *Edit) ownVM() {
	if !e.own {
		vm := *e.vm
		e.vm, e.own = &vm, true
	}
}

// ownSpace makes the space this Edit's own, and sees to it that the
// properties have a place for the space.
func (e *Edit) ownSpace(s Space) {
	if e.ownMeta[s] {
		return
	}
	e.ownVM()
	e.vm.spaces[s] = e.vm.spaces[s].clone()
	e.ownMeta[s] = true
	e.vm.Props = placeholder(e.vm.Props, s)
}

// placeholder is the properties with a null member for the space, at its end unless
// there is one.
func placeholder(o ordjson.Members, s Space) ordjson.Members {
	if o.Index(s.Member()) >= 0 {
		return o
	}
	return o.With(s.Member(), ordjson.Value{})
}

// The three limits, one by one. A change that asks for no more than there was
// always passes, so that a VM over a limit that was lowered can be emptied.

// Grown is nil when the limits let the VM become what it is now, from what it was
// before; else NoSpace.
func (e *Edit) Grown(before *VM, lim Limits) error {
	if err := lim.checkKeys(before.Count(), e.vm.Count()-before.Count()); err != nil {
		return err
	}
	return lim.checkBytes(before.bytes, e.vm.bytes-before.bytes)
}

func (l Limits) checkValue(name string, size int) error {
	if l.Value > 0 && size > l.Value {
		return errs.New(errs.TooLarge, "%d bytes is the limit of a value, %q has %d", l.Value, Clip(name), size)
	}
	return nil
}

func (l Limits) checkKeys(have, more int) error {
	if l.Keys > 0 && more > 0 && have+more > l.Keys {
		return errs.New(errs.NoSpace, "%d keys is this VM's limit", l.Keys)
	}
	return nil
}

func (l Limits) checkBytes(have, more int64) error {
	if l.Bytes > 0 && more > 0 && have+more > l.Bytes {
		return errs.New(errs.NoSpace, "%d bytes of metadata is this VM's limit", l.Bytes)
	}
	return nil
}
