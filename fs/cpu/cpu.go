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
//   - While more than one VM is at work, a VM has no more than its part of the CPUs' time:
//     a quarter, or half a CPU where that is more. Whoever is past it by more than burst
//     rests until it is not, and at most for longestRest. Places alone would let one VM keep
//     all CPUs but one busy, and its guest the other: the kernel would have none for the
//     thread that a request of another VM wakes.
//   - Meanwhile Go runs some threads more than there are CPUs (LendThreads).
//   - The admin never waits, but for those of his who follow events: together they are as
//     one VM. What must not wait is counted all the same (Force), and waits for no longer
//     than longestRest where there is too much of it (TakeOrForce).
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
// Scheduler.mu is held for moments and over nothing but threads.mu.
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

	// burst is how far beyond its part of the CPUs a VM may be before it rests, rest for
	// how long it does so at least, and longestRest at most.
	burst       = 10 * time.Millisecond
	rest        = time.Millisecond
	longestRest = 500 * time.Millisecond
)

// Scheduler has the places of one daemon.
type Scheduler struct {
	places   int32
	part     float64 // of a CPU's time that a VM has while it is not alone
	free     atomic.Int32
	queued   atomic.Int32          // len(ready)
	waits    atomic.Int64          // Takes that waited
	late     atomic.Int64          // those that did so in vain
	rested   atomic.Int64          // rests of VMs
	newest   atomic.Pointer[Share] // who has worked last
	newestAt atomic.Int64          // when newest came, to a millisecond
	sharedAt atomic.Int64          // when a second Share came within sharedFor of another; 0: long ago

	mu      sync.Mutex
	threads threads
	ready   byTime // Shares of which a Place waits, and which may have one more
	used    int64  // what the Share had used that got the last place
	admin   Share
	follow  Share
	other   Share
	clock   func() int64 // nanoseconds
}

// Share is what one VM has: it is made by Scheduler.Share, once.
type Share struct {
	sched     *Scheduler
	exempt    bool
	running   atomic.Int32 // places that it has
	waiting   atomic.Int32 // Places that wait
	time      atomic.Int64 // that it has used
	owesUntil atomic.Int64 // the time, by the clock, until which its part pays for what it has used; mostly ahead

	// Scheduler.mu guards these.
	first, last *Place // that wait
	key         int64  // time, as the heap has it
	at          int    // where in the heap; -1: not in it
	rests       bool   // until its timer ends that
}

// cpus is how many CPUs Go uses at first.
var cpus = runtime.GOMAXPROCS(0)

// New makes a Scheduler with a place for each CPU.
func New() *Scheduler { return newScheduler(cpus, monotonic()) }

func newScheduler(places int, clock func() int64) *Scheduler {
	t := &Scheduler{places: int32(places), part: max(float64(places)/4, 0.5), clock: clock}
	t.free.Store(t.places)
	t.admin = Share{sched: t, exempt: true, at: -1}
	t.follow = Share{sched: t, at: -1}
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

// Followers is the Share of all together who have the admin's rights and follow events:
// each change wakes all of them.
func (t *Scheduler) Followers() *Share { return &t.follow }

// Nobody is the Share of all together who have not said whose they are.
func (t *Scheduler) Nobody() *Share { return &t.other }

// Stats count since the start.
type Stats struct {
	Waits int64 // for a place
	Late  int64 // of them, those that were given up after Longest
	Rests int64 // how often a VM was made to rest
}

// Stats is what was counted.
func (t *Scheduler) Stats() Stats {
	return Stats{Waits: t.waits.Load(), Late: t.late.Load(), Rests: t.rested.Load()}
}

// Place is the right of one goroutine to work for a Share. The zero Place holds
// nothing.
type Place struct {
	share   *Share // whose place it holds; nil: none
	since   int64  // when it got it; 0: nobody else was at work
	forced  bool   // it is none of the places
	next    *Place
	granted chan struct{} // made at the first wait
}

// Held says whether p holds a place.
func (p *Place) Held() bool { return p.share != nil }

// Try takes a place of s if one is free at once. p holds none.
func (p *Place) Try(s *Share) bool {
	t := s.sched
	if t.newest.Load() == s && t.sharedAt.Load() == 0 && (s.exempt || s.waiting.Load() == 0 && t.takeFree()) {
		p.hold(s, 0) // the clock matters to nobody
		return true
	}
	now := t.clock()
	t.note(s, now)
	if !s.exempt && (t.queued.Load() > 0 || s.waiting.Load() > 0 || s.running.Load() >= t.most(now) || s.restFor(now) > 0 || !t.takeFree()) {
		return false
	}
	p.hold(s, now)
	return true
}

// Force takes a place that is none of the others, for what must not wait: it counts as
// one that s has, and so does its time. p holds none.
func (p *Place) Force(s *Share) {
	if p.Try(s) {
		return
	}
	p.forced = true
	p.hold(s, s.sched.clock())
}

// TakeOrForce is Force for who has had a place for long, or who is to rest: it waits for a
// place of s before, but no longer than longestRest. A place that p holds already is given
// back first.
func (p *Place) TakeOrForce(s *Share) {
	if !p.take(s, longestRest) {
		p.Force(s)
	}
}

// Take takes a place of s, and waits for it, but no longer than Longest; false: it
// has none. A place that p holds already is given back first.
func (p *Place) Take(s *Share) bool {
	ok := p.take(s, Longest)
	if !ok {
		s.sched.late.Add(1)
	}
	return ok
}

// take is Take for so long.
func (p *Place) take(s *Share, long time.Duration) bool {
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
	limit := time.NewTimer(long)
	defer limit.Stop()
	select {
	case <-p.granted:
		return true
	case <-limit.C:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.drop(p) {
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
		s.spent(p.since, t.clock())
	}
	s.running.Add(-1)
	if !p.forced {
		t.free.Add(1)
	}
	p.forced = false
	if t.queued.Load() > 0 || s.waiting.Load() > 0 {
		t.mu.Lock()
		s.reorder()
		t.dispatch()
		t.mu.Unlock()
	}
}

// Over says whether p is to be given back: it was held for Slice, and others wait, or
// its VM is to rest.
func (p *Place) Over() bool {
	s := p.share
	if s == nil || s.exempt {
		return false
	}
	waited := s.sched.queued.Load() > 0 || s.waiting.Load() > 0
	if !waited && p.since == 0 {
		return false
	}
	now := s.sched.clock()
	if p.since == 0 {
		p.since = now
	}
	return now-p.since >= int64(Slice) && (waited || s.restFor(now) > 0)
}

// spent counts the time from since to now.
func (s *Share) spent(since, now int64) {
	s.time.Add(now - since)
	s.bill(since, now, s.sched.part)
}

// bill counts the time from since to now of something of which s has that part.
func (s *Share) bill(since, now int64, part float64) {
	for {
		old := s.owesUntil.Load()
		paid := max(old, since) + int64(float64(now-since)/part)
		if s.owesUntil.CompareAndSwap(old, min(paid, now+int64(burst+longestRest))) {
			return
		}
	}
}

// Spend counts time of a CPU that was used for s without a place, if others were at work.
func (s *Share) Spend(took time.Duration) { s.Charge(took, s.sched.part) }

// Pay is Spend for what is done without a place, as often as a peer likes: who calls it waits
// while s has to rest, at most longestRest.
func (s *Share) Pay(took time.Duration) {
	s.Spend(took)
	if long := s.Rest(); long > 0 {
		time.Sleep(min(long, longestRest))
	}
}

// Charge counts something else that took time for s while others were at work, of which
// a VM has that part.
func (s *Share) Charge(took time.Duration, part float64) {
	if s.exempt {
		return
	}
	if now := s.sched.clock(); !s.sched.alone(now) {
		s.bill(now-int64(took), now, part)
	}
}

// Rest is for how long nothing more is to be done for s; 0: it need not wait.
func (s *Share) Rest() time.Duration {
	if s.exempt {
		return 0
	}
	return time.Duration(s.restFor(s.sched.clock()))
}

// restFor is for how long s is to rest, if it is not alone; 0: it need not.
func (s *Share) restFor(now int64) int64 {
	long := s.owesUntil.Load() - now - int64(burst)
	if long <= 0 || s.sched.alone(now) {
		return 0
	}
	return long + int64(rest)
}

func (p *Place) hold(s *Share, now int64) {
	p.share, p.since = s, now
	if !s.exempt {
		s.running.Add(1)
	}
}

// note keeps who is at work. It writes seldom.
func (t *Scheduler) note(s *Share, now int64) {
	if t.newest.Load() != s {
		if t.newest.Swap(s) != nil && now-t.newestAt.Load() <= int64(sharedFor) {
			t.sharedAt.Store(now)
		}
	}
	if now-t.newestAt.Load() > int64(time.Millisecond) {
		t.newestAt.Store(now)
	}
}

// most is how many places one VM may have.
func (t *Scheduler) most(now int64) int32 {
	if t.alone(now) {
		return t.places
	}
	return max(1, t.places-1)
}

// alone says whether no more than one VM is at work.
func (t *Scheduler) alone(now int64) bool {
	last := t.sharedAt.Load()
	if last != 0 && now-last > int64(sharedFor) {
		t.sharedAt.CompareAndSwap(last, 0)
		return true
	}
	return last == 0
}

// takeFree takes one of the free places.
func (t *Scheduler) takeFree() bool {
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
		if long := s.restFor(now); long > 0 {
			heap.Pop(&t.ready)
			s.rests = true
			t.rested.Add(1)
			t.threads.lend()
			time.AfterFunc(time.Duration(long), s.rested)
			continue
		}
		if !t.takeFree() {
			return
		}
		t.used = max(t.used, s.key)
		p := s.pop()
		p.hold(s, now)
		p.granted <- struct{}{}
	}
}
