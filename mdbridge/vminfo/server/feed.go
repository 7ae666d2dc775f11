package server

import (
	"slices"
	"sort"
	"sync"
	"time"
)

// The share of the feed that one VM may use, so that its changes do not push out those
// of others. Paces are in bytes a second.
const (
	vmShare   = 16 // of the lines, and of the bytes of their texts: one part in so many
	vmKept    = 8  // the same, of the bytes that its lines keep alive
	vmPace    = 32 << 20
	vmBurst   = 500 * time.Millisecond // of vmPace, at once
	vmLongest = time.Minute            // that a change may stay pending
	allPace   = 64 << 20               // of all VMs together; the busy ones share it
	allBurst  = time.Second            // of allPace, at once
	busyAgain = 100 * time.Millisecond // how often the busy VMs are counted again
)

// slack: a full feed is made smaller by one part in so many, not line by line.
const slack = 16

// feed keeps the newest lines, for all listeners alike. The committer adds to it
// and never waits for a reader.
//
// A VM has a chain of lines. A line is published at once, or it is pending: then the VM's
// next changes are joined to it. It is pending when its VM changes faster than vmPace (of
// a large text, which is made for each listener, once for each), or faster than its part
// of allPace when many VMs do so; and a large line also while others are pending. A small
// change of a VM that changes seldom never waits. Where a chain has more than its share,
// its two oldest lines become one; where all are more than the feed may hold, so do those
// of the VMs that have most. Only when every VM has one line is the oldest dropped.
type feed struct {
	limits Limits
	kick   chan struct{} // a line was published or is pending
	now    func() time.Time

	mu        sync.Mutex
	lines     []*line // by seq
	seq       uint64  // of the newest
	last      uint64  // the revision of the newest
	chains    map[uint64]*chain
	waiting   map[*chain]struct{} // chains with a pending line
	busy      map[*chain]struct{} // chains that are past their pace, and some that were a moment ago
	counted   time.Time           // when chains that are not busy any more were removed
	paidUntil time.Time           // as chain.paidUntil, for all VMs together
	bytes     int64               // of lines
	held      int64               // of removed lines that some listener is still reading
	changed   chan struct{}
	listeners map[*listener]struct{}
	count     Stats

	// A listener that has nothing newer than these has missed a line.
	droppedRev, droppedSeq uint64
}

// chain is the lines of one VM.
type chain struct {
	lines        []*line   // oldest first
	bytes        int64     // of them
	texts        int64     // of their texts, estimated
	pending      *line     // not published yet; nil: none
	pendingSince time.Time // when it became pending
	paidUntil    time.Time // until when the lines that were published are paid for, at its pace
}

// newFeed makes an empty feed that begins after revision rev.
func newFeed(l Limits, rev uint64) *feed {
	return &feed{
		limits: l, droppedRev: rev, last: rev, now: time.Now,
		chains: make(map[uint64]*chain), waiting: make(map[*chain]struct{}), busy: make(map[*chain]struct{}), listeners: make(map[*listener]struct{}),
		changed: make(chan struct{}), kick: make(chan struct{}, 1),
	}
}

// add adds the newest change.
func (f *feed) add(l *line) {
	now := f.now()
	f.mu.Lock()
	f.count.Events++
	c := f.chains[l.vm]
	if c == nil {
		c = &chain{}
		f.chains[l.vm] = c
	}
	if c.pending == nil {
		c.pendingSince = now
	} else {
		l = join(c.pending, l)
		c.pending = nil
		delete(f.waiting, c)
	}
	// A large line does not overtake those that are pending: wake publishes them in turn.
	if l.what == modified && (l.large() && len(f.waiting) > 0 || f.dueTime(c, l).After(now)) {
		c.pending = l
		f.waiting[c] = struct{}{}
	} else {
		f.publish(c, l, now)
	}
	f.mu.Unlock()
	select {
	case f.kick <- struct{}{}:
	default: // wakeAll is about to look already
	}
}

// publish puts the line at the end of the feed; mu is held. A line that was pending may
// be older than lines that were published meanwhile: then it gets the newest revision
// among those.
func (f *feed) publish(c *chain, l *line, now time.Time) {
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
	f.addSizes(c, l, 1)

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
	for c.bytes > f.limits.Bytes/vmKept && f.shrink(c) {
	}
	f.fit()
}

// addSizes adds (sign 1) or subtracts (-1) the sizes of a line of the chain; mu is held.
func (f *feed) addSizes(c *chain, l *line, sign int64) {
	f.bytes += sign * l.size
	c.bytes += sign * l.size
	c.texts += sign * l.weight
}

// indexOf is the line's index in f.lines; mu is held.
func (f *feed) indexOf(l *line) int {
	return sort.Search(len(f.lines), func(i int) bool { return f.lines[i].seq >= l.seq })
}

// replaceLine replaces the chain's line i by l; mu is held.
func (f *feed) replaceLine(c *chain, i int, l *line) {
	old := c.lines[i]
	f.lines[f.indexOf(old)] = l
	c.lines[i] = l
	f.addSizes(c, old, -1)
	f.addSizes(c, l, 1)
	f.unlink(old)
}

// remove removes the chain's line i; mu is held.
func (f *feed) remove(c *chain, i int) {
	l := c.lines[i]
	at := f.indexOf(l)
	f.lines = slices.Delete(f.lines, at, at+1)
	c.lines = slices.Delete(c.lines, i, i+1)
	f.addSizes(c, l, -1)
	f.unlink(l)
}

// coalesce joins the chain's two oldest lines. It leaves out the line of the VM's
// creation, which a listener must get once and before the others. False: no more than
// keep lines are left to join. mu is held.
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
	f.replaceLine(c, i, l)
	f.advanceCreation(c)
	return true
}

// advanceCreation makes the line of the VM's creation tell a later state of the VM, where
// the first state is in memory only for that line; mu is held.
func (f *feed) advanceCreation(c *chain) {
	if len(c.lines) < 2 || c.lines[0].what != created {
		return
	}
	switch l, next := c.lines[0], c.lines[1]; {
	case next.what == deleted:
		l = l.retold(l.to)
		l.size += l.to.Size()
		f.replaceLine(c, 0, l)
	case next.from == nil && next.to != l.to:
		f.replaceLine(c, 0, l.retold(next.to))
	}
}

// shrink makes the chain smaller: it joins old lines, then lets lines go without the
// state of the VM before them. False: it cannot be smaller. mu is held.
func (f *feed) shrink(c *chain) bool {
	if f.coalesce(c, 2) {
		return true
	}
	for i, l := range c.lines {
		if l.from == nil && l.size == lineBytes || l.what == created && l.size == lineBytes {
			continue
		}
		if l.what == created && len(c.lines) > 1 && c.lines[1].what == deleted {
			f.remove(c, 0) // a listener may get a deletion of a VM that it never had
			return true
		}
		f.replaceLine(c, i, l.retold(l.to))
		f.advanceCreation(c)
		return true
	}
	return f.coalesce(c, 1)
}

// fit makes a feed that is over its limits smaller, by slack more than it must, so that
// not each line costs this work. The VMs that have most lose first. mu is held.
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
			for c.bytes > level && f.shrink(c) {
			}
		}
	}
	for len(f.lines) > 1 && (len(f.lines) > events || f.bytes > bytes) {
		f.evict()
	}
}

// level is the greatest bound on every chain with which all chains together have at most
// total; mu is held.
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

// evict drops the oldest line; mu is held.
func (f *feed) evict() {
	l := f.lines[0]
	c := f.chains[l.vm]
	f.lines[0] = nil
	f.lines = f.lines[1:]
	c.lines = slices.Delete(c.lines, 0, 1)
	f.addSizes(c, l, -1)
	f.unlink(l)
	if len(c.lines) == 0 && c.pending == nil {
		delete(f.chains, l.vm)
		delete(f.busy, c)
	}
	rev := l.rev
	if l.late {
		rev++ // a listener that has all up to l.rev may not have this line
	}
	f.droppedRev, f.droppedSeq = max(f.droppedRev, rev), l.seq
}

// unlink marks a line that was removed from the feed; mu is held.
func (f *feed) unlink(l *line) {
	l.gone = true
	if l.users > 0 {
		f.held += l.size
	}
}

// wakeAll publishes pending lines when they are due and wakes the listeners, until stop.
// It runs in a goroutine of its own, so that the committer need not do it; one wake is
// for all lines that came since the last.
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

// wake publishes what is due and wakes all listeners. It returns the listeners that are
// too slow, and how long it is until the next pending line is due.
func (f *feed) wake(now time.Time) (slow []*listener, next time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next = f.publishDue(now)
	close(f.changed)
	f.changed = make(chan struct{})
	return f.slow(), next
}

// slow are the listeners that are still reading removed lines, when those lines use more
// memory than the feed may; mu is held.
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

// addListener adds a listener; false: there are too many.
func (f *feed) addListener(li *listener) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.listeners) >= f.limits.Listeners {
		return false
	}
	f.listeners[li] = struct{}{}
	return true
}

// removeListener removes a listener.
func (f *feed) removeListener(li *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(li)
	delete(f.listeners, li)
	if li.dropped {
		f.count.Dropped++
	}
}

// release ends the listener's use of its line; mu is held.
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

// addText adds the n bytes of a text that was made for the line to the line's size.
func (f *feed) addText(l *line, n int) {
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
	f.addSizes(c, l, -1)
	l.size += int64(n)
	f.addSizes(c, l, 1)
	f.fit()
}

// canResume tells whether a listener that has all up to rev can go on from there: every
// line after rev is still in the feed, and rev is not in the future.
func (f *feed) canResume(rev, newest uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return rev >= f.droppedRev && rev <= max(newest, f.last)
}

// startHere sets the listener's place to the end of the feed. The caller takes the
// snapshot after it, so that the snapshot has all lines up to here.
func (f *feed) startHere(li *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	li.seq = f.seq
}

// next returns the line after the last one that the listener had, and keeps it alive until
// the next call. inside: the listener may have, from its snapshot or from another line, a
// state of the VM between the line's first change and its last. lost: the line was dropped
// from the feed. Where there is no line yet, changed is closed when there may be one.
func (f *feed) next(li *listener) (l *line, inside, lost bool, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(li)
	if li.rev < f.droppedRev && li.seq < f.droppedSeq {
		return nil, false, true, nil
	}
	i := sort.Search(len(f.lines), func(i int) bool { return f.lines[i].seq > li.seq && !f.lines[i].coveredBy(li.entry) })
	if i > 0 {
		li.seq = max(li.seq, f.lines[i-1].seq)
	}
	if i == len(f.lines) {
		return nil, false, false, f.changed
	}
	l = f.lines[i]
	inside = l.first <= li.entry || l.middle != 0 && li.seq >= l.middle
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
