package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// The waits between tries: none before the first, then from backoffMin, doubled
// each time, to backoffMax; jitter takes up to half away, so that clients that
// were lost together do not come back together.
const (
	backoffMin = 20 * time.Millisecond
	backoffMax = 5 * time.Second
)

// goodLife is how long a link must live to be worth a quick return if nothing was
// answered on it.
const goodLife = 10 * time.Second

// run reads from one link after the other until the Client is closed, and with it
// ctx.
func (c *Client) run(ctx context.Context, l *link) {
	defer close(c.done)
	for tries := 0; l != nil; {
		if c.serve(ctx, l) {
			tries = 0
		}
		if !c.down(l.cause(), tries == 0) {
			break
		}
		l, tries = c.again(ctx, tries)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// serve runs l until it ends; good: it was of use.
func (c *Client) serve(ctx context.Context, l *link) (good bool) {
	stop := context.AfterFunc(ctx, func() { l.fail(ErrClosed) })
	defer stop()
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.write()
	}()
	start := time.Now()
	l.read()
	<-written
	return l.answered || time.Since(start) > goodLife
}

// down notes that there is no link, because of err; anew: only since now. open:
// the Client wants another.
func (c *Client) down(err error, anew bool) (open bool) {
	c.mu.Lock()
	c.link, c.why = nil, err
	if anew {
		c.since = time.Now()
	}
	open = !c.closed
	c.wake()
	c.mu.Unlock()
	if open {
		c.opt.notify(State{Err: err})
	}
	return open
}

// again connects, after a while that grows with tries; nil: ctx has ended.
func (c *Client) again(ctx context.Context, tries int) (*link, int) {
	for ; ; tries++ {
		if !pause(ctx, tries) {
			return nil, tries
		}
		l, resumed, err := c.connect(ctx)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				l.conn.Close()
			}
			return nil, tries
		case err != nil:
			c.failed(err)
			continue
		}
		c.up(l)
		c.opt.notify(State{Up: true, Resumed: resumed})
		return l, tries + 1
	}
}

// up makes l the link, and clunks what was left of lost requests. Nobody reads yet,
// so that there must be a tag for each clunk.
func (c *Client) up(l *link) {
	for i, fid := range c.fids.takeStrays(l.epoch) {
		if i < maxCalls/2 {
			l.release(fid)
		} else {
			c.fids.lose(stray{fid, l.epoch})
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.why = l, nil
	c.wake()
}

// failed notes that a try failed. Whoever waits hears of it: a server that
// refuses will not be waited for.
func (c *Client) failed(err error) {
	c.mu.Lock()
	c.why = err
	c.wake()
	c.mu.Unlock()
	c.opt.notify(State{Err: err})
}

// wake wakes all who wait for a link; mu is held.
func (c *Client) wake() {
	close(c.change)
	c.change = make(chan struct{})
}

// pause waits before a try; false: ctx ended.
func pause(ctx context.Context, tries int) bool {
	if tries == 0 {
		return ctx.Err() == nil
	}
	wait := min(backoffMin<<min(tries-1, 16), backoffMax)
	wait -= rand.N(wait / 2)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ready waits for a link.
func (c *Client) ready(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, change, why, closed := c.link, c.change, c.why, c.closed
		left := c.opt.Patience - time.Since(c.since)
		c.mu.Unlock()
		switch {
		case closed:
			return nil, ErrClosed
		case l != nil && l.cause() == nil:
			return l, nil
		case l == nil && isAnswer(why):
			return nil, why
		case l != nil, c.opt.Patience < 0: // l has just ended: run will say why
			left = time.Hour
		case left <= 0:
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, why)
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

// release clunks a fid on the link that there is, or leaves it to the next.
func (c *Client) release(s stray) {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil && l.epoch == s.epoch {
		l.release(s.num)
	} else {
		c.fids.lose(s)
	}
}

// do runs op on a link, and again on the next for as long as its requests are
// lost in a way that lets them be sent again.
func (c *Client) do(ctx context.Context, op func(l *link) error) error {
	for {
		l, err := c.ready(ctx)
		if err != nil {
			return err
		}
		if err := op(l); !isLost(err) {
			return err
		}
	}
}
