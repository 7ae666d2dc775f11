package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Shared is an Engine to which several stores write, one on each host of a fleet. Each VM
// is owned by one host; only that host's store changes it and has it in memory. A VM moves
// when its owner gives it away (Yield) and another store takes it (Adopt).
//
// Scan gives the store's own records and those of the VMs that this host owns. Apply may
// refuse single groups, with an error that says Unchanged: errs.Moved if another host owns
// the VM by now; errs.Exists if the group would create a VM that exists, or takes an alias
// that a VM has, at any host. A VM with a damaged record is not served; the others are.
//
// Apply returns when the outcome of each group is known, however long that takes. Intents
// that wait longer than Config.Patience meanwhile are refused.
type Shared interface {
	Engine
	// Block returns the first of count consecutive ids that no other store of the fleet has
	// or will get; count is at least least. Only the goroutine of Apply may call it.
	Block(least uint64) (first, count uint64, err error)
	// Fetch gives the records of one VM, of one moment, in the order of their keys, as Scan
	// does. mark is at least as high as every revision of the VM that anybody was told. Only
	// the owner can fetch a VM; others get errs.Moved. Any goroutine may call it, while this
	// store has no Cell of the VM. Busy: Apply is just making the VM.
	Fetch(uuid string, fn func(key, value []byte) error) (mark uint64, err error)
	// Mark is at least as high as every revision that anybody was told of a VM that Scan has
	// given.
	Mark() uint64
	// Keep reserves the ids below limit, so that no store gets a block of them: VMs come
	// with ids of their own. false: some store may already have such a block.
	Keep(limit uint64) (bool, error)
	// Trouble returns the reason why the engine has had no answer lately, or nil. Any
	// goroutine may call it.
	Trouble() error
	// Interrupt ends all waiting, that of Apply too. A group may be durable then, or not;
	// the next Scan finds out. Any goroutine may call it.
	Interrupt()
}

// Interrupt lets Stop and Close return although the fleet's cluster does not answer.
// Intents in the queue are refused. The batch that is being committed may be durable or
// not; the next process finds out by its Number. Without a fleet Interrupt does nothing.
func (s *Store) Interrupt() {
	if s.shared != nil {
		s.queue.fail(errClosed)
		s.shared.Interrupt()
	}
}

// patienceTicks is how many times within its patience the committer checks which intents
// have waited too long.
const patienceTicks = 4

// await is Apply for a fleet's engine. Meanwhile it refuses intents that have waited
// longer than the store's patience; these were not begun. Apply runs on the committer's own
// goroutine: to wake another one, and this one then, is a part of what a write costs. The
// goroutine that refuses has the queue and the turns in the committer's place, and never
// while the committer is not in Apply.
func (s *Store) await(groups []Group) []error {
	var (
		mu     sync.Mutex // held by who has the committer's things
		over   bool
		newest [patienceTicks]uint64 // the newest intent at each of the last ticks, the oldest tick first
		tick   *time.Timer
		from   = s.cfg.Now()
		every  = max(s.cfg.Patience/patienceTicks, time.Millisecond)
	)
	mu.Lock()
	tick = time.AfterFunc(every, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		late := newest[0]
		copy(newest[:], newest[1:])
		newest[patienceTicks-1] = s.queue.seq.Load()
		s.turns.add(s.queue.take(true))
		s.turns.refuseUntil(late, s.impatient(from))
		tick.Reset(every)
	})
	mu.Unlock()
	failed := s.shared.Apply(groups)
	tick.Stop()
	mu.Lock()
	defer mu.Unlock()
	over = true
	return failed
}

// impatient is the error of an intent that has waited too long.
func (s *Store) impatient(from time.Time) error {
	why := "it does not answer"
	if err := s.shared.Trouble(); err != nil {
		why = errs.Detail(err)
	}
	return errs.New(errs.IO, "nothing was changed: the fleet's cluster has taken no change since %s (%s)", from.UTC().Format(time.RFC3339), why)
}

// Unchanged marks an error of Apply: nothing of the group was made durable, nor will be.
func Unchanged(err error) error { return &unchanged{err} }

type unchanged struct{ error }

func (u *unchanged) Unwrap() error { return u.error }

// Damaged marks the error of a VM that has a damaged record: trying again does not help.
func Damaged(err error) error { return &damaged{err} }

type damaged struct{ error }

func (d *damaged) Unwrap() error { return d.error }

// IsDamaged reports whether Damaged has marked the error.
func IsDamaged(err error) bool {
	var d *damaged
	return errors.As(err, &d)
}

// Gift says to whom a VM is given, and what goes with it.
type Gift struct {
	To   string // the new owner; "": none, so any host may claim the VM
	With []byte // bytes that go with the VM, beside its records
	Mark uint64 // at least as high as every revision of the VM that anybody was told; the store sets it

	// Pack returns With. The committer calls it when the VM's last events here are known; it
	// must not wait for anything. last has no VM's name, and no events if nobody has asked
	// for any. nil: With stays as it is.
	Pack func(mark uint64, last Tail) []byte
}

// Leave writes beside each of these VMs what pack returns for it, as Gift.Pack does; nil: nothing.
// to is the name of this host, which stays the owner: its next process reads that, or a host
// that claims the VM before. It makes no batch, so the VM's newest batch stays the newest. Call
// it after Stop. It returns the error of each VM, in the order of vms; nil: it was written.
// Moved: another host owns the VM by now.
func (s *Store) Leave(to string, vms []string, pack func(vm string, mark uint64, last Tail) []byte) []error {
	failed := make([]error, len(vms))
	if s.shared == nil {
		for i := range failed {
			failed[i] = errNotShared
		}
		return failed
	}
	var groups []Group
	var of []int
	for i, uuid := range vms {
		c := s.Cell(uuid)
		if c == nil {
			failed[i] = errLeft(uuid)
			continue
		}
		var last Tail
		if ring := c.watched(); ring != nil {
			last = TailOf(ring, 0)
		}
		mark := s.Rev()
		if with := pack(uuid, mark, last); with != nil {
			groups = append(groups, Group{VM: uuid, Number: s.shared.Number(uuid), Gift: &Gift{To: to, With: with, Mark: mark}})
			of = append(of, i)
		}
	}
	for i, err := range s.shared.Apply(groups) {
		failed[of[i]] = err
	}
	return failed
}

// Arrival is a VM that this host owns, and that has no Cell here yet.
type Arrival struct {
	vm   *vm.VM
	mark uint64
	tail *Tail
}

// Mark is at least as high as every revision of the VM that anybody was told.
func (a *Arrival) Mark() uint64 { return a.mark }

// Bring adds the events with which the VM's ring ended at the host before. errs.Invalid:
// the ring did not end so.
func (a *Arrival) Bring(t Tail) error {
	t.VM = a.vm.UUID
	if err := t.check(a.mark); err != nil {
		return err
	}
	a.tail = &t
	return nil
}

// Peek reads a VM of any owner, as it is now. Errors: NotFound; IO, which names the
// damaged record.
func Peek(ctx context.Context, c Cluster, uuid string) (v *vm.VM, err error) {
	var damage error
	l := loader{whole: true, onVM: func(found *vm.VM) { v = found }, report: func(d Damage) {
		damage = Damaged(errs.New(errs.IO, "damaged data: %s", d))
	}}
	l.engine = scanner(func(fn func(key, value []byte) error) error { return c.Peek(ctx, uuid, fn) })
	switch err := l.load(); {
	case err != nil:
		return nil, err
	case damage != nil:
		return nil, damage
	case v == nil || v.UUID != uuid:
		return nil, Damaged(errs.New(errs.IO, "damaged data: VM %s has an owner and no record", uuid))
	}
	return v, nil
}

// scanner is the part of an engine that a loader needs.
type scanner func(fn func(key, value []byte) error) error

// Scan is Engine's.
func (s scanner) Scan(fn func(key, value []byte) error) error { return s(fn) }

var errNotShared = errs.New(errs.Unsupported, "this store's VMs are this host's: it is in no fleet")

// errLeft is the error of an intent whose VM another host owns.
func errLeft(uuid string) error {
	return errs.New(errs.Moved, "VM %s is another host's now", uuid)
}

// Fetch reads a VM that this host owns, for Adopt. Any goroutine may call it. Errors:
// Moved: the host does not own it (any more); IO: it names the damaged record.
func (s *Store) Fetch(uuid string) (*Arrival, error) {
	if s.shared == nil {
		return nil, errNotShared
	}
	a := new(Arrival)
	var damage Damage
	found := 0
	read := scanner(func(fn func(key, value []byte) error) (err error) {
		a.mark, err = s.shared.Fetch(uuid, fn)
		return err
	})
	l := loader{engine: read, whole: true, onVM: func(v *vm.VM) { a.vm = v }, report: func(d Damage) {
		if found++; found == 1 {
			damage = d
		}
	}}
	switch err := l.load(); {
	case err != nil:
		return nil, err
	case found > 0:
		return nil, Damaged(errs.New(errs.IO, "damaged data: %s", damage))
	case a.vm == nil || a.vm.UUID != uuid:
		return nil, Damaged(errs.New(errs.IO, "damaged data: VM %s has an owner and no record", uuid))
	}
	return a, nil
}

// adopt makes a Cell from an Arrival; the engine has all of it already. New revisions of
// the VM are higher than those that other hosts have told.
func (b *batch) adopt(in *Intent) (Result, error) {
	a := in.Arrival
	switch {
	case b.store.shared == nil:
		return Result{}, errNotShared
	case in.Guest:
		return Result{}, errGuestVM
	case a == nil:
		return Result{}, errs.New(errs.Invalid, "nothing to adopt")
	}
	c := b.store.newCell(a.vm)
	c.came = true
	if err := b.claim(c, nil, a.vm); err != nil {
		return Result{}, err
	}
	if cid := cidOf(a.vm); cid != (nameKey{}) && b.names.lookup(cid) != c {
		b.store.warnCID(cid, b.names.lookup(cid).uuid, a.vm.UUID)
	}
	if t := a.tail; t != nil {
		c.ring = newRing(b.store.cfg.VMEvents, t.After)
		c.ring.Restore(t.After, t.Events, t.Last)
	}
	// An event without a change also uses a revision. If the owner before has died, such
	// revisions may be higher than the newest record's.
	b.store.numbers.above(max(a.mark, a.vm.Rev+blockSize))
	b.store.numbers.batch = max(b.store.numbers.batch, b.store.engine.Number(a.vm.UUID))
	b.bytes += a.vm.Bytes()
	w := b.join(c, nil, a.vm)
	w.arrived = true
	w.edit.Note(vm.Change{Type: vm.Arrived, Rev: b.store.numbers.rev()})
	b.recordChanges(w, in)
	return Result{Cell: c}, nil
}

// warnCID logs that two VMs of this host have one CID. Who has had it keeps it when other comes; at
// a start that is not known, and none has it.
func (s *Store) warnCID(cid nameKey, one, other string) {
	s.rare.Warn(other).Str("vm", other).Str("other", one).Str("vsock_cid", cid.text).
		Msg("two VMs of this host have one vsock_cid, and this one is not reached by it: give it another")
}

// yield gives the VM away: its Cell ends. Changes of the VM earlier in this batch go with
// it.
func (b *batch) yield(w *work, in *Intent) (Result, error) {
	switch {
	case b.store.shared == nil:
		return Result{}, errNotShared
	case in.Guest:
		return Result{}, errGuestVM
	case in.Gift == nil:
		return Result{}, errs.New(errs.Invalid, "a gift to nobody")
	}
	return Result{}, b.leave(w, in.Gift)
}

// leave ends the VM's Cell here. Without a gift the VM has another owner already.
func (b *batch) leave(w *work, gift *Gift) error {
	v := w.edit.Now()
	if err := b.claim(w.cell, v, nil); err != nil {
		return err
	}
	b.bytes -= v.Bytes()
	w.deleted, w.left, w.gift = true, true, gift
	rev := b.store.numbers.rev()
	if gift != nil {
		gift.Mark = rev
	}
	w.edit.Note(vm.Change{Type: vm.Left, Rev: rev})
	return nil
}

// pack makes Gift.With, when the batch has all changes of the VM.
func (b *batch) pack(w *work) {
	if w.gift == nil || w.gift.Pack == nil {
		return
	}
	var last Tail
	if ring := w.cell.watched(); ring != nil {
		last = TailOf(ring, 0)
		for i := range b.events {
			if ev := &b.events[i]; ev.cell == w.cell {
				last.Events, last.Last = append(last.Events, ev.Event), ev.Rev
			}
		}
	}
	w.gift.With = w.gift.Pack(w.gift.Mark, last)
}

// lose ends the Cells of VMs which, as the engine has found, belong to another host. It
// does so in a batch of its own, because the batch of the failed groups is over.
func (s *Store) lose(b *batch, failed []error) {
	for _, w := range b.works {
		if w.group >= 0 && errs.KindOf(failed[w.group]) == errs.Moved && w.before != nil && !w.cell.ending {
			w.cell.ending = true
			s.end(w.cell)
		}
	}
}

// endAgain is the pause before a Cell whose end could not be published is ended again.
const endAgain = 100 * time.Millisecond

// end ends the Cell of a VM that is another host's, and tries until it succeeds: without
// room for its marks the store can publish nothing, and until then nobody may read here a
// VM that changes there.
func (s *Store) end(c *Cell) {
	s.Submit(&Intent{Kind: elsewhere, Cell: c, Done: func(r Result) {
		if r.Err != errClosed && s.Err() == nil && (c.VM() != nil || c.given != nil) {
			time.AfterFunc(endAgain, func() { s.end(c) })
		}
	}})
}

// Elsewhere ends the Cell of a VM that another host owns by now, if nothing else has
// noticed that. When it returns nil, nobody is served from the Cell any more. Busy: ctx has
// ended before that; the Cell ends all the same, when the committer comes to it. Elsewhere
// must not be called by the committer's goroutine.
func (s *Store) Elsewhere(ctx context.Context, c *Cell) error {
	err := s.until(ctx, &Intent{Kind: elsewhere, Cell: c})
	if c.VM() == nil {
		return nil
	}
	return err
}

// RefuseNew has the store refuse with why to create VMs; nil: it creates them again. What has
// begun goes on: see Settle.
func (s *Store) RefuseNew(why error) {
	if why == nil {
		s.noNew.Store(nil)
		return
	}
	s.noNew.Store(&why)
}

// Settle returns when all that the committer had begun is done, or why it does not know.
func (s *Store) Settle(ctx context.Context) error {
	return s.until(ctx, &Intent{Kind: look})
}

// until is Do for an intent of whose end nobody needs to know once ctx has ended: Busy.
func (s *Store) until(ctx context.Context, in *Intent) error {
	done := make(chan error, 1)
	in.Done = func(r Result) { done <- r.Err }
	s.Submit(in)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errs.New(errs.Busy, "the fleet's cluster has not answered yet: %v", context.Cause(ctx))
	}
}
