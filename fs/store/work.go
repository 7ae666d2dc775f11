package store

import (
	"cmp"
	"slices"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// work is what a batch makes of one VM. It never both creates and deletes one:
// nobody has a new VM's Cell before the batch is published.
type work struct {
	cell    *Cell
	before  *vm.VM // durable; nil: created in this batch
	base    *vm.VM // what edit began with: its properties are those of the VM as it is now
	edit    *vm.Edit
	seen    int // how many of edit's changes are in changes
	changes []vm.Change
	by      string // who made the last of them
	deleted bool
	after   *vm.VM // after seal; nil: deleted
	taken   []*Hold
	cost    int64
	full    bool // the rest of the VM's intents wait for the next batch
}

// begin makes the VM as it is now the base of further edits, so that they can be
// undone with reset. All changes must have been harvested.
func (w *work) begin() *vm.VM {
	v := w.edit.VM()
	w.reset(v)
	return v
}

// reset undoes what was done since begin, or takes v as what it led to.
func (w *work) reset(v *vm.VM) {
	w.base, w.edit, w.seen = v, v.Edit(), 0
}

// find is the key that an intent is about.
func (w *work) find(in *Intent) (*vm.Entry, error) {
	if in.ID != 0 {
		e := w.edit.GetID(in.Space, in.ID)
		if e == nil {
			return nil, errs.Gone
		}
		return e, w.permit(in, e.Name)
	}
	if err := w.permit(in, in.Name); err != nil {
		return nil, err
	}
	e := w.edit.Get(in.Space, in.Name)
	if e == nil {
		return nil, errs.NotFound
	}
	return e, nil
}

// permit says whether who asks may write the name.
func (w *work) permit(in *Intent, name string) error {
	if !in.Guest {
		return nil
	}
	return w.base.GuestMayWrite(in.Space, name)
}

// held says whether a truncation of the key comes before the intent.
func (w *work) held(in *Intent, e *vm.Entry) bool {
	return w.cell.held(holdKey{in.Space, e.ID}, in.seq)
}

// value is what the intent finds in the key.
func (w *work) value(in *Intent, e *vm.Entry) string {
	if w.held(in, e) {
		return ""
	}
	return e.Value
}

// key names an entry in the engine.
type key struct {
	space vm.Space
	name  string
}

// keys are the entries that the changes touched, each once.
func (w *work) keys() []key {
	var keys []key
	for _, c := range w.changes {
		if c.Type == vm.KeySet || c.Type == vm.KeyRemoved {
			keys = append(keys, key{c.Space, c.Key})
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.name, b.name))
	})
	return slices.Compact(keys)
}

// appendOps appends what makes the engine hold after in place of before.
func (w *work) appendOps(ops []Op, skipped [][]byte) []Op {
	if w.before == nil || w.deleted {
		for _, k := range skipped {
			ops = append(ops, Op{Key: k})
		}
	}
	switch {
	case w.deleted:
		return appendDelete(ops, w.before)
	case w.before == nil:
		return appendAll(ops, w.after)
	}
	return w.appendChanged(ops)
}

func appendDelete(ops []Op, v *vm.VM) []Op {
	ops = append(ops, Op{Key: vmKey(v.UUID, tagVM)})
	for sp := range vm.NumSpaces {
		for _, e := range v.Entries(sp) {
			ops = append(ops, Op{Key: entryKey(v.UUID, sp, e.Name)})
		}
	}
	return ops
}

func appendAll(ops []Op, v *vm.VM) []Op {
	ops = append(ops, vmOp(v))
	for sp := range vm.NumSpaces {
		for _, e := range v.Entries(sp) {
			ops = append(ops, entryOp(v.UUID, sp, e, v.Mtime))
		}
	}
	return ops
}

// appendChanged writes the keys that were touched, and the VM's own record if it
// says something new, which is also so when no entry carries the VM's revision.
func (w *work) appendChanged(ops []Op) []Op {
	v := w.after
	var newest uint64
	for _, k := range w.keys() {
		e := v.Get(k.space, k.name)
		if e == nil {
			ops = append(ops, Op{Key: entryKey(v.UUID, k.space, k.name)})
			continue
		}
		ops = append(ops, entryOp(v.UUID, k.space, e, v.Mtime))
		newest = max(newest, e.Rev)
	}
	if newest != v.Rev || w.propsChanged() {
		ops = append(ops, vmOp(v))
	}
	return ops
}

// propsChanged says whether the properties were changed: by an update, or because
// the first key of a space put the space's member among them.
func (w *work) propsChanged() bool {
	return len(w.before.Props) != len(w.after.Props) ||
		slices.ContainsFunc(w.changes, func(c vm.Change) bool { return c.Type == vm.Changed })
}

// endHolds ends the Holds that the batch applied, and those of the keys that it
// removed. The cell has the new row.
func (w *work) endHolds() {
	endHolds(w.taken)
	if w.deleted {
		w.cell.endAll()
		return
	}
	for _, c := range w.changes {
		if w.before == nil || c.Type != vm.KeySet && c.Type != vm.KeyRemoved {
			continue
		}
		if e := w.before.Get(c.Space, c.Key); e != nil && !hasID(w.after, holdKey{c.Space, e.ID}) {
			w.cell.endGone(holdKey{c.Space, e.ID})
		}
	}
}
