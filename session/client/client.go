package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"net"
	"time"

	"meta9/session/mumble"
	"meta9/session/redial"
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
	opt  Options
	fids fids
	conn *redial.Conn
	done chan struct{} // closed when Close is done

	// conn guards the rest.
	session  *session      // the newest; its requests may wait for a transport
	up       bool          // there is a transport
	since    time.Time     // not up: since when there has been none of use
	why      error         // not up: why, or why the last try failed
	closed   bool          // Close was called
	change   chan struct{} // closed, and made anew, when up, why or closed have changed
	patience *time.Timer   // looks whether Patience has ended; nil: nobody needs to
}

// offers are the dialects to ask for, the best first.
var offers = []wire.Dialect{wire.EN, wire.E, wire.Plain}

// Dial connects to the server at addr (see Dialer) and attaches. It tries once; ctx
// bounds that and nothing later.
func Dial(ctx context.Context, addr string, opt Options) (*Client, error) {
	c := &Client{opt: opt, done: make(chan struct{}), change: make(chan struct{})}
	if c.opt.Patience == 0 {
		c.opt.Patience = defaultPatience
	}
	conf, err := c.config(addr)
	if err == nil {
		c.conn = redial.New(conf)
		err = unavailable(c.conn.Dial(ctx))
	}
	if err != nil {
		return nil, wrap("connect", addr, err)
	}
	c.resumeCalls()
	go c.conn.Run(context.Background())
	return c, nil
}

// config reads the address and makes the session's key.
func (c *Client) config(addr string) (conf redial.Config, err error) {
	conf = redial.Config{
		Dial: c.opt.Dial, Terms: redial.Terms{Offers: offers, Msize: c.opt.msize()}, FreshFrames: true,
		Mumble: c.opt.Mumble, User: c.opt.User, Owner: owner{c},
	}
	if conf.Dial == nil {
		if conf.Dial, err = Dialer(addr, c.opt.TLS); err != nil {
			return conf, err
		}
	}
	if conf.Mumble == "" {
		_, err = rand.Read(conf.Key[:])
		return conf, err
	}
	m, _, err := mumble.Parse([]byte(conf.Mumble))
	conf.Key = m.Key
	return conf, err
}

// Dialect names what is spoken with the server: "9P2000.e.n", "9P2000.e" or
// "9P2000". It is "" while there is no connection.
func (c *Client) Dialect() string {
	c.conn.Lock()
	defer c.conn.Unlock()
	if !c.up {
		return ""
	}
	return c.session.dialect.String()
}

// Close ends the session and the connection. Requests that wait fail, and so do
// the Files. The server is given a moment to hear of it, so that it keeps nothing.
func (c *Client) Close() error {
	c.conn.Lock()
	if c.closed {
		c.conn.Unlock()
		<-c.done
		return ErrClosed
	}
	c.closed = true
	c.wake()
	c.conn.Unlock()
	c.conn.Close()
	c.conn.Lock()
	defer c.conn.Unlock()
	c.session.fail(ErrClosed)
	if c.patience != nil {
		c.patience.Stop()
	}
	close(c.done)
	return nil
}
