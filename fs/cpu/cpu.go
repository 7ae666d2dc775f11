// Package cpu shares the CPUs among VMs. Whoever works for a VM (a connection's
// loop, mostly) takes a place before and gives it back after, and there are as many
// places as CPUs. Go's scheduler gives each goroutine the same, so that a VM with
// 64 connections would have 64 turns where another has one; here all that works for
// a VM counts as one:
//
//   - While more than one VM is at work, a VM has all places but one at most, so that
//     whoever comes next need not wait for it.
//   - Where places are short, the VM that has used least time has the next one. Time is
//     measured, so that a request's cost counts and not its number.
//   - Who has run for Slice while others wait is asked to let them (Over). A request
//     is not cut: a long one is counted, and its VM is behind the others then.
//   - The admin never waits.
//
// A Place costs some atomic operations as long as nobody waits, and two looks at the
// clock where several VMs are at work; the lock is taken only by who waits, and by who
// gives a place back while somebody waits. Of what a VM has used at most 50 ms count
// against it: a VM that was busy while nobody else was has done no harm.
//
// Places are not for waiting: who blocks gives his back first, whatever he waits for.
// Then nobody holds a place for long, and a VM waits for the others' slices only.
//
// All of it may be used from any goroutine, but a Place is one goroutine's at a time.
// Scheduler.mu is held for moments and over nothing else.
package cpu

import (
	"container/heap"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Slice is how long one who works goes on while others wait.
	Slice = 200 * time.Microsecond
	// Longest is how long Take waits.
	Longest = 10 * time.Second

	// sharedFor is for how long more than one VM counts as being at work after it was.
	sharedFor = 100 * time.Millisecond
	// debt is how much of what a VM has used counts against it at most.
	debt = 50 * time.Millisecond
)

// Scheduler has the places of one daemon.
type Scheduler struct {
	places int32
	free   atomic.Int32
	queued atomic.Int32 // Places that wait
	waits  atomic.Int64 // Takes that waited
	late   atomic.Int64 // those that did so in vain
	newest atomic.Pointer[Share]
	last   atomic.Int64 // when it came, nearly
	shared atomic.Int64 // when another came soon after

	mu    sync.Mutex
	ready byTime // Shares that wait and may have a place
	used  int64  // what the Share had used that got the last place
	admin Share
	other Share
	clock func() int64 // nanoseconds
}

// Share is what one VM has: it is made by Scheduler.Share, once.
type Share struct {
	sched   *Scheduler
	exempt  bool
	running atomic.Int32 // places that it has
	time    atomic.Int64 // that it has used

	// Scheduler.mu guards these.
	first, last *Place // that wait
	key         int64  // time, as the heap has it
	at          int    // where in the heap; -1: not in it
}

// New makes a Scheduler with a place for each CPU that Go uses.
func New() *Scheduler { return newScheduler(runtime.GOMAXPROCS(0), monotonic()) }

func newScheduler(places int, clock func() int64) *Scheduler {
	t := &Scheduler{places: int32(places), clock: clock}
	t.free.Store(t.places)
	t.admin = Share{sched: t, exempt: true, at: -1}
	t.other = Share{sched: t, at: -1}
	return t
}

// monotonic is a clock that nobody sets.
func monotonic() func() int64 {
	begin := time.Now()
	return func() int64 { return int64(time.Since(begin)) }
}

// Share makes a new one.
func (t *Scheduler) Share() *Share { return &Share{sched: t, at: -1} }

// Admin is the Share of those who never wait.
func (t *Scheduler) Admin() *Share { return &t.admin }

// Nobody is the Share of all together who have not said whose they are.
func (t *Scheduler) Nobody() *Share { return &t.other }

// Stats count since the start.
type Stats struct {
	Waits int64 // for a place
	Late  int64 // of them, those that were given up after Longest
}

// Stats is what was counted.
func (t *Scheduler) Stats() Stats { return Stats{Waits: t.waits.Load(), Late: t.late.Load()} }

// Place is the right of one goroutine to work for a Share. The zero Place holds
// nothing.
type Place struct {
	share   *Share // whose place it holds; nil: none
	since   int64  // when it got it; 0: nobody else was at work
	next    *Place
	granted chan struct{} // made at the first wait
}

// Held says whether p holds a place.
func (p *Place) Held() bool { return p.share != nil }

// Try takes a place of s if one is free at once. p holds none.
func (p *Place) Try(s *Share) bool {
	t := s.sched
	if t.newest.Load() == s && t.queued.Load() == 0 && s.running.Load() < max(1, t.places-1) && !s.exempt && t.grab() {
		p.hold(s, 0) // the clock matters to nobody
		return true
	}
	now := t.clock()
	t.saw(s, now)
	if !s.exempt && (t.queued.Load() > 0 || s.running.Load() >= t.most(now) || !t.grab()) {
		return false
	}
	p.hold(s, now)
	return true
}

// Take takes a place of s, and waits for it, but no longer than Longest; false: it
// has none. A place that p holds already is given back first.
func (p *Place) Take(s *Share) bool {
	p.Give()
	if p.Try(s) {
		return true
	}
	t := s.sched
	if p.granted == nil {
		p.granted = make(chan struct{}, 1)
	}
	t.mu.Lock()
	s.push(p)
	t.dispatch()
	t.mu.Unlock()
	select {
	case <-p.granted:
		return true
	default:
	}
	t.waits.Add(1)
	limit := time.NewTimer(Longest)
	defer limit.Stop()
	select {
	case <-p.granted:
		return true
	case <-limit.C:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.drop(p) {
		t.late.Add(1)
		return false
	}
	<-p.granted // it came just now
	return true
}

// Give gives the place back, if p holds one.
func (p *Place) Give() {
	s := p.share
	if s == nil {
		return
	}
	p.share = nil
	if s.exempt {
		return
	}
	t := s.sched
	if p.since != 0 {
		s.time.Add(t.clock() - p.since)
	}
	s.running.Add(-1)
	t.free.Add(1)
	if t.queued.Load() > 0 {
		t.mu.Lock()
		s.fix()
		t.dispatch()
		t.mu.Unlock()
	}
}

// Over says whether p is to be given back, as others wait and it was held for Slice.
func (p *Place) Over() bool {
	s := p.share
	if s == nil || s.sched.queued.Load() == 0 || s.exempt {
		return false
	}
	now := s.sched.clock()
	if p.since == 0 {
		p.since = now
	}
	return now-p.since >= int64(Slice)
}

func (p *Place) hold(s *Share, now int64) {
	p.share, p.since = s, now
	if !s.exempt {
		s.running.Add(1)
	}
}

// saw notes who is at work. It writes seldom.
func (t *Scheduler) saw(s *Share, now int64) {
	if t.newest.Load() != s {
		if t.newest.Swap(s) != nil && now-t.last.Load() <= int64(sharedFor) {
			t.shared.Store(now)
		}
	}
	if now-t.last.Load() > int64(time.Millisecond) {
		t.last.Store(now)
	}
}

// most is how many places one VM may have.
func (t *Scheduler) most(now int64) int32 {
	if last := t.shared.Load(); last == 0 || now-last > int64(sharedFor) {
		return t.places
	}
	return max(1, t.places-1)
}

// grab takes one of the free places.
func (t *Scheduler) grab() bool {
	for {
		n := t.free.Load()
		if n <= 0 {
			return false
		}
		if t.free.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// dispatch gives what is free to who waits. t.mu is held.
func (t *Scheduler) dispatch() {
	now := t.clock()
	most := t.most(now)
	for len(t.ready) > 0 {
		s := t.ready[0]
		if s.running.Load() >= most {
			heap.Pop(&t.ready) // it comes back when it gives a place back
			continue
		}
		if !t.grab() {
			return
		}
		t.used = max(t.used, s.key)
		p := s.pop()
		p.hold(s, now)
		p.granted <- struct{}{}
	}
}

// push lets p wait for a place of s. t.mu is held.
func (s *Share) push(p *Place) {
	t := s.sched
	t.queued.Add(1)
	p.next = nil
	if s.first == nil {
		s.first = p
		used := s.time.Load()
		s.time.Add(max(used, t.used) - used) // it has not saved up what it did not use
	} else {
		s.last.next = p
	}
	s.last = p
	s.fix()
}

// pop takes the Place out that waits longest. t.mu is held.
func (s *Share) pop() *Place {
	p := s.first
	s.first, p.next = p.next, nil
	s.sched.queued.Add(-1)
	if s.first == nil {
		heap.Remove(&s.sched.ready, s.at)
	}
	return p
}

// drop takes p out, unless it does not wait any more. t.mu is held.
func (s *Share) drop(p *Place) bool {
	for at, before := &s.first, (*Place)(nil); *at != nil; at, before = &(*at).next, *at {
		if *at != p {
			continue
		}
		*at, p.next = p.next, nil
		if s.last == p {
			s.last = before
		}
		s.sched.queued.Add(-1)
		if s.first == nil && s.at >= 0 {
			heap.Remove(&s.sched.ready, s.at)
		}
		return true
	}
	return false
}

// fix puts s where it belongs in the heap, if it waits. t.mu is held.
func (s *Share) fix() {
	if s.first == nil {
		return
	}
	// It does not pay for ever for what it did, nor for having been kept from the CPU
	// by other programs while it had a place.
	if used := s.time.Load(); used > s.sched.used+int64(debt) {
		s.time.Add(s.sched.used + int64(debt) - used)
	}
	s.key = s.time.Load()
	if s.at < 0 {
		heap.Push(&s.sched.ready, s)
	} else {
		heap.Fix(&s.sched.ready, s.at)
	}
}

// byTime has the Share first that has used least.
type byTime []*Share

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].key < h[j].key }

func (h byTime) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push is heap.Interface's.
func (h *byTime) Push(x any) {
	s := x.(*Share)
	s.at = len(*h)
	*h = append(*h, s)
}

// Pop is heap.Interface's.
func (h *byTime) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.at = -1
	return s
}
