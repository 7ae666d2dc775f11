package server

import (
	"slices"
	"sort"
	"sync"
	"time"
)

// What one VM may have of the feed, so that no VM's changes push out those of others.
const (
	vmShare   = 16 // of the lines, and of the bytes of their texts: one part in so many
	vmKept    = 2  // the same, of the bytes that its lines keep alive
	vmPace    = 32 << 20
	vmBurst   = 500 * time.Millisecond // of vmPace, at once
	vmLongest = time.Minute            // that a change waits to be told
	allPace   = 64 << 20               // of all VMs together: those that change a lot share it
	allBurst  = time.Second            // of allPace, at once
	busyAgain = 100 * time.Millisecond // how often it is counted anew who changes a lot
)

// slack is which part of the feed is given up at a time.
const slack = 16

// feed keeps the newest lines, for all listeners alike. The committer adds to it
// and never waits for anybody who reads.
//
// A VM has a chain of lines. One that changes faster than its texts can be told
// (vmPace bytes a second, for each listener where the text is not shared; less where many
// do so, who share allPace) has a line that waits, which takes in what comes after it. So
// has one whose text is large, while those of others are more than can be told. A small
// change of a VM that changes seldom waits for nobody. Where a VM's lines are more than its
// share, its two oldest become one; where they are more than there is room for in all,
// those of the VMs that have most. Only when every VM has one line is the oldest
// dropped.
type feed struct {
	limits Limits
	kick   chan struct{} // there is something new to wake for, or that waits
	now    func() time.Time

	mu        sync.Mutex
	lines     []*line // by seq
	seq       uint64  // of the newest
	last      uint64  // the revision of the newest
	chains    map[uint64]*chain
	waiting   map[*chain]struct{} // those that have a line that waits
	busy      map[*chain]struct{} // those that have had more than their pace lets them, and some that had
	counted   time.Time           // when busy was looked through
	paid      time.Time           // as chain.paid, of all that was told
	bytes     int64               // of lines
	held      int64               // of lines that are gone but that somebody is still taking
	changed   chan struct{}
	listeners map[*listener]struct{}
	count     Stats

	// A listener that has nothing newer than these has lost something.
	droppedRev, droppedSeq uint64
}

// chain is what the feed has of one VM.
type chain struct {
	lines []*line   // oldest first
	bytes int64     // of them
	texts int64     // of them, as they are estimated
	waits *line     // what is not told yet; nil: nothing
	since time.Time // when that began to wait
	paid  time.Time // up to when what was told is paid for, at its pace
}

// newFeed begins after the revision rev.
func newFeed(l Limits, rev uint64) *feed {
	return &feed{
		limits: l, droppedRev: rev, last: rev, now: time.Now,
		chains: make(map[uint64]*chain), waiting: make(map[*chain]struct{}), busy: make(map[*chain]struct{}), listeners: make(map[*listener]struct{}),
		changed: make(chan struct{}), kick: make(chan struct{}, 1),
	}
}

// add takes in the newest change.
func (f *feed) add(l *line) {
	now := f.now()
	f.mu.Lock()
	f.count.Events++
	c := f.chains[l.vm]
	if c == nil {
		c = &chain{}
		f.chains[l.vm] = c
	}
	if c.waits == nil {
		c.since = now
	} else {
		l = join(c.waits, l)
		c.waits = nil
		delete(f.waiting, c)
	}
	// A large one does not go before those that wait already: wake tells them in turn.
	if l.what == modified && (l.large() && len(f.waiting) > 0 || f.due(c, l).After(now)) {
		c.waits = l
		f.waiting[c] = struct{}{}
	} else {
		f.tell(c, l, now)
	}
	f.mu.Unlock()
	select {
	case f.kick <- struct{}{}:
	default: // it is known already that there is something
	}
}

// tell puts the line at the end of the feed; mu is held. One that has waited may be
// older than what was told meanwhile: it has the revision of that.
func (f *feed) tell(c *chain, l *line, now time.Time) {
	l.late = l.rev <= f.last
	f.last = max(f.last, l.rev)
	l.rev = f.last
	f.seq++
	l.seq = f.seq
	if l.what == deleted && len(c.lines) == 0 {
		l.size = lineBytes // no line keeps the VM
	}
	f.lines = append(f.lines, l)
	c.lines = append(c.lines, l)
	f.weigh(c, l, 1)

	cost := l.weight
	if l.large() {
		cost *= int64(max(1, len(f.listeners)))
	}
	f.pay(c, cost, now)

	for len(c.lines) > f.limits.Events/vmShare || c.texts > f.limits.Bytes/vmShare {
		if !f.coalesce(c, 2) {
			break
		}
	}
	for c.bytes > f.limits.Bytes/vmKept && f.giveWay(c) {
	}
	f.fit()
}

// weigh counts a line of the chain, or (-1) no longer; mu is held.
func (f *feed) weigh(c *chain, l *line, sign int64) {
	f.bytes += sign * l.size
	c.bytes += sign * l.size
	c.texts += sign * l.weight
}

// at is where a line is in f.lines; mu is held.
func (f *feed) at(l *line) int {
	return sort.Search(len(f.lines), func(i int) bool { return f.lines[i].seq >= l.seq })
}

// swap puts another line in the place of the chain's line i; mu is held.
func (f *feed) swap(c *chain, i int, l *line) {
	old := c.lines[i]
	f.lines[f.at(old)] = l
	c.lines[i] = l
	f.weigh(c, old, -1)
	f.weigh(c, l, 1)
	f.letGo(old)
}

// remove takes the chain's line i out; mu is held.
func (f *feed) remove(c *chain, i int) {
	l := c.lines[i]
	at := f.at(l)
	f.lines = slices.Delete(f.lines, at, at+1)
	c.lines = slices.Delete(c.lines, i, i+1)
	f.weigh(c, l, -1)
	f.letGo(l)
}

// coalesce makes one of the chain's two oldest lines, but for that of the VM's creation,
// which nobody may be told twice or too late. False: there are no more than keep. mu is
// held.
func (f *feed) coalesce(c *chain, keep int) bool {
	i := 0
	if c.lines[0].what == created {
		i = 1
	}
	if len(c.lines)-i <= keep {
		return false
	}
	l := join(c.lines[i], c.lines[i+1])
	f.remove(c, i)
	f.swap(c, i, l)
	f.renew(c)
	return true
}

// renew lets the line of the VM's creation tell of the VM as it was later, where what it
// was at first lives on for that line alone; mu is held.
func (f *feed) renew(c *chain) {
	if len(c.lines) < 2 || c.lines[0].what != created {
		return
	}
	switch l, next := c.lines[0], c.lines[1]; {
	case next.what == deleted:
		l = l.telling(l.to)
		l.size += l.to.Size()
		f.swap(c, 0, l)
	case next.from == nil && next.to != l.to:
		f.swap(c, 0, l.telling(next.to))
	}
}

// giveWay makes the chain smaller: its older changes are told as one, and in the end
// without what the VM was before. False: it cannot be smaller. mu is held.
func (f *feed) giveWay(c *chain) bool {
	if f.coalesce(c, 2) {
		return true
	}
	for i, l := range c.lines {
		if l.from == nil && l.size == lineBytes || l.what == created && l.size == lineBytes {
			continue
		}
		if l.what == created && len(c.lines) > 1 && c.lines[1].what == deleted {
			f.remove(c, 0) // who did not know of it may hear of its end
			return true
		}
		f.swap(c, i, l.telling(l.to))
		f.renew(c)
		return true
	}
	return f.coalesce(c, 1)
}

// fit makes the feed as small as it is to be, and a little smaller, so that this need
// not be done for each line; mu is held. The VMs that have most give way first.
func (f *feed) fit() {
	if len(f.lines) <= f.limits.Events && f.bytes <= f.limits.Bytes {
		return
	}
	events, bytes := f.limits.Events-f.limits.Events/slack, f.limits.Bytes-f.limits.Bytes/slack
	if len(f.lines) > events {
		level := f.level(int64(events), func(c *chain) int64 { return int64(len(c.lines)) })
		for _, c := range f.chains {
			for int64(len(c.lines)) > level && f.coalesce(c, 1) {
			}
		}
	}
	if f.bytes > bytes {
		level := f.level(bytes, func(c *chain) int64 { return c.bytes })
		for _, c := range f.chains {
			for c.bytes > level && f.giveWay(c) {
			}
		}
	}
	for len(f.lines) > 1 && (len(f.lines) > events || f.bytes > bytes) {
		f.evict()
	}
}

// level is the most that each chain may have so that all have no more than total; mu is
// held.
func (f *feed) level(total int64, of func(*chain) int64) int64 {
	all := make([]int64, 0, len(f.chains))
	for _, c := range f.chains {
		all = append(all, of(c))
	}
	slices.Sort(all)
	for i, n := range all {
		if rest := int64(len(all) - i); n*rest > total {
			return total / rest
		}
		total -= n
	}
	return total
}

// evict lets go of the oldest line; mu is held.
func (f *feed) evict() {
	l := f.lines[0]
	c := f.chains[l.vm]
	f.lines[0] = nil
	f.lines = f.lines[1:]
	c.lines = slices.Delete(c.lines, 0, 1)
	f.weigh(c, l, -1)
	f.letGo(l)
	if len(c.lines) == 0 && c.waits == nil {
		delete(f.chains, l.vm)
		delete(f.busy, c)
	}
	rev := l.rev
	if l.late {
		rev++ // who has all up to that may not have this
	}
	f.droppedRev, f.droppedSeq = max(f.droppedRev, rev), l.seq
}

// letGo notes that the feed has the line no longer; mu is held.
func (f *feed) letGo(l *line) {
	l.gone = true
	if l.users > 0 {
		f.held += l.size
	}
}

// wakeAll wakes the listeners each time that something was added, or has waited long
// enough, until stop: so that the committer need not. Lines that come meanwhile are
// woken for together.
func (f *feed) wakeAll(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-f.kick:
		case <-timer.C:
		}
		slow, next := f.wake(f.now())
		for _, li := range slow {
			li.cut()
		}
		timer.Reset(next)
	}
}

// wake tells what is due and wakes all listeners. It gives those that are too slow, and
// how long it is until something else is due.
func (f *feed) wake(now time.Time) (slow []*listener, next time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next = f.tellDue(now)
	close(f.changed)
	f.changed = make(chan struct{})
	return f.slow(), next
}

// slow are the listeners that hold on to lines which are long gone, when those
// take more memory than they may; mu is held.
func (f *feed) slow() (slow []*listener) {
	if f.held <= f.limits.Bytes {
		return nil
	}
	for li := range f.listeners {
		if li.line != nil && li.line.gone {
			slow = append(slow, li)
		}
	}
	return slow
}

// enter takes a listener in; false: there are too many.
func (f *feed) enter(li *listener) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.listeners) >= f.limits.Listeners {
		return false
	}
	f.listeners[li] = struct{}{}
	return true
}

// leave forgets a listener.
func (f *feed) leave(li *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(li)
	delete(f.listeners, li)
	if li.dropped {
		f.count.Dropped++
	}
}

// release lets go of the line that the listener has taken; mu is held.
func (f *feed) release(li *listener) {
	l := li.line
	if l == nil {
		return
	}
	li.line = nil
	l.users--
	if l.gone && l.users == 0 {
		f.held -= l.size
	}
}

// keep counts n bytes of text that the line has from now on.
func (f *feed) keep(l *line, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.gone {
		l.size += int64(n)
		if l.users > 0 {
			f.held += int64(n)
		}
		return
	}
	c := f.chains[l.vm]
	f.weigh(c, l, -1)
	l.size += int64(n)
	f.weigh(c, l, 1)
	f.fit()
}

// keeps tells whether a listener that has all up to rev can go on from there: it
// has missed nothing, and rev is not from another time.
func (f *feed) keeps(rev, newest uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return rev >= f.droppedRev && rev <= max(newest, f.last)
}

// place lets the listener begin behind what was told up to now: a snapshot that is taken
// after this has it.
func (f *feed) place(li *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	li.seq = f.seq
}

// next is the line after what the listener has, which it holds until it asks
// again, and whether the listener may have what the VM was within that line. lost: it has fallen
// behind what is kept. Where there is none yet, changed is closed when there may be.
func (f *feed) next(li *listener) (l *line, inside, lost bool, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(li)
	if li.rev < f.droppedRev && li.seq < f.droppedSeq {
		return nil, false, true, nil
	}
	i := sort.Search(len(f.lines), func(i int) bool { return f.lines[i].seq > li.seq && !f.lines[i].within(li.entry) })
	if i > 0 {
		li.seq = max(li.seq, f.lines[i-1].seq)
	}
	if i == len(f.lines) {
		return nil, false, false, f.changed
	}
	l = f.lines[i]
	inside = l.first <= li.entry || l.middle != 0 && li.seq >= l.middle // or it may be
	l.users++
	li.line, li.rev, li.seq = l, l.rev, l.seq
	return l, inside, false, nil
}

func (f *feed) stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.count
	st.Listeners = len(f.listeners)
	return st
}
