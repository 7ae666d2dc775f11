package store

import (
	"cmp"
	"time"

	"meta9/fs/errs"
	"meta9/fs/ring"
	"meta9/fs/vm"
)

// The bounds of a batch, beside those of a VM's share.
const (
	maxBatchIntents = 1024
	maxBatchBytes   = 16 << 20

	// intentCost is what any intent costs beside its bytes: a record's head, its
	// share of the engine's pages.
	intentCost = 256
	// copyCost is how many bytes can be copied at the price of storing one.
	copyCost = 16
	// entryCost is what it costs that an intent goes through all keys of a VM, for
	// each of them.
	entryCost = 32
)

// batch is one engine transaction under way. It changes nothing that anybody
// sees before it is published: intents work on Edits, and on a clone of the index. The
// committer has one, which it uses again.
type batch struct {
	store       *Store
	first       uint64 // the first revision that it may hand out
	stamp       vm.Stamp
	names       *index  // what becomes of the store's; nil: no name has changed
	works       []*work // in the order in which their VMs were first touched
	free        []*work // for other batches
	intents     []*Intent
	results     []Result
	owners      []*work // the VM that an intent is about; nil: none that is there
	events      []told
	told        []Event // for the journal
	groups      []Group
	ops         []Op
	arena       []byte // what the ops' keys and values are made in
	keys        []key
	committed   []Committed
	woken       []*ring.Waiter
	crowds      []crowd        // of single VMs
	rootWaiters []*ring.Waiter // of all VMs
	cost        int64
	disk        time.Duration // that the engine took
	looks       bool          // at what the engine writes to
	bytes       int64         // the store's, with all that was done so far
	limits      limits
}

// limits are those that an intent is computed under.
type limits struct {
	vm.Limits
	total int64 // names and values of all VMs together; 0: no limit
}

// told is an event, and the VM that it is about.
type told struct {
	work *work
	cell *Cell
	Event
}

func newBatch(s *Store) *batch {
	b := &batch{store: s}
	b.stamp = vm.Stamp{NextID: s.numbers.id, NextRev: s.numbers.rev}
	return b
}

// maxKept bounds the memory that a batch keeps for the next one.
const maxKept = 64 << 10

// reset makes the batch empty again.
func (b *batch) reset() {
	for _, w := range b.works {
		if len(b.free) < maxBatchIntents {
			*w = work{}
			b.free = append(b.free, w)
		}
	}
	b.works, b.intents, b.results, b.owners = emptied(b.works), emptied(b.intents), emptied(b.results), emptied(b.owners)
	b.told = emptied(b.told)
	b.events, b.groups, b.ops, b.keys = emptied(b.events), emptied(b.groups), emptied(b.ops), emptied(b.keys)
	b.committed, b.woken, b.crowds, b.rootWaiters = emptied(b.committed), emptied(b.woken), emptied(b.crowds), emptied(b.rootWaiters)
	if b.arena = b.arena[:0]; cap(b.arena) > maxKept {
		b.arena = nil
	}
	b.cost, b.disk, b.looks = 0, 0, false
}

// emptied is the slice without its elements, for new ones.
func emptied[T any](s []T) []T {
	clear(s)
	return s[:0]
}

// fill computes intents, of each VM in turn as many as its share allows, until the batch
// is full. Guests whose VMs must rest are left out, unless hurry says otherwise; rest is
// how long the first of them still rests, if there is one. saved says that a line has
// saved its share for a later batch, which must not wait for VMs that rest.
func (b *batch) fill(t *turns, hurry bool) (rest time.Duration, saved bool) {
	now := b.store.cfg.Now()
	t.now = now.Sub(b.store.opened)
	b.stamp.Now, b.first, b.bytes = now.UnixNano(), b.store.numbers.next.rev, b.store.Bytes()
	s := t.share(b.store.cfg.BatchBytes)
	t.each(func(l *line) bool {
		if len(b.intents) >= maxBatchIntents || b.cost >= maxBatchBytes {
			return false
		}
		if long := t.pause(l); long > 0 && !hurry {
			if rest == 0 || long < rest {
				rest = long
			}
			return true
		}
		b.take(l, s)
		saved = saved || l.saved > 0
		return true
	})
	return rest, saved
}

// charge counts for each guest its part of a batch that took so long, and of what was
// written of its VM. Of the disk's time it counts at most what a healthy disk takes.
func (b *batch) charge(took, now time.Duration) {
	took -= max(0, b.disk-diskTime-time.Duration(b.cost)*diskByte)
	for _, w := range b.works {
		if w.cost == 0 {
			continue
		}
		part := time.Duration(float64(took) * float64(w.cost) / float64(batchCost+b.cost))
		w.cell.cpu.Charge(min(part, maxCharge), commitPart)
		if rate := b.store.rate; rate > 0 && w.group >= 0 && w.failed == nil {
			bytes := float64(b.groups[w.group].bytes()) * float64(w.cost) / float64(w.cost+w.hostCost)
			w.cell.wrote(int64(bytes), rate, now)
		}
	}
}

// bytes is what a Shared engine has to keep for the group, roughly: it notes the group's number
// as well.
func (g *Group) bytes() int {
	n := opCost + g.Rewrote
	for _, op := range g.Ops {
		n += opCost + len(op.Key) + len(op.Value) + len(op.Tail)
	}
	return n
}

// take computes the intents of one line that fit its share.
func (b *batch) take(l *line, s share) {
	room := s.bytes + l.saved
	l.saved = 0
	for n := 0; l.first != nil && n < s.intents && len(b.intents) < maxBatchIntents; n++ {
		in := l.first
		w := b.work(in.Cell)
		cost := b.costOf(w, in)
		if cost > room && (n > 0 || s.saves) {
			if s.saves {
				l.saved = room
			}
			break
		}
		room -= cost
		b.cost += cost
		switch {
		case w == nil:
		case in.Guest:
			w.cost += cost
		default:
			w.hostCost += cost
		}
		l.pop()
		if c := in.Cell; in.Kind == dropHold && c != nil && l == &c.line && c.store.rate > 0 {
			c.drops -= int(in.Hold.count()) // lineOf has counted them
		}
		b.stamp.By, b.limits = in.By, b.store.limitsOf(in)
		r := b.run(w, in)
		if in.Kind == CreateVM && r.Cell != nil {
			w = r.Cell.work
		}
		b.intents, b.results, b.owners = append(b.intents, in), append(b.results, r), append(b.owners, w)
	}
}

// costOf is what the intent costs: its own bytes, those of the value that is there
// (it is stored anew, unless an intent of this batch has paid for that, and
// copied), or all keys that it goes through.
func (b *batch) costOf(w *work, in *Intent) int64 {
	cost := intentCost + int64(len(in.Data))
	if w == nil || w.deleted || in.Space >= vm.NumSpaces {
		return cost
	}
	switch in.Kind {
	case dropHold:
		return entryCost * in.Hold.count()
	case DeleteVM, UpdateVM, ReplaceVM:
		return cost + entryCost*int64(w.edit.Now().Count())
	case Txn:
		return cost + b.costOfParts(w, in.Txn)
	case Splice, Append, Set:
	default:
		return cost
	}
	e := w.lookUp(in)
	switch {
	case e == nil:
		return cost
	case e.Rev >= b.first:
		return cost + int64(len(e.Value)/copyCost)
	}
	return cost + int64(len(e.Value))
}

// costOfParts is what the parts of a transaction cost.
func (b *batch) costOfParts(w *work, t *Transaction) (cost int64) {
	if !t.valid() {
		return 0
	}
	for i := range t.Do {
		cost += b.costOf(w, &t.Do[i])
	}
	return cost
}

// work is the batch's work on a VM; nil for no VM, or for one that was deleted
// before.
func (b *batch) work(c *Cell) *work {
	if c == nil {
		return nil
	}
	if c.work == nil {
		v := cmp.Or(c.VM(), c.given)
		if v == nil {
			return nil
		}
		b.join(c, v, v)
	}
	return c.work
}

// join begins the work on a VM that was before (nil: it was not there) and is v.
func (b *batch) join(c *Cell, before, v *vm.VM) *work {
	var w *work
	if n := len(b.free); n > 0 {
		w, b.free = b.free[n-1], b.free[:n-1]
	} else {
		w = new(work)
	}
	*w = work{cell: c, before: before, edit: v.Edit(), group: -1}
	c.work = w
	b.works = append(b.works, w)
	return w
}

// limitsOf returns the limits for an intent: those for guests, or, if it is the host's,
// with the reserve.
func (s *Store) limitsOf(in *Intent) limits {
	l := limits{s.cfg.Limits, s.cfg.TotalBytes}
	if in.Guest {
		return l
	}
	if l.Keys > 0 {
		l.Keys += s.cfg.Reserve.Keys
	}
	if l.Bytes > 0 {
		l.Bytes += s.cfg.Reserve.Bytes
	}
	if l.total > 0 {
		l.total += s.cfg.Reserve.Total
	}
	return l
}

// room says whether the daemon, which has so many bytes of names and values, has room
// for more. It may always shrink.
func (l *limits) room(have, more int64) error {
	if l.total > 0 && more > 0 && have+more > l.total {
		return errs.New(errs.NoSpace, "%d bytes is the limit of all VMs' metadata together", l.total)
	}
	return nil
}

// recordChanges adds an event for each change of the intent, and takes the Holds of the
// keys that it set.
func (b *batch) recordChanges(w *work, in *Intent) {
	fresh := w.edit.Changes()[w.seen:]
	w.seen += len(fresh)
	for _, c := range fresh {
		w.by = in.By
		of := w.cell
		if c.Type == vm.Arrived || c.Type == vm.Left {
			of = nil // the VM's own ring moves as it is
		}
		b.events = append(b.events, told{w, of, Event{
			Rev: c.Rev, Date: b.stamp.Now, Type: eventType(c.Type),
			VM: w.cell.uuid, Key: c.Key, Space: c.Space, By: in.By, As: in.As,
		}})
		if c.Type != vm.KeySet || !w.cell.holding() {
			continue
		}
		if e := w.edit.Get(c.Space, c.Key); e != nil {
			w.taken = w.cell.takeHolds(holdKey{c.Space, e.ID}, in.seq, w.taken)
		}
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
	case vm.Arrived:
		return VMArrived
	case vm.Left:
		return VMLeft
	case vm.KeySet:
		return KeySet
	}
	return KeyRemoved
}

// seal makes the engine's groups of the batch. A batch that changes nothing durable has
// no group, and takes no number.
func (b *batch) seal() {
	if len(b.events) > 0 {
		if op, ok := b.store.numbers.reserve(); ok {
			b.ops = append(b.ops, op)
			b.group("", 0)
		}
	}
	for _, w := range b.works {
		if len(w.edit.Changes()) == 0 {
			w.after = w.before
			continue
		}
		if !w.deleted || w.left {
			w.after = w.edit.VM()
		}
		switch {
		case w.arrived: // the engine has it
		case w.left && w.gift == nil:
			w.failed = errLeft(w.cell.uuid) // the error of the intents that came before
		default:
			from := len(b.ops)
			b.pack(w)
			b.appendOps(w, b.store.skipped[w.cell.uuid])
			w.group = len(b.groups)
			b.group(w.cell.uuid, from)
			g := &b.groups[w.group]
			g.New, g.Gone, g.Gift = w.before == nil, w.deleted && !w.left, w.gift
			if b.store.shared != nil {
				g.Frees, g.Takes = aliases(w.before, w.after)
			}
		}
		if w.left {
			w.after = nil
		}
	}
	if len(b.groups) == 0 {
		return
	}
	number := b.store.numbers.group()
	for i := range b.groups {
		b.groups[i].Number = number
	}
}

// group adds a group of the ops from index from on.
func (b *batch) group(vm string, from int) {
	b.groups = append(b.groups, Group{VM: vm, Ops: b.ops[from:len(b.ops):len(b.ops)]})
}

// claim gives c the names of its VM as it will be, in place of those of the VM as it was
// (index.claim).
func (b *batch) claim(c *Cell, was, will *vm.VM) error {
	if sameNames(was, will) {
		return nil
	}
	if b.names == nil {
		b.names = b.store.index.Load().clone()
	}
	return b.names.claim(c, was, will)
}
