package store

import (
	"context"
	"time"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Shared is an Engine that several stores write to, one on each host of a fleet. Each VM
// has one owner among them, which alone changes it and has it in memory; a VM moves when
// its owner gives it away (Yield) and another store takes it (Adopt).
//
// Scan gives the store's own records and those of the VMs that this host owns. Apply
// refuses a group by itself, Unchanged: as errs.Moved where another host owns the VM by
// now, as errs.Exists where it is to create a VM that is there, or takes an alias that a VM
// has, at any host. A VM of which a record is damaged is not served, and others are.
//
// Apply returns when it knows what has become of each group, however long that takes;
// what waits meanwhile is refused after Config.Patience.
type Shared interface {
	Engine
	// Block is the first of count ids in a row, at least so many as least, that no store
	// of the fleet has or will get. It may be asked from the goroutine of Apply alone.
	Block(least uint64) (first, count uint64, err error)
	// Fetch gives the records of one VM as they are at one moment, in the order of
	// their keys, as Scan does, and a revision that is no less than any of the VM's that
	// was told. Only a VM that this host owns can be fetched, else errs.Moved; any
	// goroutine may, while this store has no Cell of the VM.
	Fetch(uuid string, fn func(key, value []byte) error) (mark uint64, err error)
	// Mark is no less than any revision that was told of a VM that Scan has given.
	Mark() uint64
	// Keep sees to it that no store gets a block with ids below limit, for VMs that come
	// with ids of their own. false: some may have got one already.
	Keep(limit uint64) (bool, error)
	// Trouble is why the engine has had no answer of late, or nil. Any goroutine may ask.
	Trouble() error
	// Interrupt ends what Apply waits for, and all else: a group may be durable then, or
	// not, and the next Scan finds out. Any goroutine may call it.
	Interrupt()
}

// Interrupt makes Stop and Close return although the fleet's cluster does not answer. What
// waits in the queue is refused. What is being committed may or may not be durable: the next
// process finds out by its Number. Without a fleet Interrupt does nothing.
func (s *Store) Interrupt() {
	if s.shared != nil {
		s.queue.fail(errClosed)
		s.shared.Interrupt()
	}
}

// patienceTicks is how often the committer looks within its patience for who has waited
// too long.
const patienceTicks = 4

// await is Apply of a fleet's engine. An intent that has waited longer than the store's
// patience for its turn is refused meanwhile; nothing of it was begun.
func (s *Store) await(groups []Group) []error {
	done := make(chan []error, 1)
	from := s.cfg.Now()
	go func() { done <- s.shared.Apply(groups) }()
	tick := time.NewTicker(max(s.cfg.Patience/patienceTicks, time.Millisecond))
	defer tick.Stop()
	var newest [patienceTicks]uint64 // intent at each of the last ticks, the oldest tick first
	for {
		select {
		case failed := <-done:
			return failed
		case <-tick.C:
			late := newest[0]
			copy(newest[:], newest[1:])
			newest[patienceTicks-1] = s.queue.seq.Load()
			s.turns.add(s.queue.take(true))
			s.turns.refuseUntil(late, s.impatient(from))
		}
	}
}

// impatient is what an intent gets that has waited too long.
func (s *Store) impatient(from time.Time) error {
	why := "it does not answer"
	if err := s.shared.Trouble(); err != nil {
		why = errs.Detail(err)
	}
	return errs.New(errs.IO, "nothing was changed: the fleet's cluster has taken no change since %s (%s)", from.UTC().Format(time.RFC3339), why)
}

// Unchanged marks the error of a group of which nothing has changed, nor will.
func Unchanged(err error) error { return &unchanged{err} }

type unchanged struct{ error }

func (u *unchanged) Unwrap() error { return u.error }

// Gift is a VM that its owner gives away, with all that its group changes.
type Gift struct {
	To   string // the host that owns it from then on; "": none does, whoever wants it may take it
	With []byte // what goes with the VM beside its records
	Mark uint64 // no revision of the VM's that was told is greater; the store sets it

	// Pack makes With, in the committer, once it is known which events are the VM's last
	// here. It must not wait for anything. last has no VM's name, and no events where nobody has
	// asked for any. nil: With is as it is.
	Pack func(mark uint64, last Tail) []byte
}

// Arrival is a VM that this host owns and that no Cell is of yet.
type Arrival struct {
	vm   *vm.VM
	mark uint64
	tail *Tail
}

// Mark is no less than any revision of the VM's that was told.
func (a *Arrival) Mark() uint64 { return a.mark }

// Bring has the VM's ring go on where it ended at the host before. errs.Invalid: it did not
// end so.
func (a *Arrival) Bring(t Tail) error {
	t.VM = a.vm.UUID
	if err := t.check(a.mark); err != nil {
		return err
	}
	a.tail = &t
	return nil
}

// Peek reads a VM, whosever it is, as it is now. Errors: NotFound; IO, with the record that
// is damaged.
func Peek(ctx context.Context, c Cluster, uuid string) (v *vm.VM, err error) {
	var damage error
	l := loader{whole: true, onVM: func(found *vm.VM) { v = found }, report: func(d Damage) {
		damage = errs.New(errs.IO, "damaged data: %s", d)
	}}
	l.engine = scanner(func(fn func(key, value []byte) error) error { return c.Peek(ctx, uuid, fn) })
	switch err := l.load(); {
	case err != nil:
		return nil, err
	case damage != nil:
		return nil, damage
	case v == nil || v.UUID != uuid:
		return nil, errs.New(errs.IO, "damaged data: VM %s has an owner and no record", uuid)
	}
	return v, nil
}

// scanner is an engine of which a loader reads.
type scanner func(fn func(key, value []byte) error) error

// Scan is Engine's.
func (s scanner) Scan(fn func(key, value []byte) error) error { return s(fn) }

var errNotShared = errs.New(errs.Unsupported, "this store's VMs are this host's: it is in no fleet")

// errLeft is what an intent gets whose VM another host owns.
func errLeft(uuid string) error {
	return errs.New(errs.Moved, "VM %s is another host's now", uuid)
}

// Fetch reads a VM that this host owns, for Adopt. Any goroutine may call it. Errors:
// Moved (the host does not own it, or no longer), IO with the record that is damaged.
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
		return nil, errs.New(errs.IO, "damaged data: %s", damage)
	case a.vm == nil || a.vm.UUID != uuid:
		return nil, errs.New(errs.IO, "damaged data: VM %s has an owner and no record", uuid)
	}
	return a, nil
}

// adopt makes a Cell of an Arrival. The engine has all of it already. Revisions of
// the VM go on above those that other hosts have told.
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
	if err := b.claim(c, nil, a.vm); err != nil {
		return Result{}, err
	}
	if t := a.tail; t != nil {
		c.ring = newRing(b.store.cfg.VMEvents, t.After)
		c.ring.Restore(t.After, t.Events, t.Last)
	}
	// Events that changed nothing may have had revisions beyond the newest record's, where
	// the owner before has died.
	b.store.numbers.above(max(a.mark, a.vm.Rev+blockSize))
	b.store.numbers.batch = max(b.store.numbers.batch, b.store.engine.Number(a.vm.UUID))
	b.bytes += a.vm.Bytes()
	w := b.join(c, nil, a.vm)
	w.arrived = true
	w.edit.Note(vm.Change{Type: vm.Arrived, Rev: b.store.numbers.rev()})
	b.recordChanges(w, in)
	return Result{Cell: c}, nil
}

// yield gives the VM away: its Cell ends, and what the batch has changed of it before
// goes with it.
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

// pack makes what goes with a VM, when the batch has all that changes of it.
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

// lose ends the Cells of VMs that the engine has found to be another host's, in a batch
// of its own: the one that has found it out is over.
func (s *Store) lose(b *batch, failed []error) {
	for _, w := range b.works {
		if w.group >= 0 && errs.KindOf(failed[w.group]) == errs.Moved && w.before != nil && !w.cell.going {
			w.cell.going = true
			s.end(w.cell)
		}
	}
}

// endAgain is when a Cell whose end could not be told is to end again.
const endAgain = 100 * time.Millisecond

// end ends the Cell of a VM that is another host's, however often that takes: without room
// for the marks, nothing can be told, and nobody may read here what others change there.
func (s *Store) end(c *Cell) {
	s.Submit(&Intent{Kind: elsewhere, Cell: c, Done: func(r Result) {
		if c.VM() != nil && r.Err != errClosed && s.Err() == nil {
			time.AfterFunc(endAgain, func() { s.end(c) })
		}
	}})
}

// Elsewhere ends the Cell of a VM that another host owns by now, where nothing else has
// found that out. It returns when nobody is served what the Cell had. It must not be called from the
// committer's goroutine.
func (s *Store) Elsewhere(c *Cell) error {
	r := s.Do(&Intent{Kind: elsewhere, Cell: c})
	if c.VM() == nil {
		return nil
	}
	return r.Err
}
