package server

import (
	"sort"
	"sync"
)

// feed keeps the newest lines, for all listeners alike. The committer adds to it
// and never waits for anybody who reads.
type feed struct {
	limits Limits
	kick   chan struct{} // there is something new to wake for

	mu        sync.Mutex
	lines     []*line // oldest first
	dropped   uint64  // a listener that has nothing newer than this has lost something
	last      uint64  // the newest revision
	bytes     int64   // of lines
	held      int64   // of lines that are gone but that somebody is still taking
	changed   chan struct{}
	listeners map[*listener]struct{}
	count     Stats
}

// newFeed begins after the revision rev.
func newFeed(l Limits, rev uint64) *feed {
	return &feed{
		limits: l, dropped: rev, last: rev, listeners: make(map[*listener]struct{}),
		changed: make(chan struct{}), kick: make(chan struct{}, 1),
	}
}

// add takes in the newest line. It lets go of the oldest where there are too many,
// but never of the one that it has just taken.
func (f *feed) add(l *line) {
	l.size = l.cost()
	f.mu.Lock()
	f.lines = append(f.lines, l)
	f.last = l.rev
	f.bytes += l.size
	f.count.Events++
	for len(f.lines) > 1 && (len(f.lines) > f.limits.Events || f.bytes > f.limits.Bytes) {
		f.evict()
	}
	f.mu.Unlock()
	select {
	case f.kick <- struct{}{}:
	default: // it is known already that there is something
	}
}

// evict lets go of the oldest line; mu is held.
func (f *feed) evict() {
	l := f.lines[0]
	f.lines[0] = nil
	f.lines = f.lines[1:]
	f.bytes -= l.size
	f.dropped = l.rev
	l.gone = true
	if l.users > 0 {
		f.held += l.size
	}
}

// wakeAll wakes the listeners each time that something was added, until stop: so
// that the committer need not. Lines that come meanwhile are woken for together.
func (f *feed) wakeAll(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-f.kick:
		}
		f.mu.Lock()
		close(f.changed)
		f.changed = make(chan struct{})
		slow := f.slow()
		f.mu.Unlock()
		for _, li := range slow {
			li.cut()
		}
	}
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

// keeps tells whether a listener that has all up to rev can go on from there: it
// has missed nothing, and rev is not from another time.
func (f *feed) keeps(rev, newest uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return rev >= f.dropped && rev <= max(newest, f.last)
}

// next is the line after what the listener has, which it holds until it asks
// again. lost: it has fallen behind what is kept. Where there is none yet, changed
// is closed when there may be.
func (f *feed) next(li *listener) (l *line, lost bool, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(li)
	if li.rev < f.dropped {
		return nil, true, nil
	}
	i := sort.Search(len(f.lines), func(i int) bool { return f.lines[i].rev > li.rev })
	if i == len(f.lines) {
		return nil, false, f.changed
	}
	l = f.lines[i]
	l.users++
	li.line, li.rev = l, l.rev
	return l, false, nil
}

func (f *feed) stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.count
	st.Listeners = len(f.listeners)
	return st
}
