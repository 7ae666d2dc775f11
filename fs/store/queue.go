package store

import (
	"sync"
	"sync/atomic"

	"meta9/fs/errs"
)

// queue is where intents wait for the committer. It has no bound of its own: who
// submits has (256 waiting requests a connection).
type queue struct {
	mu     sync.Mutex
	some   sync.Cond // on mu: intents are waiting, or closed
	list   []*Intent
	refuse error // why nothing more is taken; nil: open
	closed bool

	seq atomic.Uint64 // of the newest intent; written under mu
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
	q.list = append(q.list, in)
	if len(q.list) == 1 {
		q.some.Signal()
	}
	return nil
}

// take appends all that waits to have and empties the queue. It blocks while
// there is nothing at all; after close it returns what is left.
func (q *queue) take(have []*Intent) []*Intent {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(have)+len(q.list) == 0 && !q.closed {
		q.some.Wait()
	}
	have = append(have, q.list...)
	clear(q.list)
	q.list = q.list[:0]
	return have
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
