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
	cell     *Cell
	before   *vm.VM // durable; nil: created in this batch
	edit     *vm.Edit
	seen     int    // how many of edit's changes are events
	by       string // who made the last of them
	cost     int64  // of its guest's intents
	hostCost int64  // cost of the others
	deleted  bool
	arrived  bool   // the engine has it already
	left     bool   // its Cell ends, and the VM does not
	gift     *Gift  // of left: what the engine is told; nil: it knows
	after    *vm.VM // after seal; nil: deleted
	group    int    // its place in the batch's groups; -1: nothing to make durable
	failed   error  // of its group alone
	taken    []*Hold

	asked *Intent // lookUp's last
	found *vm.Entry
}

// stands says whether what the batch makes of the VM is to be shown, once the engine
// has been asked. A VM that was found to be another host's goes in any case.
func (w *work) stands() bool { return w.failed == nil || w.elsewhere() }

func (w *work) elsewhere() bool { return w.left && w.gift == nil }

// lookUp is the key that an intent is about, or nil.
func (w *work) lookUp(in *Intent) *vm.Entry {
	switch {
	case w.asked == in:
		return w.found
	case in.ID != 0:
		w.found = w.edit.GetID(in.Space, in.ID)
	default:
		w.found = w.edit.Get(in.Space, in.Name)
	}
	w.asked = in
	return w.found
}

// find is the key that an intent is about, if whoever asks may write it.
func (w *work) find(in *Intent) (*vm.Entry, error) {
	e := w.lookUp(in)
	switch {
	case e != nil:
		return e, w.permit(in, e.Name)
	case in.ID != 0:
		return nil, errs.Gone
	}
	if err := w.permit(in, in.Name); err != nil {
		return nil, err
	}
	return nil, errs.NotFound
}

// permit says whether who asks may write the name.
func (w *work) permit(in *Intent, name string) error {
	if !in.Guest {
		return nil
	}
	return w.edit.Now().GuestMayWrite(in.Space, name)
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

// touched are the entries that the batch changed of the VM, each once.
func (b *batch) touched(w *work) []key {
	b.keys = b.keys[:0]
	for _, c := range w.edit.Changes() {
		if c.Type == vm.KeySet || c.Type == vm.KeyRemoved {
			b.keys = append(b.keys, key{c.Space, c.Key})
		}
	}
	if len(b.keys) > 1 {
		slices.SortFunc(b.keys, func(x, y key) int {
			return cmp.Or(cmp.Compare(x.space, y.space), cmp.Compare(x.name, y.name))
		})
		b.keys = slices.Compact(b.keys)
	}
	return b.keys
}

// appendOps appends what makes the engine hold after in place of before.
func (b *batch) appendOps(w *work, skipped [][]byte) {
	if (w.before == nil || w.deleted) && !w.left {
		for _, k := range skipped {
			b.ops = append(b.ops, Op{Key: k})
		}
	}
	switch {
	case w.left:
		b.appendChanged(w)
	case w.deleted:
		b.appendDelete(w.before)
	case w.before == nil:
		b.appendAll(w.after)
	default:
		b.appendChanged(w)
	}
}

func (b *batch) appendDelete(v *vm.VM) {
	b.drop(v.UUID, tagVM, "")
	for sp := range vm.NumSpaces {
		for e := range v.Entries(sp) {
			b.drop(v.UUID, tagSpace+byte(sp), e.Name)
		}
	}
}

func (b *batch) appendAll(v *vm.VM) {
	b.putVM(v)
	for sp := range vm.NumSpaces {
		for e := range v.Entries(sp) {
			b.putEntry(v.UUID, v.Mtime, sp, e)
		}
	}
}

// appendChanged writes the keys that were touched, and the VM's own record if it
// says something new, which is also so when no entry carries the VM's revision.
func (b *batch) appendChanged(w *work) {
	v := w.after
	var newest uint64
	for _, k := range b.touched(w) {
		e := v.Get(k.space, k.name)
		if e == nil {
			b.drop(v.UUID, tagSpace+byte(k.space), k.name)
			continue
		}
		b.putEntry(v.UUID, v.Mtime, k.space, e)
		newest = max(newest, e.Rev)
	}
	if newest != v.Rev || w.propsChanged() {
		b.putVM(v)
	}
}

// propsChanged says whether the properties were changed: by an update, or because
// the first key of a space put the space's member among them.
func (w *work) propsChanged() bool {
	return len(w.before.Props) != len(w.after.Props) ||
		slices.ContainsFunc(w.edit.Changes(), func(c vm.Change) bool { return c.Type == vm.Changed })
}

// endHolds ends the Holds that the batch applied, and those of the keys that it
// removed. The cell has the new row.
func (w *work) endHolds() {
	endHolds(w.taken)
	if w.deleted {
		w.cell.endAll()
		return
	}
	if w.before == nil || !w.cell.holding() {
		return
	}
	for _, c := range w.edit.Changes() {
		if c.Type != vm.KeySet && c.Type != vm.KeyRemoved {
			continue
		}
		if e := w.before.Get(c.Space, c.Key); e != nil && !hasID(w.after, holdKey{c.Space, e.ID}) {
			w.cell.endGone(holdKey{c.Space, e.ID})
		}
	}
}
