package store

import (
	"github.com/hashicorp/go-memdb"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// The bounds of a batch, beside Config.BatchBytes of one VM.
const (
	maxBatchIntents = 1024
	maxBatchBytes   = 16 << 20

	// intentCost is what any intent costs beside its bytes: a record's head, its
	// share of the engine's pages.
	intentCost = 256
	// copyCost is how many bytes can be copied at the price of storing one.
	copyCost = 16
)

// batch is one engine transaction under way. It changes nothing that anybody
// sees before it is published: intents work on Edits, and on a transaction of the
// view that is not committed.
type batch struct {
	store   *Store
	now     int64
	first   uint64 // the first revision that it may hand out
	txn     *memdb.Txn
	works   []*work // in the order in which their VMs were first touched
	intents []*Intent
	results []Result
	events  []told
	ops     []Op
	cost    int64
	bytes   int64 // the store's, with all that was done so far
}

// told is an event and whose it is.
type told struct {
	cell *Cell
	Event
}

func (s *Store) newBatch() *batch {
	return &batch{
		store: s, now: s.cfg.Now().UnixNano(), first: s.numbers.next.rev,
		txn: s.view.Txn(true), bytes: s.Bytes(),
	}
}

// fill computes intents until the batch is full, and gives back those that have
// to wait: all of a VM's from the first that does not fit, so that they stay in
// order.
func (b *batch) fill(waiting []*Intent) []*Intent {
	rest := waiting[:0]
	for i, in := range waiting {
		if len(b.intents) == maxBatchIntents || b.cost >= maxBatchBytes {
			rest = append(rest, waiting[i:]...)
			break
		}
		if !b.admit(in) {
			rest = append(rest, in)
			continue
		}
		b.intents = append(b.intents, in)
		b.results = append(b.results, b.run(in))
	}
	clear(waiting[len(rest):])
	return rest
}

// admit says whether the intent fits into the VM's share of the batch. The first
// of a VM always does.
func (b *batch) admit(in *Intent) bool {
	cost := intentCost + int64(len(in.Data))
	if w := b.work(in.Cell); w != nil {
		if w.full {
			return false
		}
		cost += b.copied(w, in)
		if w.cost > 0 && w.cost+cost > b.store.cfg.BatchBytes {
			w.full = true
			return false
		}
		w.cost += cost
	}
	b.cost += cost
	return true
}

// copied is what the intent costs for the value that is there: it is stored anew,
// unless an intent of this batch has paid for that, and copied.
func (b *batch) copied(w *work, in *Intent) int64 {
	if in.Kind != Splice && in.Kind != Append && in.Kind != Set || in.Space >= vm.NumSpaces || w.deleted {
		return 0
	}
	e := w.edit.GetID(in.Space, in.ID)
	if in.ID == 0 {
		e = w.edit.Get(in.Space, in.Name)
	}
	switch {
	case e == nil:
		return 0
	case e.Rev >= b.first:
		return int64(len(e.Value) / copyCost)
	}
	return int64(len(e.Value))
}

// work is the batch's work on a VM; nil for no VM, or for one that was deleted
// before.
func (b *batch) work(c *Cell) *work {
	if c == nil {
		return nil
	}
	if c.work == nil {
		v := c.VM()
		if v == nil {
			return nil
		}
		b.join(&work{cell: c, before: v, base: v, edit: v.Edit()})
	}
	return c.work
}

func (b *batch) join(w *work) {
	w.cell.work = w
	b.works = append(b.works, w)
}

// stamp is what the intent's changes are stamped with.
func (b *batch) stamp(in *Intent) vm.Stamp {
	return vm.Stamp{Now: b.now, By: in.By, NextID: b.store.numbers.id, NextRev: b.store.numbers.rev}
}

// room says whether the daemon has room for so many more bytes of names and
// values. It may always shrink.
func (b *batch) room(more int64) error {
	limit := b.store.cfg.TotalBytes
	if limit > 0 && more > 0 && b.bytes+more > limit {
		return errs.New(errs.NoSpace, "%d bytes is the limit of all VMs' metadata together", limit)
	}
	return nil
}

// harvest makes events of what the intent changed, and takes the Holds of the
// keys that it set.
func (b *batch) harvest(w *work, in *Intent) {
	fresh := w.edit.Changes()[w.seen:]
	w.seen += len(fresh)
	for _, c := range fresh {
		b.change(w, in, c)
	}
}

func (b *batch) change(w *work, in *Intent, c vm.Change) {
	w.changes = append(w.changes, c)
	w.by = in.By
	b.events = append(b.events, told{w.cell, Event{
		Rev: c.Rev, Date: b.now, Type: eventType(c.Type),
		VM: w.cell.uuid, Key: c.Key, Space: c.Space, By: in.By,
	}})
	if c.Type != vm.KeySet {
		return
	}
	if e := w.edit.Get(c.Space, c.Key); e != nil {
		w.taken = w.cell.takeHolds(holdKey{c.Space, e.ID}, in.seq, w.taken)
	}
}

func eventType(t vm.ChangeType) EventType {
	switch t {
	case vm.Created:
		return VMCreated
	case vm.Changed:
		return VMChanged
	case vm.Deleted:
		return VMDeleted
	case vm.KeySet:
		return KeySet
	}
	return KeyRemoved
}

// seal makes the engine's transaction of the batch, and writes the rows of the
// view's.
func (b *batch) seal() error {
	for _, w := range b.works {
		if len(w.changes) == 0 {
			w.after = w.before
			continue
		}
		if !w.deleted {
			w.after = w.edit.VM()
		}
		b.ops = w.appendOps(b.ops, b.store.skipped[w.cell.uuid])
		if err := setRow(b.txn, w.cell, w.after); err != nil {
			return errs.New(errs.IO, "view: %v", err)
		}
	}
	if len(b.events) == 0 {
		return nil
	}
	if op, ok := b.store.numbers.reserve(); ok {
		b.ops = append(b.ops, op)
	}
	return nil
}
