package server

import (
	"container/list"
	"time"

	"meta9/fs/store"
	"meta9/fs/vm"
)

// window: of similar events within this time the first is written at once, and of the
// others only the last, at the end of the window (section 2.5).
const window = time.Second

// maxLimited bounds how many kinds of similar events are remembered. Events of further
// kinds are written at once.
const maxLimited = 8192

// similar is what similar events have in common.
type similar struct {
	t     *eventType
	vm    string
	space vm.Space
	key   string
}

// limiter holds back similar events of one connection.
type limiter struct {
	kinds map[similar]*list.Element
	sent  *list.List // of *kind, in the order in which they were last told
}

// kind is one kind of similar events.
type kind struct {
	similar
	at   time.Time    // when the last was told
	held *store.Event // the newest since; nil: there was none
}

func newLimiter() limiter {
	return limiter{kinds: make(map[similar]*list.Element), sent: list.New()}
}

// add appends the event, or holds it back and drops the one that was held back before.
func (l *limiter) add(b []byte, e *store.Event, now time.Time) []byte {
	t := ofStore[e.Type]
	switch {
	case t == nil:
		return b
	case t == vmDeleted:
		l.dropVM(e.VM)
	}
	if !t.limited {
		return appendEvent(b, t, e.Date, dataOf(t, e))
	}
	s := similar{t: t, vm: e.VM}
	if t == metadataChanged {
		s.space, s.key = e.Space, e.Key
	}
	if el := l.kinds[s]; el != nil {
		held := *e
		el.Value.(*kind).held = &held
		return b
	}
	if len(l.kinds) < maxLimited {
		l.kinds[s] = l.sent.PushBack(&kind{similar: s, at: now})
	}
	return appendEvent(b, t, e.Date, dataOf(t, e))
}

// expire appends the events that were held back for a window.
func (l *limiter) expire(b []byte, now time.Time) []byte {
	for el := l.sent.Front(); el != nil; el = l.sent.Front() {
		k := el.Value.(*kind)
		switch {
		case now.Sub(k.at) < window:
			return b
		case k.held == nil:
			l.drop(el)
			continue
		}
		b = appendEvent(b, k.t, k.held.Date, dataOf(k.t, k.held))
		k.held, k.at = nil, now
		l.sent.MoveToBack(el)
	}
	return b
}

// flush appends all that is held back, and forgets what there was.
func (l *limiter) flush(b []byte) []byte {
	for el := l.sent.Front(); el != nil; el = el.Next() {
		if k := el.Value.(*kind); k.held != nil {
			b = appendEvent(b, k.t, k.held.Date, dataOf(k.t, k.held))
		}
	}
	*l = newLimiter()
	return b
}

// due is the time until the oldest kind's window ends; 0: there is none.
func (l *limiter) due(now time.Time) time.Duration {
	el := l.sent.Front()
	if el == nil {
		return 0
	}
	return max(el.Value.(*kind).at.Add(window).Sub(now), 1)
}

// dropVM drops the events of a VM that are held back: after its deletion none may come.
func (l *limiter) dropVM(vm string) {
	for el := l.sent.Front(); el != nil; {
		next := el.Next()
		if el.Value.(*kind).vm == vm {
			l.drop(el)
		}
		el = next
	}
}

// drop forgets a kind.
func (l *limiter) drop(el *list.Element) {
	delete(l.kinds, el.Value.(*kind).similar)
	l.sent.Remove(el)
}
