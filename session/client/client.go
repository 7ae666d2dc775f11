package client

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"meta9/session/redial"
	"meta9/session/wire"
)

// Options are for Dial; all may be zero.
type Options struct {
	// User is the name to attach as. It gives no rights; the server shows it as the user
	// who changed a file last.
	User string
	// Aname names the sub-tree to attach to; "" is the root.
	Aname string
	// Mumble is a message "MUMBLE:...:" as `meta9 mumble` makes it, to authenticate on a
	// channel that does not prove who the client is (9P2000.e).
	Mumble string
	// TLS is for tls: addresses: the client's certificate and whom to trust.
	TLS *tls.Config
	// Dial makes a transport in place of the address, which then only names it.
	Dial func(ctx context.Context) (net.Conn, error)
	// Msize is the largest frame in bytes to ask for; 0: wire.MaxMsize, in which the
	// largest value fits one message. At least wire.MinMsize.
	Msize uint32
	// Patience is how long requests wait for a new transport after one was lost. Then they
	// fail with ErrUnavailable, and changes that were sent with ErrUnknown too. 0: 30 s;
	// less than 0: requests wait as long as their contexts. The Client tries to connect
	// until it is closed.
	Patience time.Duration
	// Notify is called when the transport is lost, and when there is one again. It must
	// return soon, and not use the Client.
	Notify func(State)
}

// State is the state of the connection, for Options.Notify.
type State struct {
	Up      bool  // there is a transport again
	Resumed bool  // Up: in the same session, so that no event is lost
	Err     error // not Up: why it was lost, or why the last attempt failed
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

// Client is a connection to a server, which it makes again when it is lost. Close it.
type Client struct {
	opt  Options
	fids fids
	conn *redial.Conn
	done chan struct{} // closed when Close is done

	// conn guards the rest.
	session  *session      // the newest; its requests may wait for a transport
	up       bool          // there is a transport
	since    time.Time     // not up: when the outage began
	why      error         // not up: why, or why the last attempt failed
	closed   bool          // Close was called
	change   chan struct{} // closed and replaced when up, why or closed changes
	patience *time.Timer   // calls checkPatience; nil: not needed yet
}

// offers are the dialects to ask for, the best first.
var offers = []wire.Dialect{wire.EN2, wire.EN, wire.E, wire.Plain}

// Dial connects to the server at addr (see Dialer) and attaches. It tries once; ctx bounds
// only this.
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
	conf.Key, err = redial.MakeKey(conf.Mumble)
	return conf, err
}

// Dialect is the dialect of the connection: "9P2000.e.n", "9P2000.e" or "9P2000"; ""
// while there is none.
func (c *Client) Dialect() string {
	c.conn.Lock()
	defer c.conn.Unlock()
	if !c.up {
		return ""
	}
	return c.session.dialect.String()
}

// Close ends the session and the connection. Waiting requests and the Files fail. It waits
// a moment for the server to end the session, so that the server does not keep it parked.
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
