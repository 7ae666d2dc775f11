package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"meta9/session/mumble"
	"meta9/session/wire"
)

// Options are what Dial may be told; the zero Options will do.
type Options struct {
	// User is the name to attach as. It gives no rights; the server notes it as who
	// changed a file last.
	User string
	// Aname names the sub-tree to attach to; "" is the root.
	Aname string
	// Mumble is a ready-made message, "MUMBLE:...:", for a channel that does not
	// prove who is there (9P2000.e, as `meta9 mumble` makes it).
	Mumble string
	// TLS is for tls: addresses: the client's certificate and whom to trust.
	TLS *tls.Config
	// Dial makes a transport in place of the address, which then only names it.
	Dial func(ctx context.Context) (net.Conn, error)
	// Msize is the largest frame in bytes to ask for; 0: wire.MaxMsize, in which the
	// largest value fits one message. At least wire.MinMsize.
	Msize uint32
	// Patience is how long after the transport was lost requests wait for another
	// one before they fail with ErrUnavailable, and those that changed something and
	// were sent with ErrUnknown too; 0: 30 s, less than 0: for as long as their
	// contexts. The Client goes on trying until it is closed.
	Patience time.Duration
	// Notify is told when the transport is lost, and when there is one again. It
	// must return soon, and not use the Client.
	Notify func(State)
}

// State is what Options.Notify is told.
type State struct {
	Up      bool  // there is a transport again
	Resumed bool  // Up: with the session, so that no event is lost
	Err     error // not Up: why it was lost, or why the last try failed
}

const defaultPatience = 30 * time.Second

func (o *Options) msize() uint32 {
	if o.Msize == 0 {
		return wire.MaxMsize
	}
	return min(max(o.Msize, wire.MinMsize), wire.MaxMsize)
}

func (o *Options) notify(s State) {
	if o.Notify != nil {
		o.Notify(s)
	}
}

// Client is a connection to a server that comes back by itself. Close it.
type Client struct {
	addr string
	opt  Options
	dial dialer
	fids fids

	keep session

	stop context.CancelFunc // ends run
	done chan struct{}      // closed when run has ended

	mu       sync.Mutex
	link     *link         // nil: there is none
	change   chan struct{} // closed, and made anew, when link, why or closed have changed
	since    time.Time     // link is nil: since when
	why      error         // link is nil: why, or why the last try failed
	closed   bool
	patience *time.Timer // link is nil: gives up what waits on it; nil: nothing does
}

// Dial connects to the server at addr (see Dialer) and attaches. It tries once; ctx
// bounds that and nothing later.
func Dial(ctx context.Context, addr string, opt Options) (*Client, error) {
	c := &Client{addr: addr, opt: opt, dial: opt.Dial, done: make(chan struct{}), change: make(chan struct{})}
	if err := c.prepare(); err != nil {
		return nil, wrap("connect", addr, err)
	}
	l, _, err := c.connect(ctx, nil)
	if err != nil {
		return nil, wrap("connect", addr, err)
	}
	c.link = l
	run, stop := context.WithCancel(context.Background())
	c.stop = stop
	go c.run(run, l)
	return c, nil
}

// prepare reads the address and makes the session's key.
func (c *Client) prepare() (err error) {
	if c.dial == nil {
		if c.dial, err = Dialer(c.addr, c.opt.TLS); err != nil {
			return err
		}
	}
	if c.opt.Patience == 0 {
		c.opt.Patience = defaultPatience
	}
	if c.opt.Mumble != "" {
		m, _, err := mumble.Parse([]byte(c.opt.Mumble))
		c.keep.key = m.Key
		return err
	}
	_, err = rand.Read(c.keep.key[:])
	return err
}

// Dialect names what is spoken with the server: "9P2000.e.n", "9P2000.e" or
// "9P2000". It is "" while there is no connection.
func (c *Client) Dialect() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return ""
	}
	return c.link.dialect.String()
}

// Close ends the session and the connection. Requests that wait fail, and so do
// the Files. The server is given a moment to hear of it, so that it keeps nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.done
		return ErrClosed
	}
	c.closed = true
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.bye()
	}
	c.stop()
	<-c.done
	return nil
}
