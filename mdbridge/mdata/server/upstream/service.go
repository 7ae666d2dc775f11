// Package upstream shows a metadata service that is already there, SmartOS's or
// another meta9d's, as the folder of one VM: keys/, read and written through, and
// sdc/. Nothing is cached: each walk, open and listing asks the service.
//
// One goroutine at a time asks the service (Service.turn), since a serial line carries
// one request at a time, and for a bounded time: a request that waits longer, and every
// request in the second after that, gets errs.IO with a text that names the service. No
// View's lock is held so long: a step that needs an answer is fs.Pending until it has
// come, and changes run in goroutines of their own, those of one open file in order.
//
// Locks: Service.turn, handle.mu and queue.mu. None is taken while another is held.
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

// maxAsking bounds how many requests and changes wait for the turn: a request that was
// cancelled (Tflush) still waits.
const maxAsking = 1024

// Service is a metadata service. Its methods may be called from any goroutine.
type Service struct {
	path      string
	ctx       context.Context // ends with Close
	close     context.CancelFunc
	openBytes atomic.Int64  // bytes of the values of open keys
	asked     atomic.Int64  // requests and changes that wait for the turn or have it
	turn      chan struct{} // guards what follows

	client *mdata.Client // nil: not connected
	idle   *time.Timer   // ends the connection
	failed error         // the last failure
	retry  time.Time     // until then everybody gets failed
}

// New makes the Service at path, a unix socket or a serial device, which need not be
// there yet: it is dialled with the first request.
func New(path string) *Service {
	s := &Service{path: path, turn: make(chan struct{}, 1)}
	s.ctx, s.close = context.WithCancel(context.Background())
	s.idle = time.AfterFunc(linger, s.hangUpIfIdle)
	return s
}

// Close ends the connection and the request that is running. All later requests get
// errs.IO.
func (s *Service) Close() {
	s.close()
	s.turn <- struct{}{}
	defer s.endTurn()
	s.idle.Stop()
	s.hangUp()
}

// endTurn gives the turn to the next request.
func (s *Service) endTurn() { <-s.turn }

// hangUpIfIdle is called when the connection was not used for linger. When another has
// the turn now, his call sets the timer again.
func (s *Service) hangUpIfIdle() {
	select {
	case s.turn <- struct{}{}:
		s.hangUp()
		s.endTurn()
	default:
	}
}

// hangUp closes the connection. The caller has the turn.
func (s *Service) hangUp() {
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
}

// ask waits for the turn, dials if there is no connection, and calls do; all of it
// within limit. After a failure every request gets the same error for retryTime:
// otherwise a listing of a silent service would wait once for each file.
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
	defer s.endTurn()
	if s.ctx.Err() != nil {
		return errs.New(errs.IO, "%s: not asked any more", s.path)
	}
	if time.Now().Before(s.retry) {
		return s.failed
	}
	err := error(nil)
	if s.client == nil {
		s.client, err = mdata.Dial(ctx, s.path)
	}
	if err == nil {
		err = do(ctx, s.client)
		s.idle.Reset(linger)
	}
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

// get is the value of a key. errs.NotFound: there is none.
func (s *Service) get(key string) (value []byte, err error) {
	err = s.ask(readTime, func(ctx context.Context, c *mdata.Client) error {
		value, err = c.Get(ctx, key)
		return err
	})
	return value, err
}

// put sets the value of a key.
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

// change replaces the value of a key by f of it. errs.NotFound: there is none.
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

// lengths are the lengths of the values of the given keys that are there; nil: of all
// keys.
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

// add adds a job, and starts the goroutine if there is none.
func (q *queue) add(job func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(q.jobs, job)
	if !q.running {
		q.running = true
		go q.run()
	}
}

// run runs the jobs until there are none, with no lock held.
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
