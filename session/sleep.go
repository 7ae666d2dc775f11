package session

import (
	"errors"
	"os"
	"time"
)

// Half of the memory of an idle connection is the stack of its goroutine, which runs the
// loop. So a connection without a whole frame for Config.Silence ends its goroutine and
// sleeps. It does so also while requests wait for their answers, but not in the middle of
// a large frame. When input comes, the poller starts the loop again in a new goroutine.
// Only the first request after that pays for it, by one wake-up.
//
// The sweep, which looks at all connections that are awake ten times in Silence, finds
// those that should sleep. It tells a loop so by a read deadline in the past, because
// nothing else ends the loop's wait. The loop then goes to sleep by itself, even if input
// has come meanwhile: the poller notices that at once and wakes it.
//
// Server.mu is held while a connection goes to sleep, so that whoever ends all connections
// finds it either awake or asleep. Whoever wakes it first takes it out of the poller, so
// that there is only one loop.

// errAsleep ends the loop of a connection that sleeps.
var errAsleep = errors.New("asleep")

const (
	sweeps  = 10   // sweeps in a time of Config.Silence
	maxTold = 1000 // connections that one sweep sends to sleep, so that requests do not wait long for Server.mu
)

// sleeper is what a connection needs to sleep. Server.mu guards it.
type sleeper struct {
	ended  func() // called when the connection has ended; nil: it never sleeps
	asleep bool
	told   bool   // its loop was told to go to sleep
	seen   uint64 // conn.seq when the sweep looked last
	quiet  int    // sweeps since it has changed
}

// maySleep allows the connection to sleep, if it has a descriptor that can be waited for.
func (c *conn) maySleep(ended func()) {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if c.ended = ended; c.sleeps() {
		c.srv.awake++
		c.srv.armSweep()
	}
}

// sleeps tells whether the connection may sleep. Server.mu is held.
func (c *conn) sleeps() bool { return c.ended != nil && c.in.raw != nil }

// armSweep sets the timer of the next sweep, if there are connections to look at.
// Server.mu is held.
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
		return // the end of the server has set other deadlines
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

// silent tells whether no frame has come for Silence. Server.mu is held.
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

// sleep handles an error of input.fill, and returns what the loop does: nil: it goes on;
// errAsleep: it ends, because the connection sleeps now; any other error ends the
// connection.
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
	return nil // it is closed, as the next read says, or the system has no memory for it
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
