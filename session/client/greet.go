package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"meta9/fs/errs"
	"meta9/session/greet"
	"meta9/session/wire"
)

// greetTime is how long a server may take from the first byte to the attach, at
// most.
const greetTime = 10 * time.Second

// errSilent is why a greeting ends that took too long.
var errSilent = errors.New("the server is silent")

// offers are the dialects to ask for, the best first.
var offers = []wire.Dialect{wire.EN, wire.E, wire.Plain}

// session is what a Client knows of its session, whatever link it is at. It is
// Dial's, then run's.
type session struct {
	key   [wire.KeyLen]byte // all zero: none
	known bool              // the server may have it: it is worth asking for
	whole bool              // it is what the client's fids say: they were not lost half way
	epoch uint64            // how many attaches there were
}

// connect makes a transport and greets the server, which resumes old, or, as may
// be, another link is made. old is nil at first. resumed: the server has the fids as
// they were.
func (c *Client) connect(ctx context.Context, old *link) (l *link, resumed bool, err error) {
	conn, err := c.dial(ctx)
	if err == nil {
		l, resumed, err = c.greet(ctx, conn, old)
	}
	if err != nil && !refused(err) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return l, resumed, err
}

// refused tells whether the server will not have us. One that is still busy with
// the session, or in trouble, may have us later.
func refused(err error) bool {
	return greet.IsRefusal(err) && !errors.Is(err, errs.Busy) && !errors.Is(err, errs.IO)
}

// greet makes conn the transport of a link, or closes it.
func (c *Client) greet(ctx context.Context, conn net.Conn, old *link) (l *link, resumed bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, greetTime, errSilent)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	line := newLine(conn)
	t := greet.New(conn, line.rd)
	l, err = c.begin(t, old)
	if resumed = l != nil; err == nil && !resumed {
		l, err = c.attach(t, old)
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, false, ended(err)
	}
	l.use(line)
	return l, resumed, nil
}

// begin agrees on a version and asks for the session. The link is one whose fids
// the server has; nil: it has none.
func (c *Client) begin(t *greet.Talk, old *link) (*link, error) {
	standing, err := c.ask(t)
	switch {
	case err != nil || standing != greet.Resumed:
		return nil, err
	case !c.keep.whole:
	case !t.Dialect.Numbered():
		return c.newLink(t, old), nil
	case old.fits(t):
		if err = old.resume(t); !greet.IsRefusal(err) {
			return old, err
		}
	}
	_, err = c.ask(t) // what the server has is of no use: a second Tversion ends it
	return nil, err
}

// ask agrees on a version, and asks for the session. With a new key that announces
// it. A key from MUMBLE is only asked for when the session was lost, since Tauth
// sets it, and since a key in vain is what a guesser sends.
func (c *Client) ask(t *greet.Talk) (greet.Standing, error) {
	if err := t.Version(c.opt.msize(), offers...); err != nil {
		return greet.Sessionless, err
	}
	if c.opt.Mumble != "" && !c.keep.known {
		return greet.Sessionless, nil
	}
	standing, err := t.Session(c.keep.key)
	if err == nil {
		c.keep.known = standing != greet.Sessionless
	}
	return standing, err
}

// attach authenticates, if there is something to do it with, and attaches. A
// server that wants no authentication refuses it, and is tried without. What old
// had is lost, whatever comes of it.
func (c *Client) attach(t *greet.Talk, old *link) (*link, error) {
	c.keep.whole = false
	if old != nil {
		old.fail(old.why())
	}
	var refused error
	if c.opt.Mumble != "" {
		refused = c.authenticate(t)
	}
	if refused != nil && !greet.IsRefusal(refused) {
		return nil, refused
	}
	_, err := t.Ask(&wire.Msg{Type: wire.Tattach, Fid: rootFid, Afid: wire.NoFid, Uname: c.opt.User, Aname: c.opt.Aname})
	switch {
	case err != nil && refused != nil:
		return nil, fmt.Errorf("%w (%w)", refused, err)
	case err != nil:
		return nil, err
	}
	c.keep.whole = true
	c.keep.epoch++
	return c.newLink(t, old), nil
}

// authenticate shows the MUMBLE message, which has the session's key.
func (c *Client) authenticate(t *greet.Talk) error {
	afid := c.fids.get()
	defer c.fids.put(afid)
	err := t.Authenticate(c.opt.Mumble, afid, c.opt.User)
	if err == nil {
		c.keep.known = true
	}
	return err
}
