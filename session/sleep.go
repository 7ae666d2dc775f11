package session

import (
	"errors"
	"os"
	"time"
)

// Half of the memory of an idle connection is the stack of its goroutine, which runs the
// loop. So a connection on which no whole frame has come for Config.Silence ends its
// goroutine and sleeps, also while requests still wait for their answers, but not in the
// middle of a large frame. When input comes, the poller starts the loop again in a new
// goroutine. Only the first request after that pays for it: one wake-up.
//
// Whose turn it is to sleep the sweep finds out, which looks at all that are awake, ten
// times in Silence. It tells a loop by a deadline that has passed, since a loop that waits
// to read has nothing else that ends its wait. The loop then goes to sleep by itself, also if
// something has come in between: the poller finds that at once, and wakes it.
//
// Server.mu is held while a connection goes to sleep, so that whoever ends all connections
// finds it either awake or asleep. Whoever wakes it takes it out of the poller first, so
// that there is one loop.

// errAsleep ends the loop of a connection that sleeps.
var errAsleep = errors.New("asleep")

const (
	sweeps  = 10   // in Config.Silence
	maxTold = 1000 // connections that one sweep sends to sleep, so that requests do not wait for that
)

// sleeper is what a connection needs to sleep. Server.mu guards it.
type sleeper struct {
	ended  func() // is called when the connection has ended; nil: it never sleeps
	asleep bool
	told   bool   // its loop is to go to sleep
	seen   uint64 // conn.seq when the sweep looked last
	quiet  int    // sweeps since it has changed
}

// maySleep lets the connection sleep, where it has a descriptor that can be waited for.
func (c *conn) maySleep(ended func()) {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if c.ended = ended; c.sleeps() {
		c.srv.awake++
		c.srv.armSweep()
	}
}

// sleeps tells a connection that may sleep. Server.mu is held.
func (c *conn) sleeps() bool { return c.ended != nil && c.in.raw != nil }

// armSweep has the next sweep come, if there is anybody to look at. Server.mu is held.
func (s *Server) armSweep() {
	if s.awake > 0 && !s.closing && !s.sweeping {
		s.sweeping = true
		if s.sweeper == nil {
			s.sweeper = time.AfterFunc(s.cfg.Silence/sweeps, s.sweep)
		} else {
			s.sweeper.Reset(s.cfg.Silence / sweeps)
		}
	}
}

// sweep tells connections that are silent to go to sleep.
func (s *Server) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweeping = false
	if s.closing {
		return // whoever closes has set deadlines of his own
	}
	told := 0
	for c := range s.conns {
		if c.sleeps() && !c.asleep && !c.told && c.silent() && told < maxTold {
			told++
			c.told = true
			_ = c.nc.SetReadDeadline(time.Unix(1, 0))
		}
	}
	s.armSweep()
}

// silent tells whether no frame has come for long. Server.mu is held.
func (c *conn) silent() bool {
	if !c.mu.TryLock() {
		c.quiet = 0
		return false
	}
	seq := c.seq
	c.mu.Unlock()
	if seq != c.seen {
		c.seen, c.quiet = seq, 0
	}
	c.quiet++
	return c.quiet > sweeps
}

// sleep is what follows an error of input.fill: errAsleep, if it says that the loop is to
// end and the connection sleeps now; nil, if the loop is to go on.
//
//go:noinline
func (c *conn) sleep(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.place.Give()
	c.in.giveBack()
	s := c.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || !c.told || c.halts.Load() {
		return err
	}
	c.told, c.quiet = false, 0
	if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if c.in.sc != nil { // a large frame is under way
		return nil
	}
	c.asleep = true
	s.awake--
	if s.sleepers.add(c) {
		return errAsleep
	}
	c.asleep = false
	s.awake++
	return nil // it is closed, as the next read says, or the system has no room for it
}

// awaken goes on with a connection that has slept, in a goroutine of its own.
func (c *conn) awaken() {
	s := c.srv
	s.mu.Lock()
	c.asleep = false
	s.awake++
	s.armSweep()
	s.mu.Unlock()
	c.over(c.loop())
}
