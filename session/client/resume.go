package client

import (
	"fmt"

	"meta9/session/greet"
)

// fits tells whether the link can go on over a transport that t has greeted.
func (l *link) fits(t *greet.Talk) bool {
	return l.lasting() && l.cause() == nil && t.Dialect == l.dialect && t.Msize == l.msize
}

// resume asks what became of the requests that have no answer, and queues those
// that are to be sent again. Nobody reads or writes meanwhile, so that they stay
// those that were sent.
func (l *link) resume(t *greet.Talk) error {
	l.mu.Lock()
	numbers := l.window.Numbers()
	l.mu.Unlock()
	states, err := t.Resume(numbers)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.window.Resumed(states) // what it drops has been flushed: the Rflush ends it
	return nil
}

// use gives the link its transport, and clunks what lost requests have left. Nobody
// reads yet.
func (l *link) use(t *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = t
	if closed(l.tired) {
		l.tired = make(chan struct{})
	}
	for _, fid := range l.fids.takeStrays(l.epoch) {
		l.clunk(fid)
	}
	l.wake()
}

// why is why the transport ended.
func (l *link) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line.err
}

// giveUp ends the requests of a link that has no transport, and refuses others
// until it has one: why is why there is none. Nobody wants their answers any more,
// so that they are flushed if the session does come back.
func (l *link) giveUp(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.line.err == nil || l.err != nil || closed(l.tired) {
		return
	}
	close(l.tired)
	for _, c := range l.calls {
		if !c.forgot && !c.over {
			l.finish(c, &lost{sent: c.Number != 0, cause: fmt.Errorf("%w: %w", ErrUnavailable, why)})
			l.flush(c)
		}
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
