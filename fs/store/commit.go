package store

import (
	"cmp"
	"errors"
	"slices"

	"meta9/fs/errs"
)

// run is the committer: it makes a batch of what waits, and commits it, while the
// next batch gathers.
func (s *Store) run() {
	defer close(s.stopped)
	var waiting []*Intent
	for {
		waiting = s.queue.take(waiting)
		if len(waiting) == 0 {
			return
		}
		if err := s.Err(); err != nil {
			refuse(waiting, err)
			waiting = nil
			continue
		}
		b := s.newBatch()
		waiting = b.fill(waiting)
		s.commit(b)
	}
}

func refuse(waiting []*Intent, err error) {
	for _, in := range waiting {
		in.done(Result{Err: err})
	}
}

// commit makes the batch durable and tells. If it cannot be, every intent in it
// gets the error, also one that was refused: what it was refused for may have
// been the work of another.
func (s *Store) commit(b *batch) {
	err := b.seal()
	if err == nil && len(b.ops) > 0 {
		err = s.engine.Apply(b.ops)
	}
	for _, w := range b.works {
		w.cell.work = nil
	}
	if err != nil {
		b.undo()
		refuse(b.intents, s.failedWith(err))
		return
	}
	if len(b.ops) > 0 {
		s.numbers.durable()
		s.noRoom(nil)
	}
	woken := b.publish()
	told := b.committed()
	tell(s.recorders, told)
	for i, in := range b.intents {
		in.done(b.results[i])
	}
	tell(s.observers, told)
	for _, w := range woken {
		w.call()
	}
}

// undo leaves everything as it was before the batch.
func (b *batch) undo() {
	b.txn.Abort()
	for _, w := range b.works {
		w.cell.returnHolds(w.taken)
	}
}

// failedWith is what the intents of a batch get that the engine has refused. Any
// error but a lack of room is the end of writing.
func (s *Store) failedWith(err error) error {
	if errors.Is(err, errs.NoSpace) {
		s.noRoom(err)
		return err
	}
	err = errs.New(errs.IO, "storage has failed, nothing more is written: %v", err)
	s.failure.Store(&err)
	s.queue.fail(err)
	close(s.failed)
	s.cfg.Log.Error().Err(err).Msg("store")
	return err
}

// noRoom logs when room runs out and when there is some again, but not each batch
// of which it is so.
func (s *Store) noRoom(err error) {
	full := err != nil
	if full == s.full {
		return
	}
	s.full = full
	if full {
		s.cfg.Log.Error().Err(err).Msg("no room for a commit")
	} else {
		s.cfg.Log.Info().Msg("commits find room again")
	}
}

// publish shows a durable batch: rows, cells, then events. It gives back who is
// to be woken.
func (b *batch) publish() (woken []*waiter) {
	s := b.store
	s.publish.Lock()
	b.txn.Commit()
	if n := len(b.events); n > 0 {
		s.rev.Store(b.events[n-1].Rev)
	}
	s.publish.Unlock()
	for _, w := range b.works {
		b.show(w)
	}
	for i := range b.events {
		ev := &b.events[i]
		woken = s.ring.add(ev.Event, woken)
		if ev.cell == nil {
			continue
		}
		if r := ev.cell.watched(); r != nil {
			woken = r.add(ev.Event, woken)
		}
	}
	return woken
}

// show makes one VM's new row the one that its cell has.
func (b *batch) show(w *work) {
	if len(w.changes) == 0 {
		return
	}
	s := b.store
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
	w.endHolds()
}

// committed is what the batch did to each VM that it changed, ordered by the last
// revision of each: events made of it can be told apart by that one.
func (b *batch) committed() []Committed {
	told := make([]Committed, 0, len(b.works))
	for _, w := range b.works {
		if len(w.changes) == 0 {
			continue
		}
		told = append(told, Committed{
			Cell: w.cell, Before: w.before, After: w.after,
			Changes: slices.Clip(w.changes), By: w.by,
		})
	}
	slices.SortFunc(told, func(x, y Committed) int { return cmp.Compare(x.Rev(), y.Rev()) })
	return told
}

// Rev is the revision of the last change.
func (c *Committed) Rev() uint64 { return c.Changes[len(c.Changes)-1].Rev }

func tell(who []func(Committed), told []Committed) {
	for _, c := range told {
		for _, fn := range who {
			fn(c)
		}
	}
}
