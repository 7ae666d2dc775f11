// Package ring keeps the newest items of what goes on, for readers that each read at
// their own pace: one that falls behind is told what it lost, and holds up nobody.
//
// An item has a position, a number that grows; what a position counts is the owner's
// choice. Any number of goroutines may read and wait; only one may add. Ring.mu is a
// leaf: nothing is called with it held but the two functions of Config.
package ring

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// Config bounds a Ring.
type Config[T any] struct {
	Items    int             // how many are kept
	Position func(*T) uint64 // of an item
	Bytes    int             // how many bytes are kept; 0: they are not counted
	Size     func(*T) int    // of an item, in bytes; only used with Bytes
}

// Ring is the newest items.
type Ring[T any] struct {
	cfg     Config[T]
	mu      sync.Mutex
	items   []T // grows to Items, then is used in a circle
	head    int // where the oldest is
	count   int // how many there are
	bytes   int // of them
	last    uint64
	dropped uint64 // readers at an older position have lost something
	waiters map[*Waiter]struct{}
}

// Waiter is one Wait. claimed decides between its wake and its cancel.
type Waiter struct {
	claimed atomic.Bool
	wake    func()
}

// New makes a Ring that begins after a position.
func New[T any](cfg Config[T], after uint64) *Ring[T] {
	return &Ring[T]{cfg: cfg, last: after, dropped: after, waiters: make(map[*Waiter]struct{})}
}

// Restore makes it a Ring that began after a position, has got these items, and has come
// to last; of more items than it may keep, it keeps the newest. Nobody may be waiting.
func (r *Ring[T]) Restore(after uint64, items []T, last uint64) {
	r.mu.Lock()
	r.items, r.head, r.count, r.bytes = nil, 0, 0, 0
	r.dropped = after
	r.mu.Unlock()
	for _, item := range items {
		r.Add(item, nil)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = last
}

// Last is the position of the newest item, or the one that the Ring began after.
func (r *Ring[T]) Last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// After appends to buf the items after position pos, oldest first, at most max of
// them (0: all). lost is 0, or the newest position that the reader can no longer
// get: it has missed what was in pos+1 to lost, and the items are those after lost.
func (r *Ring[T]) After(pos uint64, max int, buf []T) (items []T, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped > pos {
		lost = r.dropped
	}
	from := sort.Search(r.count, func(i int) bool { return r.cfg.Position(r.at(i)) > pos })
	to := r.count
	if max > 0 {
		to = min(to, from+max)
	}
	for i := from; i < to; i++ {
		buf = append(buf, *r.at(i))
	}
	return buf, lost
}

// at is the i-th oldest item.
func (r *Ring[T]) at(i int) *T { return &r.items[(r.head+i)%len(r.items)] }

// Wait asks to be told of items after position pos. ready: there are some already,
// and wake will not be called. Else it is called once, by whoever adds. cancel takes
// that back, any number of times; when it returns, wake was called, or is being
// called just now, or never will be.
func (r *Ring[T]) Wait(pos uint64, wake func()) (cancel func(), ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last > pos {
		return func() {}, true
	}
	w := &Waiter{wake: wake}
	r.waiters[w] = struct{}{}
	return func() { r.cancel(w) }, false
}

func (r *Ring[T]) cancel(w *Waiter) {
	if w.claimed.Swap(true) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiters, w)
}

// Add takes in a new item and appends those who wait to woken. It does not wake them:
// an event, for one, is acknowledged before it is told.
func (r *Ring[T]) Add(item T, woken []*Waiter) []*Waiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == r.cfg.Items {
		r.drop()
	}
	if r.count < len(r.items) {
		r.items[(r.head+r.count)%len(r.items)] = item
	} else {
		if r.head > 0 {
			r.items, r.head = slices.Concat(r.items[r.head:], r.items[:r.head]), 0
		}
		r.items = append(r.items, item)
	}
	r.count++
	r.last = r.cfg.Position(&item)
	if r.cfg.Bytes > 0 {
		r.bytes += r.cfg.Size(&item)
		for r.bytes > r.cfg.Bytes {
			r.drop()
		}
	}
	for w := range r.waiters {
		woken = append(woken, w)
	}
	clear(r.waiters)
	return woken
}

// drop drops the oldest item; mu is held.
func (r *Ring[T]) drop() {
	oldest := r.at(0)
	r.dropped = r.cfg.Position(oldest)
	if r.cfg.Bytes > 0 {
		r.bytes -= r.cfg.Size(oldest)
	}
	*oldest = *new(T) // so that it keeps nothing alive
	r.head = (r.head + 1) % len(r.items)
	r.count--
}

// Wake wakes who waits, unless the Wait was cancelled.
func (w *Waiter) Wake() {
	if !w.claimed.Swap(true) {
		w.wake()
	}
}
