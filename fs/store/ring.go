package store

import (
	"sort"
	"sync"
	"sync/atomic"
)

// Ring keeps the newest events of one VM, or of all. Any number of goroutines
// read it, each from a revision of its own, and are told when they fell behind.
// Only the committer adds to it.
type Ring struct {
	mu      sync.Mutex
	size    int
	events  []Event // grows to size, then is used in a circle
	head    int     // where the oldest is
	last    uint64
	dropped uint64 // readers at an older revision have lost something
	waiters map[*waiter]struct{}
}

// waiter is one Wait. claimed decides between its wake and its cancel.
type waiter struct {
	claimed atomic.Bool
	wake    func()
}

// newRing makes a Ring that begins after rev.
func newRing(size int, rev uint64) *Ring {
	return &Ring{size: size, last: rev, dropped: rev, waiters: make(map[*waiter]struct{})}
}

// Last is the revision of the newest event, or the store's when the ring was
// made.
func (r *Ring) Last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// After appends to buf the events after revision rev, oldest first, at most max
// of them (0: all). lost is 0, or the newest revision that the reader can no
// longer get: it has missed what was in rev+1 to lost, and the events are those
// after lost.
func (r *Ring) After(rev uint64, max int, buf []Event) (events []Event, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped > rev {
		lost = r.dropped
	}
	from := sort.Search(len(r.events), func(i int) bool { return r.at(i).Rev > rev })
	to := len(r.events)
	if max > 0 {
		to = min(to, from+max)
	}
	for i := from; i < to; i++ {
		buf = append(buf, *r.at(i))
	}
	return buf, lost
}

// at is the i-th oldest event.
func (r *Ring) at(i int) *Event { return &r.events[(r.head+i)%len(r.events)] }

// Wait asks to be told of events after revision rev. ready: there are some
// already, and wake will not be called. Else the committer calls wake once, from
// its goroutine. cancel takes that back, any number of times; when it returns,
// wake was called, or is being called just now, or never will be.
func (r *Ring) Wait(rev uint64, wake func()) (cancel func(), ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last > rev {
		return func() {}, true
	}
	w := &waiter{wake: wake}
	r.waiters[w] = struct{}{}
	return func() { r.cancel(w) }, false
}

func (r *Ring) cancel(w *waiter) {
	if w.claimed.Swap(true) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiters, w)
}

// add takes in a new event and appends those who wait to woken; it does not call
// them, since an event is acknowledged before it is told.
func (r *Ring) add(ev Event, woken []*waiter) []*waiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) < r.size {
		r.events = append(r.events, ev)
	} else {
		r.dropped = r.events[r.head].Rev
		r.events[r.head] = ev
		r.head = (r.head + 1) % r.size
	}
	r.last = ev.Rev
	for w := range r.waiters {
		woken = append(woken, w)
	}
	clear(r.waiters)
	return woken
}

// call wakes, unless it was cancelled.
func (w *waiter) call() {
	if !w.claimed.Swap(true) {
		w.wake()
	}
}
