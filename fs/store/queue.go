package store

import (
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs/errs"
)

// queue is where intents wait for the committer to see them. It has no bound of
// its own: who submits has (256 waiting requests a connection).
type queue struct {
	mu     sync.Mutex
	some   sync.Cond // on mu: intents are waiting, or closed
	fresh  chain
	refuse error // why nothing more is taken; nil: open
	closed bool
	rested bool // wait is over

	seq atomic.Uint64 // of the newest intent; written under mu
}

// chain is a list of intents, linked by Intent.next.
type chain struct{ first, last *Intent }

func (c *chain) push(in *Intent) {
	if c.first == nil {
		c.first = in
	} else {
		c.last.next = in
	}
	c.last = in
}

func (c *chain) pop() *Intent {
	in := c.first
	c.first, in.next = in.next, nil
	return in
}

func (in *Intent) done(r Result) {
	if in.Done != nil {
		in.Done(r)
	}
}

// put takes an intent, or gives the reason why not.
func (q *queue) put(in *Intent) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.refuse != nil {
		return q.refuse
	}
	in.seq = q.seq.Add(1)
	if in.Kind == dropHold {
		in.Hold.setDropped(in.seq)
	}
	if q.fresh.first == nil {
		q.some.Signal()
	}
	q.fresh.push(in)
	return nil
}

// take empties the queue. Unless the committer is busy with others, it waits
// until there is something, or the queue is closed.
func (q *queue) take(busy bool) chain {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.fresh.first == nil && !q.closed && !busy {
		q.some.Wait()
	}
	fresh := q.fresh
	q.fresh = chain{}
	return fresh
}

// ended says whether nothing more comes.
func (q *queue) ended() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// wait waits until there is something, or the queue is closed, but no longer than long.
func (q *queue) wait(long time.Duration) {
	timer := time.AfterFunc(long, q.wake)
	defer timer.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.fresh.first == nil && !q.closed && !q.rested {
		q.some.Wait()
	}
	q.rested = false
}

// wake ends wait, or the next one.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rested = true
	q.some.Signal()
}

// fail refuses what comes from now on.
func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.refuse = err
}

var errClosed = errs.New(errs.IO, "the store is closed")

// close refuses what comes from now on and lets take return.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.refuse == nil {
		q.refuse = errClosed
	}
	q.closed = true
	q.some.Signal()
}
