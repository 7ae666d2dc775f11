// Package upstream shows a metadata service that is already there, SmartOS's or
// another meta9d's, as the folder of one VM: keys/, read and written through, and
// sdc/. Nothing is kept: what is walked to, opened or listed is asked for then.
//
// The service is asked by one goroutine at a time (Service.turn), since a serial
// line is one, and for a bounded time: what waits longer, and what comes within a
// moment after that, gets errs.IO with a text that names the service. No View's lock is
// held so long: a step that needs to know something is fs.Pending until then, and
// changes run in goroutines of their own, those of one open file in order.
//
// Locks: Service.turn, handle.mu and queue.mu, none taken while another is held,
// but for turn, which a change waits for with no lock.
package upstream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs/errs"
	"meta9/mdbridge/mdata"
)

// Times. A change may take as long as on a SmartOS host, which waits for its own
// tools. The connection is kept for linger after its last use: long enough for a
// listing, short enough for a guest's other programs that want the serial line.
const (
	readTime   = 5 * time.Second
	changeTime = 60 * time.Second
	listTime   = 10 * time.Second
	retryTime  = time.Second
	linger     = time.Second
)

// maxAsking is how many questions and changes wait for their turn at most, since those
// that nobody wants the answer of any more (Tflush) still do.
const maxAsking = 1024

// Service is a metadata service. Its methods may be called from any goroutine.
type Service struct {
	path  string
	ctx   context.Context // ends with Close
	close context.CancelFunc
	held  atomic.Int64  // bytes of the values of open keys
	asked atomic.Int64  // questions and changes that wait for their turn, or have it
	turn  chan struct{} // who has it may use what follows

	client *mdata.Client // nil: not connected
	idle   *time.Timer   // ends the connection
	failed error         // what the service failed with last
	retry  time.Time     // until then it is not tried again
}

// New makes the Service at path, a unix socket or a serial device. It is not
// asked for anything yet, and need not be there.
func New(path string) *Service {
	s := &Service{path: path, turn: make(chan struct{}, 1)}
	s.ctx, s.close = context.WithCancel(context.Background())
	s.idle = time.AfterFunc(linger, s.rest)
	return s
}

// Close ends the connection and what is being asked; from then on everything is
// errs.IO.
func (s *Service) Close() {
	s.close()
	s.turn <- struct{}{}
	defer s.leave()
	s.idle.Stop()
	s.hangUp()
}

// leave lets the next one have the turn.
func (s *Service) leave() { <-s.turn }

// rest ends a connection that was not used for a while; one in use is ended later.
func (s *Service) rest() {
	select {
	case s.turn <- struct{}{}:
		s.hangUp()
		s.leave()
	default:
	}
}

// hangUp ends the connection; the turn is ours.
func (s *Service) hangUp() {
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
}

// ask does something with the service when its turn comes, within the time. After a
// failure everybody gets the same answer for a moment: who lists a folder of a
// silent service would else wait once for each file.
func (s *Service) ask(limit time.Duration, do func(ctx context.Context, c *mdata.Client) error) error {
	defer s.asked.Add(-1)
	if s.asked.Add(1) > maxAsking {
		return errs.New(errs.IO, "%s: busy with %d other requests", s.path, maxAsking)
	}
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return errs.New(errs.IO, "%s: busy with other requests for %v", s.path, limit)
	}
	defer s.leave()
	if s.ctx.Err() != nil {
		return errs.New(errs.IO, "%s: not asked any more", s.path)
	}
	if time.Now().Before(s.retry) {
		return s.failed
	}
	err := s.talk(ctx, do)
	var refusal *mdata.Refusal
	if errors.As(err, &refusal) {
		return errs.New(errs.NotPermitted, "%v", refusal) // with the text for the peer
	}
	if err != nil && errs.KindOf(err) == errs.IO {
		s.hangUp()
		s.failed, s.retry = err, time.Now().Add(retryTime)
	}
	return err
}

// talk connects if need be.
func (s *Service) talk(ctx context.Context, do func(ctx context.Context, c *mdata.Client) error) error {
	if s.client == nil {
		c, err := mdata.Dial(ctx, s.path)
		if err != nil {
			return err
		}
		s.client = c
	}
	defer s.idle.Reset(linger)
	return do(ctx, s.client)
}

// get is the value of a key. errs.NotFound: there is none.
func (s *Service) get(key string) (value []byte, err error) {
	err = s.ask(readTime, func(ctx context.Context, c *mdata.Client) error {
		value, err = c.Get(ctx, key)
		return err
	})
	return value, err
}

// put gives the key a value.
func (s *Service) put(key string, value []byte) error {
	return s.ask(changeTime, func(ctx context.Context, c *mdata.Client) error {
		return c.Put(ctx, key, value)
	})
}

// remove deletes the key. errs.NotFound: there is none.
func (s *Service) remove(key string) error {
	return s.ask(changeTime, func(ctx context.Context, c *mdata.Client) error {
		if _, err := c.Get(ctx, key); err != nil {
			return err
		}
		return c.Delete(ctx, key)
	})
}

// change makes a new value of the old one, if there is one.
func (s *Service) change(key string, f func(old []byte) ([]byte, error)) error {
	return s.ask(changeTime, func(ctx context.Context, c *mdata.Client) error {
		value, err := c.Get(ctx, key)
		if err == nil {
			value, err = f(value)
		}
		if err != nil {
			return err
		}
		return c.Put(ctx, key, value)
	})
}

// lengths are the lengths of the values of all keys, or of the given ones that
// are there.
func (s *Service) lengths(keys []string) (lengths map[string]int, err error) {
	lengths = map[string]int{}
	err = s.ask(listTime, func(ctx context.Context, c *mdata.Client) (err error) {
		if keys == nil {
			if keys, err = c.Keys(ctx); err != nil {
				return err
			}
		}
		for _, key := range keys {
			value, err := c.Get(ctx, key)
			var refusal *mdata.Refusal
			switch {
			case err == nil:
				lengths[key] = len(value)
			case !errors.Is(err, errs.NotFound) && !errors.As(err, &refusal):
				return err
			}
		}
		return nil
	})
	return lengths, err
}

// queue runs jobs one after the other, in a goroutine while there are any.
type queue struct {
	mu      sync.Mutex
	jobs    []func()
	running bool
}

// add adds a job, and sees to it that somebody runs it.
func (q *queue) add(job func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(q.jobs, job)
	if !q.running {
		q.running = true
		go q.run()
	}
}

// run runs jobs until there are none, with no lock held.
func (q *queue) run() {
	for {
		q.mu.Lock()
		if len(q.jobs) == 0 {
			q.running = false
			q.mu.Unlock()
			return
		}
		job := q.jobs[0]
		q.jobs = q.jobs[1:]
		q.mu.Unlock()
		job()
	}
}
