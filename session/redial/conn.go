package redial

import (
	"context"
	"crypto/rand"
	"net"
	"sync"
	"time"

	"meta9/backoff"
	"meta9/session/mumble"
	"meta9/session/wire"
)

const (
	// greetTime is how long dialling may take, and each answer of the greeting.
	greetTime = 10 * time.Second

	// probeTime is how long a server may send nothing while an answer is due, before it
	// is probed. The answer may be that of a blocking read, or the server may be slow.
	probeTime = 15 * time.Second

	// silenceTime is how long a server may send nothing while an answer is due, leave a
	// frame half sent, or not read what is written to it, before the transport counts as
	// lost.
	silenceTime = 45 * time.Second

	// endTime is how long Close waits for the server to end the session.
	endTime = time.Second

	// usefulAfter is how long a transport must live to count as useful without an answer
	// to a request.
	usefulAfter = 10 * time.Second
)

// dialAgain makes the pauses between two attempts.
var dialAgain = backoff.Backoff{First: 20 * time.Millisecond, Last: 2 * time.Second}

// Terms are what a server is asked for.
type Terms struct {
	Offers []wire.Dialect // the best first
	Msize  uint32         // the largest frame in bytes
}

// Config is what New needs.
type Config struct {
	// Dial makes a transport; it is called again whenever one is lost. The transport
	// has deadlines.
	Dial func(ctx context.Context) (net.Conn, error)
	Terms
	// FixedMsize says that once a server has agreed to an msize, another one later is an
	// error: the Owner has passed the first one on to its own client.
	FixedMsize bool
	// NumberedOnly says that a session is asked for only in dialects with numbered
	// requests: the Owner has no use for a session that keeps only fids.
	NumberedOnly bool
	// FreshFrames gives each reply storage of its own; otherwise it lives until the
	// next.
	FreshFrames bool
	// Key is the session's key (MakeKey): who knows it may resume the session; all zero: none.
	Key [wire.KeyLen]byte
	// Mumble is a ready-made message to authenticate with, which has the session's key;
	// "": none. User is the uname that it is shown under.
	Mumble, User string
	Owner        Owner
}

// MakeKey makes a session's key: that of a MUMBLE message, or, for "", a random one.
func MakeKey(message string) (key [wire.KeyLen]byte, err error) {
	if message == "" {
		_, err = rand.Read(key[:])
		return key, err
	}
	m, _, err := mumble.Parse([]byte(message))
	return m.Key, err
}

// Owner is the user of a Conn. The runner calls all methods, one at a time. "The lock" is
// Conn's.
type Owner interface {
	// Lost: the session is lost, and with it the answers to the requests that were sent.
	// It removes these from the window, or queues them again (Window.Requeue). The lock
	// is held. Pass gets what it returns.
	Lost(w *Window) (pass []byte)

	// Begin makes a new session: it attaches, and restores open files (File). Nobody else
	// uses the transport. unproven is the server's refusal of Config.Mumble, or nil. After
	// an error the Conn tries another transport.
	Begin(t *Talk, unproven error) error

	// Up: there is a transport, and requests are sent on it from now on; resumed: in the
	// same session as before.
	Up(resumed bool)

	// Reply gets the reply to r, which then leaves the window. The Conn has checked the
	// tag, and that the type answers r or is an error. After Rflush the request that was
	// flushed leaves the window too. The lock is held. An error ends the transport, and
	// the reply counts as not received. Pass gets what it returns.
	Reply(r *Request, frame []byte) (pass []byte, err error)

	// Pass gets what Lost and Reply have returned, without the lock.
	Pass(frames []byte)

	// Down: the transport has ended because of why. fresh: it was useful, so that a new
	// outage begins; otherwise the outage before goes on.
	Down(why error, fresh bool)

	// Failed: an attempt to connect has failed.
	Failed(why error)
}

// Conn is a session with a server over transports that come and go, and the lock that
// guards it. The Owner may read its Window, and adds requests by Send and Flush.
type Conn struct {
	sync.Mutex // guards what follows but for cfg and what is the runner's
	Window

	dialect wire.Dialect // of the session
	msize   uint32       // the same
	kept    bool         // the server keeps it
	up      *transport   // nil: there is none
	ending  bool         // Close was called
	renew   *Terms       // of the session that shall replace this one; nil: none
	work    sync.Cond    // wakes the writer

	cfg  Config
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	done chan struct{} // closed when Run has ended

	// The runner's; Dial's before.
	first    *transport // that Dial has made
	agreed   bool       // there was a session under these terms, and so an msize
	token    uint64     // of the last resume, in a dialect with tokens
	misses   int        // resumes in a row at which a kept reply did not come
	known    bool       // the server may have the session, so it is asked for
	complete bool       // Begin has ended without an error: the server's fids are those that the Owner knows
}

// New makes a Conn. Dial comes next.
func New(cfg Config) *Conn {
	c := &Conn{cfg: cfg, done: make(chan struct{})}
	c.work.L = c
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// Dial makes the first transport and a session. It tries once; ctx bounds only this. Up is
// not called.
func (c *Conn) Dial(ctx context.Context) error {
	t, _, err := c.connect(ctx)
	if err == nil {
		c.first = t
		c.setTransport(t)
	}
	return err
}

// Run serves one transport after the other until Close, or until ctx ends.
func (c *Conn) Run(ctx context.Context) {
	defer close(c.done)
	defer context.AfterFunc(ctx, c.stop)()
	tries := 0
	for t := c.first; t != nil; t, tries = c.reconnect(tries) {
		ofUse, why := c.carry(t)
		if c.ctx.Err() != nil || c.closed() {
			return
		}
		if ofUse {
			tries = 0
		}
		if !t.ending {
			c.cfg.Owner.Down(why, tries == 0)
		}
	}
}

// reconnect pauses, longer with each attempt, and connects; nil: the Conn is closed.
func (c *Conn) reconnect(tries int) (*transport, int) {
	for ; ; tries++ {
		if !dialAgain.Wait(c.ctx, tries) {
			return nil, tries
		}
		c.applyRenew()
		t, resumed, err := c.connect(c.ctx)
		switch {
		case c.ctx.Err() != nil:
			if err == nil {
				t.nc.Close()
			}
			return nil, tries
		case err != nil:
			c.cfg.Owner.Failed(err)
			continue
		}
		c.setTransport(t)
		c.cfg.Owner.Up(resumed)
		return t, tries + 1
	}
}

// setTransport makes t the transport. Close or Renew may have been called before it.
func (c *Conn) setTransport(t *transport) {
	c.Lock()
	defer c.Unlock()
	c.up = t
	if c.renew != nil || c.ending {
		c.endSession()
	}
}

// Close ends the session and the transport. It waits up to endTime for the server to end
// the session, so that the server does not keep it parked. Call Close once.
func (c *Conn) Close() {
	c.Lock()
	c.ending = true
	t := c.up
	c.endSession()
	c.Unlock()
	if t != nil {
		<-t.ended
	}
	c.stop()
	<-c.done
}

// Abandon closes the transport of a Conn for which Run is not called.
func (c *Conn) Abandon() { c.first.nc.Close() }

func (c *Conn) closed() bool {
	c.Lock()
	defer c.Unlock()
	return c.ending
}

// Renew ends the session, forgets all its requests, and begins another under other
// terms; Begin and Up tell when, unless Renewing. The lock is held.
func (c *Conn) Renew(terms Terms) {
	c.renew = &terms
	c.endSession()
}

// Renewing tells whether Renew was called and its session is not there yet. The lock is
// held.
func (c *Conn) Renewing() bool { return c.renew != nil }

// applyRenew sets the terms of Renew, if it was called.
func (c *Conn) applyRenew() {
	c.Lock()
	defer c.Unlock()
	if c.renew != nil {
		c.cfg.Terms, c.renew = *c.renew, nil
		c.Clear()
		c.agreed, c.known, c.complete = false, false, false
	}
}

// Session is the session's dialect and msize. lasting: its requests outlive a transport,
// since the server keeps the session and both sides number requests. The lock is held.
func (c *Conn) Session() (d wire.Dialect, msize uint32, lasting bool) {
	return c.dialect, c.msize, c.kept && c.dialect.Numbered()
}

// Send queues a request, whose tag is free. The lock is held.
func (c *Conn) Send(r *Request) {
	c.Add(r)
	c.work.Signal()
}

// Flush queues r, a Tflush of r.Old. done: r.Old was not sent yet, and both are forgotten.
// The lock is held.
func (c *Conn) Flush(r *Request) (done bool) {
	switch {
	case r.Old == nil:
	case r.Old.Number == 0:
		c.Remove(r.Old)
		return true
	default:
		r.Old.Flushed = true
	}
	c.Send(r)
	return false
}
