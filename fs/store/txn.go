package store

import (
	"fmt"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Transaction is what an intent of the kind Txn asks for: where each condition holds,
// each part is done, and all of it is one commit. The conditions are about the keys as
// they are before the first part.
type Transaction struct {
	If []Condition
	// Put, Append (which makes the key if there is none), Remove, or Set of a NewName,
	// each by Name; no two about one name.
	Do []Intent

	// What Done tells beside the Result. If that was done: the VM's revision, and the key
	// of each of Do as it is now, nil after Remove. If it was errs.Canceled: the condition that did not hold,
	// and its key, nil where whoever asks sees none.
	Rev     uint64
	Entries []*vm.Entry
	Failed  *Condition
	Found   *vm.Entry
}

// Condition is what must be true of one key. What is not given may be anything; with
// Absent alone there is no such key.
type Condition struct {
	Space   vm.Space
	Name    string
	Absent  bool
	Version *uint32 // vm.Version of the key's revision
	Rev     *uint64
	Value   *string
}

// check is "" where the condition holds for the key e, which is nil where there is
// none; else it says what is so instead.
func (c *Condition) check(e *vm.Entry) (why string) {
	if e == nil {
		if c.Absent {
			return ""
		}
		return fmt.Sprintf("there is no key %q", vm.Clip(c.Name))
	}
	at := fmt.Sprintf("the key %q is at version %d, rev %d", vm.Clip(c.Name), vm.Version(e.Rev), e.Rev)
	switch {
	case c.Absent:
		return at + ", and was to be absent"
	case c.Version != nil && *c.Version != vm.Version(e.Rev):
		return fmt.Sprintf("%s, and not at version %d", at, *c.Version)
	case c.Rev != nil && *c.Rev != e.Rev:
		return fmt.Sprintf("%s, and not at rev %d", at, *c.Rev)
	case c.Value != nil && *c.Value != e.Value:
		return at + ", and its value is not the one that was given"
	}
	return ""
}

// transact is Txn. The limits are those of all parts together: one part may make the
// room that another takes, whatever their order is.
func (b *batch) transact(w *work, in *Intent) (Result, error) {
	t := in.Txn
	if !t.valid() {
		return Result{}, errs.New(errs.Invalid, "no transaction, or one with other parts than it may have")
	}
	for i := range t.If {
		c := &t.If[i]
		e := w.edit.Get(c.Space, c.Name)
		if in.Guest && !w.edit.Now().GuestSees(c.Space, c.Name) {
			e = nil
		}
		if why := c.check(e); why != "" {
			t.Failed, t.Found = c, e
			return Result{}, errs.New(errs.Canceled, "if[%d]: %s", i, why)
		}
	}
	saved, bytes, limits := w.edit.Save(), b.bytes, b.limits
	b.limits.Keys, b.limits.Bytes, b.limits.total = 0, 0, 0
	err := b.doParts(w, in)
	b.limits = limits
	if err == nil {
		err = w.edit.Grown(saved.Now(), limits.Limits)
	}
	if err == nil {
		err = limits.room(bytes, b.bytes-bytes)
	}
	if err != nil {
		*w.edit, b.bytes = saved, bytes
	}
	t.Rev = w.edit.Now().Rev
	return Result{}, err
}

// doParts does the parts one after the other, and stops at the first that is refused.
func (b *batch) doParts(w *work, in *Intent) error {
	t := in.Txn
	t.Entries = make([]*vm.Entry, len(t.Do))
	for i := range t.Do {
		part := &t.Do[i]
		part.Cell, part.Guest, part.By, part.seq = in.Cell, in.Guest, in.By, in.seq
		w.asked, w.found = nil, nil // a part before may have changed the key
		if part.Kind == Append && w.edit.Get(part.Space, part.Name) == nil {
			part.Kind = Put
		}
		r, err := b.apply(w, part)
		if err != nil {
			return refusedPart(i, part.Name, err)
		}
		t.Entries[i] = r.Entry
	}
	return nil
}

// refusedPart is the error of a part, with its place.
func refusedPart(i int, name string, err error) error {
	kind, detail := errs.KindOf(err), errs.Detail(err)
	if detail == "" {
		return errs.New(kind, "do[%d], key %q", i, vm.Clip(name))
	}
	return errs.New(kind, "do[%d], key %q: %s", i, vm.Clip(name), detail)
}

// valid tells whether the transaction is one.
func (t *Transaction) valid() bool {
	if t == nil {
		return false
	}
	for i := range t.If {
		if t.If[i].Space >= vm.NumSpaces {
			return false
		}
	}
	for i := range t.Do {
		switch p := &t.Do[i]; {
		case p.Space >= vm.NumSpaces || p.ID != 0:
			return false
		case p.Kind == Put, p.Kind == Append, p.Kind == Remove:
		case p.Kind == Set && p.NewName != "":
		default:
			return false
		}
	}
	return true
}
