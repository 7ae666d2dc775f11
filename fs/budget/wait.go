package budget

import (
	"context"
	"slices"
	"time"
)

// Wait is a request that waits for bytes, or has them.
type Wait struct {
	a     *Account
	n     int64
	ready func() // once it has them, or is refused
	timer *time.Timer
	state state // guarded by Budget.mu, as err
	err   error
}

type state uint8

const (
	waits   state = iota
	has           // n bytes are taken for it, and Take has not come yet
	refused       // it has waited Limits.Wait
	over          // Take or End has come
)

// Wait takes n bytes as soon as it can, after the requests of this account that wait
// already. ready is called once, after Wait has returned or from another goroutine, unless
// End comes first; then the caller calls Take. A goroutine that releases bytes calls
// ready with its own locks held: ready must not wait, and may take a lock only for
// moments.
func (a *Account) Wait(n int64, ready func()) *Wait {
	w := &Wait{a: a, n: n, ready: ready}
	if a == nil {
		w.state = has
		go ready()
		return w
	}
	b := a.b
	b.waits.Add(1)
	b.mu.Lock()
	if len(a.queue) == 0 {
		b.turns = append(b.turns, a)
	}
	a.queue = append(a.queue, w)
	a.waiting.Store(true)
	w.timer = time.AfterFunc(b.limits.Wait, w.expire)
	granted := b.serve() // a release may have come before a.waiting was set
	b.mu.Unlock()
	for _, w := range granted {
		go w.ready()
	}
	return w
}

// Await takes n bytes, now if that can be or as Wait does. The error is errs.Again, or ctx's if
// that ended first.
func (a *Account) Await(ctx context.Context, n int64) error {
	if a.Try(n) == nil {
		return nil
	}
	ready := make(chan struct{})
	w := a.Wait(n, func() { close(ready) })
	defer w.End()
	select {
	case <-ready:
		return w.Take()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Bytes is how many bytes it waits for.
func (w *Wait) Bytes() int64 { return w.n }

// Take ends the Wait and hands over its bytes, which the caller releases. The error is
// errs.Again: there were none within Limits.Wait.
func (w *Wait) Take() error {
	if w.a == nil {
		return nil
	}
	b := w.a.b
	var granted []*Wait
	b.mu.Lock()
	defer func() {
		b.mu.Unlock()
		for _, w := range granted {
			w.ready()
		}
	}()
	if w.state == waits { // nobody has called ready
		w.dequeue()
		w.state, w.err = refused, w.a.refusal(w.n)
		granted = b.serve()
	}
	if w.state == has {
		w.state = over
	}
	return w.err
}

// End ends the Wait, and releases its bytes unless Take has handed them over.
func (w *Wait) End() {
	if w.a == nil {
		return
	}
	b := w.a.b
	b.mu.Lock()
	was := w.state
	w.state = over
	var granted []*Wait
	if was == waits {
		w.dequeue()
		granted = b.serve() // a smaller request behind it may fit
	}
	b.mu.Unlock()
	for _, w := range granted {
		w.ready()
	}
	if was == has {
		w.a.Release(w.n)
	}
}

// expire refuses a request that has waited Limits.Wait.
func (w *Wait) expire() {
	b := w.a.b
	b.mu.Lock()
	if w.state != waits {
		b.mu.Unlock()
		return
	}
	w.dequeue()
	w.state, w.err = refused, w.a.refusal(w.n)
	b.refused.Add(1)
	granted := b.serve() // a smaller request behind it may fit
	b.mu.Unlock()
	w.ready()
	for _, w := range granted {
		w.ready()
	}
}

// dequeue removes w from its account's queue. Budget.mu is held.
func (w *Wait) dequeue() {
	a := w.a
	w.timer.Stop()
	if i := slices.Index(a.queue, w); i >= 0 {
		a.queue = slices.Delete(a.queue, i, i+1)
	}
	if len(a.queue) == 0 {
		a.queue = nil
		a.b.endTurns(a)
		a.b.forgetUnused(a)
	}
}

// serve grants waiting requests, one of each account in turn, until no more can be
// granted. Once the total was too small for a request, the accounts after it are granted
// no more than their floor, or large requests would never be granted. The caller calls
// ready of the returned Waits without the lock. b.mu is held.
func (b *Budget) serve() (ready []*Wait) {
	for progress := true; progress; {
		progress = false
		short := false
		for _, a := range append([]*Account(nil), b.turns...) {
			w := a.queue[0]
			if short && a.used.Load()+w.n > b.limits.Floor {
				continue
			}
			switch b.grant(a, w.n) {
			case allFull:
				short = true
			case given:
				progress = true
				w.dequeue()
				if len(a.queue) > 0 { // its next turn comes after the others'
					b.endTurns(a)
					b.turns = append(b.turns, a)
					a.waiting.Store(true)
				}
				w.state = has
				ready = append(ready, w)
			}
		}
		b.isShort = short
		if short {
			b.askGivers()
		}
	}
	return ready
}
