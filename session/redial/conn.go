package redial

import (
	"context"
	"net"
	"sync"
	"time"

	"meta9/backoff"
	"meta9/session/wire"
)

const (
	// greetTime is how long a server may take to be dialled, and for each answer of the
	// greeting.
	greetTime = 10 * time.Second

	// probeTime is how long a server may say nothing while an answer is due, before it
	// is asked whether it is there. Blocking reads are due for ever, and a server may be
	// slow.
	probeTime = 15 * time.Second

	// silenceTime is how long a server may say nothing while an answer is due, leave a
	// frame half sent, or not take what is written to it, before the transport counts as
	// lost.
	silenceTime = 45 * time.Second

	// endTime is how long the end of a session is waited for.
	endTime = time.Second

	// goodLife is how long a transport must live to be worth a quick return if nobody
	// got an answer on it.
	goodLife = 10 * time.Second
)

// dialAgain makes the pauses between two tries.
var dialAgain = backoff.Backoff{First: 20 * time.Millisecond, Last: 2 * time.Second}

// Terms are what a server is asked for.
type Terms struct {
	Offers []wire.Dialect // the best first
	Msize  uint32         // the largest frame in bytes
}

// Config is what a Conn is told.
type Config struct {
	// Dial makes a transport; it is called again whenever one is lost. The transport
	// has deadlines.
	Dial func(ctx context.Context) (net.Conn, error)
	Terms
	// FixedMsize says that once a server has agreed to an msize, another one is an
	// error: whoever stands behind the Owner relies on it.
	FixedMsize bool
	// NumberedOnly says that a session is asked for only where its requests are
	// numbered: its fids alone are of no use.
	NumberedOnly bool
	// FreshFrames gives each reply storage of its own; otherwise it lives until the
	// next.
	FreshFrames bool
	// Key is the session's, the secret of who may resume it; all zero: none.
	Key [wire.KeyLen]byte
	// Mumble is a ready-made message to authenticate with, which has the session's key;
	// "": none. User is the uname that it is shown under.
	Mumble, User string
	Owner        Owner
}

// Owner is who uses a Conn. All methods are called by the runner, one at a time; the
// lock is Conn's.
type Owner interface {
	// Lost tells that the session is lost, and with it the answers to what was sent. It
	// takes what is sent out of the window, or queues it again (Window.Requeue). The lock
	// is held. What it returns goes to Pass.
	Lost(w *Window) (pass []byte)

	// Begin makes a session anew: it attaches, and restores what was open (File). Nobody
	// else uses the transport. unproven is the server's refusal of Config.Mumble, or nil.
	// After an error another transport is tried.
	Begin(t *Talk, unproven error) error

	// Up tells that there is a transport, on which requests are sent from now on;
	// resumed: with the session.
	Up(resumed bool)

	// Reply takes the reply to r, which leaves the window then. Its tag, and that its
	// type answers r or is an error, are as they must be. After Rflush what was flushed
	// leaves the window too. The lock is held. An error ends the transport, and the
	// reply counts as not received. What it returns goes to Pass.
	Reply(r *Request, frame []byte) (pass []byte, err error)

	// Pass takes what Lost and Reply have returned, without the lock.
	Pass(frames []byte)

	// Down tells that the transport has ended, and why. fresh: it was of use, so that
	// the outage begins now; otherwise it is the same one as before.
	Down(why error, fresh bool)

	// Failed tells that a try to connect has failed.
	Failed(why error)
}

// Conn is a session with a server over transports that come and go, and the lock that
// guards it. Its Window is the Owner's to read; requests are entered by Send and Flush.
type Conn struct {
	sync.Mutex // guards what follows but for cfg and what is the runner's
	Window

	dialect wire.Dialect // of the session
	msize   uint32       // the same
	kept    bool         // the server keeps it
	up      *transport   // nil: there is none
	ending  bool         // Close was called
	renew   *Terms       // of the next session, which is wanted in place of this one; nil: none is
	more    sync.Cond    // for the writer: there is something to do

	cfg  Config
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	done chan struct{} // closed when Run has ended

	// The runner's; Dial's before.
	first  *transport // that Dial has made
	agreed bool       // there was a session under these terms, and so an msize
	known  bool       // the server may have the session: it is worth asking for
	whole  bool       // the server's session is what the Owner knows: it was not lost half made
}

// New gives a Conn, to be dialled.
func New(cfg Config) *Conn {
	c := &Conn{cfg: cfg, done: make(chan struct{})}
	c.more.L = c
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// Dial makes the first transport and a session, once; ctx bounds that and nothing
// later. Up is not called for it.
func (c *Conn) Dial(ctx context.Context) error {
	t, _, err := c.connect(ctx)
	if err == nil {
		c.first = t
		c.use(t)
	}
	return err
}

// Run carries one transport after the other until Close, or until ctx ends.
func (c *Conn) Run(ctx context.Context) {
	defer close(c.done)
	defer context.AfterFunc(ctx, c.stop)()
	tries := 0
	for t := c.first; t != nil; t, tries = c.again(tries) {
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

// again connects, after a pause that grows with tries; nil: the Conn is closed.
func (c *Conn) again(tries int) (*transport, int) {
	for ; ; tries++ {
		if !dialAgain.Wait(c.ctx, tries) {
			return nil, tries
		}
		c.renewed()
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
		c.use(t)
		c.cfg.Owner.Up(resumed)
		return t, tries + 1
	}
}

// use makes t the transport. Close or Renew may have been called while there was none.
func (c *Conn) use(t *transport) {
	c.Lock()
	defer c.Unlock()
	c.up = t
	if c.renew != nil || c.ending {
		c.endSession()
	}
}

// Close ends the session and the transport. The server is given a moment to hear of
// it, so that it keeps nothing that nobody resumes. Close once.
func (c *Conn) Close() {
	c.Lock()
	c.ending = true
	t := c.up
	c.endSession()
	c.Unlock()
	if t != nil {
		<-t.over
	}
	c.stop()
	<-c.done
}

// Abandon closes the transport of a Conn that is not going to Run.
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

// Renewing tells whether the session that is there, or that Begin is about, is not yet
// the one that Renew asked for. The lock is held.
func (c *Conn) Renewing() bool { return c.renew != nil }

// renewed takes over the terms of Renew, if there are any.
func (c *Conn) renewed() {
	c.Lock()
	defer c.Unlock()
	if c.renew != nil {
		c.cfg.Terms, c.renew = *c.renew, nil
		c.Clear()
		c.agreed, c.known, c.whole = false, false, false
	}
}

// Session tells what the session speaks, and whether its requests outlive a transport:
// the server keeps it, and both sides number them. The lock is held.
func (c *Conn) Session() (d wire.Dialect, msize uint32, lasting bool) {
	return c.dialect, c.msize, c.kept && c.dialect.Numbered()
}

// Send enters a request, whose tag is free. The lock is held.
func (c *Conn) Send(r *Request) {
	c.Add(r)
	c.more.Signal()
}

// Flush enters r, a Tflush of r.Old; done: that had not left, and both are forgotten.
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
