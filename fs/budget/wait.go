package budget

import "time"

// Wait is a request that waits for bytes, or has them.
type Wait struct {
	a     *Account
	n     int64
	call  func()
	timer *time.Timer
	state state // guarded by Budget.mu, as err
	err   error
}

type state uint8

const (
	waits   state = iota
	has           // n bytes are taken for it
	refused       // it has waited long enough
	over
)

// Wait takes n bytes as soon as they are to be had, behind what waits of this account
// already. ready is called once, after Wait has returned or from another goroutine, unless
// End comes first: then Take says what became of it. Whoever releases bytes may call it,
// with his locks held: it must not wait, and must not take a lock but for moments.
func (a *Account) Wait(n int64, ready func()) *Wait {
	w := &Wait{a: a, n: n, call: ready}
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
	granted := b.serve() // a release may have come before the mark
	b.mu.Unlock()
	for _, w := range granted {
		go w.call()
	}
	return w
}

// Bytes is what it waits for.
func (w *Wait) Bytes() int64 { return w.n }

// Take ends the Wait and hands over its bytes, which the caller releases; or gives the
// error, which is errs.Again, if there were none in time.
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
		w.leave()
		w.state, w.err = refused, w.a.refusal(w.n)
		granted = b.serve()
	}
	if w.state == has {
		w.state = over
	}
	return w.err
}

// End ends the Wait; bytes that it has and nobody took are given back.
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
		w.leave()
		granted = b.serve() // what stood behind it may be smaller
	}
	b.mu.Unlock()
	for _, w := range granted {
		w.ready()
	}
	if was == has {
		w.a.Release(w.n)
	}
}

// expire refuses what has waited too long.
func (w *Wait) expire() {
	b := w.a.b
	b.mu.Lock()
	if w.state != waits {
		b.mu.Unlock()
		return
	}
	w.leave()
	w.state, w.err = refused, w.a.refusal(w.n)
	b.refused.Add(1)
	granted := b.serve() // what stood behind it may be smaller
	b.mu.Unlock()
	w.call()
	for _, w := range granted {
		w.ready()
	}
}

// leave takes w out of its queue. b.mu is held.
func (w *Wait) leave() {
	a := w.a
	w.timer.Stop()
	for i, other := range a.queue {
		if other == w {
			a.queue = append(a.queue[:i], a.queue[i+1:]...)
			break
		}
	}
	if len(a.queue) == 0 {
		a.queue = nil
		a.b.drop(a)
		a.b.tidy(a)
	}
}

func (w *Wait) ready() { w.call() }

// serve gives to those who wait what there is for them: one request of each account in
// turn, until nothing more can be given. Once the total was too small for one, those
// behind it get no more than their floor. Those that got something are returned, and
// are to be called. b.mu is held.
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
				w.leave()
				if len(a.queue) > 0 { // its next turn is behind the others'
					b.drop(a)
					b.turns = append(b.turns, a)
					a.waiting.Store(true)
				}
				w.state = has
				ready = append(ready, w)
			}
		}
		b.isShort = short
		if short {
			b.ask()
		}
	}
	return ready
}
