package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

// owner is the Client as its redial.Conn sees it.
type owner struct{ *Client }

// Lost ends the session, and with it all of its requests.
func (o owner) Lost(w *redial.Window) []byte {
	if o.session != nil {
		o.session.fail(o.session.why)
	}
	w.Clear()
	return nil
}

// Begin attaches. A server that needs no authentication refuses it; then Begin attaches
// without.
func (o owner) Begin(t *redial.Talk, unproven error) error {
	reply, err := t.Ask(&wire.Msg{Type: wire.Tattach, Fid: rootFid, Afid: wire.NoFid, Uname: o.opt.User, Aname: o.opt.Aname})
	switch {
	case err != nil && unproven != nil:
		return fmt.Errorf("%w (%w)", unproven, err)
	case err != nil:
		return err
	}
	var epoch uint64
	o.conn.Lock()
	defer o.conn.Unlock()
	if o.session != nil {
		epoch = o.session.epoch
	}
	o.session = o.newSession(t.Dialect, t.Msize, epoch+1, reply.QID)
	return nil
}

// Up lets requests go on.
func (o owner) Up(resumed bool) {
	o.resumeCalls()
	o.opt.notify(State{Up: true, Resumed: resumed})
}

// resumeCalls lets requests go on over a transport, and clunks the fids that lost requests have
// left.
func (c *Client) resumeCalls() {
	c.conn.Lock()
	defer c.conn.Unlock()
	s := c.session
	if s.ended { // resumed without numbers: the fids are there, the requests are lost
		s = c.newSession(s.dialect, s.msize, s.epoch, s.root.QID)
		c.session = s
	}
	s.down = make(chan struct{})
	if closed(s.gaveUp) {
		s.gaveUp = make(chan struct{})
	}
	for _, fid := range c.fids.takeStrays(s.epoch) {
		s.clunk(fid)
	}
	c.up, c.why = true, nil
	c.wake()
}

// Reply ends the call that it is for, or whose Tflush it answers.
func (o owner) Reply(r *redial.Request, frame []byte) ([]byte, error) {
	return nil, o.session.reply(r, frame)
}

// Pass has nothing to pass on.
func (owner) Pass([]byte) {}

// Down makes requests wait, or, where they are not numbered, end.
func (o owner) Down(why error, fresh bool) {
	o.conn.Lock()
	o.up, o.why, o.session.why = false, why, why
	close(o.session.down)
	if _, _, lasting := o.conn.Session(); !lasting {
		o.session.fail(why)
		o.conn.Clear()
	}
	if fresh {
		o.since = time.Now()
	}
	if o.opt.Patience >= 0 && o.patience == nil {
		o.patience = time.AfterFunc(o.left(), o.checkPatience)
	}
	o.wake()
	o.conn.Unlock()
	o.opt.notify(State{Err: why})
}

// Failed wakes waiting requests: when the server has refused, they fail at once.
func (o owner) Failed(why error) {
	why = unavailable(why)
	o.conn.Lock()
	o.why = why
	o.wake()
	o.conn.Unlock()
	o.opt.notify(State{Err: why})
}

// unavailable adds ErrUnavailable to err, unless err is nil or the server's refusal.
func unavailable(err error) error {
	if err == nil || refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// refused tells whether the server refuses this client for good. A server that is busy
// with the session, or has failed, may accept it later.
func refused(err error) bool {
	return redial.IsRefusal(err) && !errors.Is(err, errs.Busy) && !errors.Is(err, errs.IO)
}

// left is how much of Patience is left in this outage; conn is held.
func (c *Client) left() time.Duration { return c.opt.Patience - time.Since(c.since) }

// checkPatience is called when Patience may have ended. The timer may be that of an
// earlier outage.
func (c *Client) checkPatience() {
	c.conn.Lock()
	defer c.conn.Unlock()
	left := c.left()
	switch {
	case c.up || c.closed:
		c.patience = nil
	case left > 0:
		c.patience.Reset(left)
	default:
		c.patience = nil
		c.session.giveUp(c.why)
	}
}

// wake wakes all who wait for a transport; conn is held.
func (c *Client) wake() {
	close(c.change)
	c.change = make(chan struct{})
}

// ready waits for a session with a transport.
func (c *Client) ready(ctx context.Context) (*session, error) {
	for {
		c.conn.Lock()
		s, up, why, closed, change, left := c.session, c.up, c.why, c.closed, c.change, c.left()
		c.conn.Unlock()
		switch {
		case closed:
			return nil, ErrClosed
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case up:
			return s, nil
		case refused(why):
			return nil, why
		case c.opt.Patience < 0:
			left = time.Hour
		case left <= 0:
			return nil, unavailable(why)
		}
		if err := wait(ctx, change, left); err != nil {
			return nil, err
		}
	}
}

// wait waits for change, at most for left.
func wait(ctx context.Context, change <-chan struct{}, left time.Duration) error {
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-change:
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// release clunks a fid if its session is the current one, or else makes it a stray.
func (c *Client) release(f stray) {
	c.conn.Lock()
	s, up := c.session, c.up
	c.conn.Unlock()
	if up && s.epoch == f.epoch {
		s.release(f.num)
	} else {
		c.fids.addStray(f)
	}
}

// do runs op in a session, and again in the next for as long as its requests are
// lost in a way that lets them be sent again.
func (c *Client) do(ctx context.Context, op func(s *session) error) error {
	for {
		s, err := c.ready(ctx)
		if err != nil {
			return err
		}
		if err := op(s); !isLost(err) {
			return err
		}
	}
}
