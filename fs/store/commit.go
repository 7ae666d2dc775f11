package store

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"meta9/fs/errs"
)

// run is the committer: it makes a batch of what waits, and commits it, while the
// next batch gathers.
func (s *Store) run() {
	defer close(s.stopped)
	b := newBatch(s)
	for {
		s.turns.add(s.queue.take(s.turns.waiting()))
		if !s.turns.waiting() {
			return
		}
		if err := s.Err(); err != nil {
			s.turns.refuse(err)
			continue
		}
		from := time.Now()
		rest, saved := b.fill(&s.turns, s.hurries.Load() || s.queue.ended())
		if len(b.intents) == 0 && rest > 0 && !saved {
			s.queue.wait(rest)
			continue
		}
		s.commit(b)
		b.charge(time.Since(from), s.turns.now)
		b.reset()
	}
}

// commit makes the batch durable and publishes it. If the group of a VM fails, that VM's
// intents get the error. If nothing of the batch can be published, every intent gets an
// error, also one that was refused: the reason may have been the work of another intent.
func (s *Store) commit(b *batch) {
	b.seal()
	b.announce()
	b.hideGiven()
	err := s.apply(b)
	for _, w := range b.works {
		w.cell.work = nil
		if w.gift != nil && (err != nil || w.failed != nil) && !w.cell.ending {
			w.cell.keep() // if ending, another host has the VM: it stays hidden until lose ends the Cell
		}
	}
	if err != nil {
		b.undo()
		for i, in := range b.intents {
			r := Result{Err: err}
			if w := b.owners[i]; w != nil && w.failed != nil {
				r.Err = w.refusal(in)
			}
			in.done(r)
		}
		return
	}
	b.publish()
	tell(&s.recorders, b.committed)
	for i, in := range b.intents {
		if w := b.owners[i]; w != nil && w.failed != nil {
			b.results[i] = Result{Err: w.refusal(in)}
		}
		in.done(b.results[i])
	}
	tell(&s.observers, b.committed)
	for _, w := range b.woken {
		w.Wake()
	}
	for _, c := range b.crowds {
		s.waking.Go(c.wake)
	}
	switch {
	case len(b.rootWaiters) <= fewWaiters:
		for _, w := range b.rootWaiters {
			w.Wake()
		}
	case s.paced.add(b.rootWaiters):
		s.waking.Go(func() { s.paced.wake(s.stopped) })
	}
}

// apply gives the batch to the engine. The returned error is that of the whole batch, of
// which nothing may be published then: the batch's events, too, have numbers from the
// marks, which are in the store's own group. The error of a single VM is kept in its work.
func (s *Store) apply(b *batch) error {
	if l, ok := s.engine.(Looker); ok && b.looks {
		if err := l.Look(); err != nil {
			return s.fail(err)
		}
	}
	if len(b.groups) == 0 {
		return nil
	}
	from := time.Now()
	var failed []error
	if s.shared != nil {
		failed = s.await(b.groups)
	} else {
		failed = s.engine.Apply(b.groups)
	}
	b.disk = time.Since(from)
	if failed == nil {
		s.numbers.durable()
		s.noRoom(nil)
		return nil
	}
	return s.settle(b, failed)
}

// settle finds what stands of a batch of which a group has failed. failed has each group's
// error, nil for one that is durable. The returned error is as apply's.
func (s *Store) settle(b *batch, failed []error) error {
	durable := 0
	var full error
	for _, err := range failed {
		switch {
		case err == nil:
			durable++
		case !bearable(err):
			_ = s.fail(err)
			return errs.New(errs.IO, "storage has failed, this may or may not be there after a restart: %v", err)
		case errors.Is(err, errs.NoSpace):
			full = err
		}
	}
	s.noRoom(full)
	if s.shared != nil {
		s.lose(b, failed)
	}
	for _, w := range b.works {
		if w.group >= 0 {
			w.failed = failed[w.group]
		}
	}
	if durable > 0 {
		s.numbers.durable()
		b.tellFailed()
		return b.claimAnew()
	}
	// Work without a group of its own stays valid unless the marks have failed: a note, a VM
	// that has come or is elsewhere. If the engine has one transaction for all, nothing
	// stays valid.
	alone := func(w *work) bool { return w == nil || w.group < 0 }
	if s.shared == nil || b.groups[0].VM == "" || !slices.ContainsFunc(b.owners, alone) {
		if s.cfg.Journal != nil {
			s.cfg.Journal.Failed(b.groups[0].Number, nil)
		}
		return failed[0]
	}
	b.tellFailed()
	return b.claimAnew()
}

// hideGiven hides the VMs that the batch gives away. The new owner may change one as soon as its
// own group is durable; this host learns that only when the groups of all VMs of the batch are.
func (b *batch) hideGiven() {
	for _, w := range b.works {
		if c := w.cell; w.gift != nil {
			b.store.publish.Lock()
			c.given = cmp.Or(c.vm.Swap(nil), c.given) // it may be hidden already (commit)
			b.store.publish.Unlock()
		}
	}
}

// keep shows a VM again that could not be given away.
func (c *Cell) keep() {
	c.store.publish.Lock()
	defer c.store.publish.Unlock()
	c.vm.Store(c.given)
	c.given = nil
}

// tellFailed tells the journal of the VMs whose groups have failed alone.
func (b *batch) tellFailed() {
	if b.store.cfg.Journal == nil {
		return
	}
	var vms []string
	for _, w := range b.works {
		if w.failed != nil {
			vms = append(vms, w.cell.uuid)
		}
	}
	if len(vms) > 0 {
		b.store.cfg.Journal.Failed(b.groups[0].Number, vms)
	}
}

// refusal is the error of an intent whose VM's group has failed.
func (w *work) refusal(in *Intent) error {
	if in.Guest && errs.KindOf(w.failed) == errs.Exists { // the alias that the host wanted for it
		return errs.New(errs.Again, "another change of the VM was refused, and this with it")
	}
	return w.failed
}

// bearable says whether the engine can go on after this error of a group.
func bearable(err error) bool {
	var u *unchanged
	return errors.Is(err, errs.NoSpace) || errors.As(err, &u)
}

// announce tells the journal about the batch, if it changes anything or has events.
func (b *batch) announce() {
	j := b.store.cfg.Journal
	if j == nil || len(b.events) == 0 && len(b.groups) == 0 {
		return
	}
	number := uint64(0)
	if len(b.groups) > 0 {
		number = b.groups[0].Number
	}
	b.told = b.told[:0]
	for i := range b.events {
		b.told = append(b.told, b.events[i].Event)
	}
	j.Begun(number, b.told)
	if number == 0 {
		return
	}
	for i, in := range b.intents {
		if in.Receipt != nil && b.results[i].Err == nil {
			in.Receipt(number, b.results[i])
		}
	}
}

// claimAnew computes the index again without the VMs that failed. If a failed VM would
// have given up a name that another VM has taken, that is the engine's fault: it must not
// make only the second durable.
func (b *batch) claimAnew() error {
	b.names = nil
	for _, w := range b.works {
		if !w.stands() {
			w.cell.returnHolds(w.taken)
			w.taken = nil
			continue
		}
		if err := b.claim(w.cell, w.before, w.after); err != nil {
			return b.store.fail(err)
		}
	}
	return nil
}

// undo leaves everything as it was before the batch.
func (b *batch) undo() {
	b.names = nil
	for _, w := range b.works {
		w.cell.returnHolds(w.taken)
	}
}

// fail ends all writing, and returns the error that every intent gets from now on. A group
// that the engine is just writing may be on the disk or not.
func (s *Store) fail(err error) error {
	err = errs.New(errs.IO, "storage has failed, nothing more is written: %v", err)
	s.failure.Store(&err)
	s.queue.fail(err)
	close(s.failed)
	s.cfg.Log.Error().Err(err).Msg("store")
	return err
}

// noRoom logs that room has run out, and that there is some again. On a disk that is
// nearly full a guest decides which batches fit; so each line comes once a minute.
func (s *Store) noRoom(err error) {
	switch full := s.full; {
	case err != nil:
		s.full = true
		s.rare.Warn("full").Err(err).Msg("no room for a commit")
	case full:
		s.full = false
		s.rare.Warn("room").Msg("commits find room again")
	}
}

// publish shows what is durable: names, cells and revision at once, then events. It notes
// who must be told, in the order of the revisions (a batch does all intents of one VM and
// then those of the next), and who must be woken.
func (b *batch) publish() {
	s := b.store
	s.publish.Lock()
	if b.names != nil {
		s.index.Store(b.names.seal())
		b.names = nil
	}
	for _, w := range b.works {
		b.show(w)
	}
	if n := len(b.events); n > 0 {
		s.rev.Store(b.events[n-1].Rev)
	}
	s.publish.Unlock()
	for _, w := range b.works {
		if w.stands() {
			w.endHolds()
		}
	}
	for i := range b.events {
		ev := &b.events[i]
		if ev.work != nil && ev.work.failed != nil && (ev.Type != VMLeft || !ev.work.elsewhere()) {
			continue
		}
		b.rootWaiters = s.ring.Add(ev.Event, b.rootWaiters)
		if ev.cell == nil {
			continue
		}
		if r := ev.cell.watched(); r != nil {
			n := len(b.woken)
			b.woken = r.Add(ev.Event, b.woken)
			if len(b.woken) > n+fewWaiters {
				b.crowds = append(b.crowds, crowd{ev.cell, slices.Clone(b.woken[n:])})
				b.woken = b.woken[:n]
			}
		}
	}
}

// show gives the VM's cell its new row.
func (b *batch) show(w *work) {
	changes := w.edit.Changes()
	if len(changes) == 0 || !w.stands() {
		return
	}
	if w.failed != nil {
		changes = changes[len(changes)-1:] // the only result is that it is elsewhere
	}
	s := b.store
	w.cell.left, w.cell.given = w.left, nil
	w.cell.vm.Store(w.after)
	if w.before == nil {
		s.count.Add(1)
	} else {
		s.bytes.Add(-w.before.Bytes())
	}
	if w.after == nil {
		s.count.Add(-1)
	} else {
		s.bytes.Add(w.after.Bytes())
	}
	if w.before == nil || w.after == nil {
		delete(s.skipped, w.cell.uuid)
	}
	b.committed = append(b.committed, Committed{
		Cell: w.cell, Before: w.before, After: w.after,
		Changes: slices.Clip(changes), By: w.by,
	})
}

// Rev is the revision of the last change.
func (c *Committed) Rev() uint64 { return c.Changes[len(c.Changes)-1].Rev }

// tell calls each function with each change. It reads the list only if there is a change:
// until the first one, functions may still be added, and a Looker's batch comes before
// that.
func tell(who *[]func(Committed), told []Committed) {
	for _, c := range told {
		for _, fn := range *who {
			fn(c)
		}
	}
}
