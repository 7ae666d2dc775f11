package store

import (
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
		rest, saved := b.fill(&s.turns, s.queue.ended())
		if len(b.intents) == 0 && rest > 0 && !saved {
			s.queue.wait(rest)
			continue
		}
		s.commit(b)
		b.charge(time.Since(from))
		b.reset()
	}
}

// commit makes the batch durable and tells. The intents of a VM for which that
// failed get the error. If nothing of the batch may be told, every intent gets one,
// also one that was refused: what it was refused for may have been the work of
// another.
func (s *Store) commit(b *batch) {
	b.seal()
	b.announce()
	err := s.apply(b)
	for _, w := range b.works {
		w.cell.work = nil
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

// apply gives the batch to the engine. The error is that of all of it, of which nothing
// may be told then: also a batch's events are numbered from the marks, which are the
// store's own group. What failed of one VM alone stands in its work.
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
		return b.claimAnew()
	}
	if s.cfg.Journal != nil {
		s.cfg.Journal.Failed(b.groups[0].Number)
	}
	// What needs no group of its own stands, unless the marks have failed: a note, a VM that
	// has come or is elsewhere. Where an engine has one transaction, nothing does.
	alone := func(w *work) bool { return w == nil || w.group < 0 }
	if s.shared == nil || b.groups[0].VM == "" || !slices.ContainsFunc(b.owners, alone) {
		return failed[0]
	}
	return b.claimAnew()
}

// refusal is what an intent gets whose VM's group has failed.
func (w *work) refusal(in *Intent) error {
	if in.Guest && errs.KindOf(w.failed) == errs.Exists { // the alias that the host wanted for it
		return errs.New(errs.Again, "another change of the VM was refused, and this with it")
	}
	return w.failed
}

// bearable says whether the engine can go on after that error of a group.
func bearable(err error) bool {
	var u *unchanged
	return errors.Is(err, errs.NoSpace) || errors.As(err, &u)
}

// announce tells the journal of the batch, if it changes or tells anything.
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

// claimAnew makes the names anew without the VMs that failed. That one of those had
// given up a name that another has taken is the engine's fault: it has made only
// the second durable.
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

// fail ends all writing, and gives the error that every intent gets from now on. What
// is in the engine's hands just then may be on the disk or not.
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

// publish shows what is durable: names, cells and revision at once, then events.
// It notes who is to be told, in the order of the revisions, since a batch does
// all that it takes of one VM and then that of the next; and who is to be woken.
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

// show makes one VM's new row the one that its cell has.
func (b *batch) show(w *work) {
	changes := w.edit.Changes()
	if len(changes) == 0 || !w.stands() {
		return
	}
	if w.failed != nil {
		changes = changes[len(changes)-1:] // that it is elsewhere is all that has come of it
	}
	s := b.store
	w.cell.left = w.left
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

// tell looks at who is to be told only where there is something to tell: before the first
// change they may still be added, and a Looker looks already.
func tell(who *[]func(Committed), told []Committed) {
	for _, c := range told {
		for _, fn := range *who {
			fn(c)
		}
	}
}
