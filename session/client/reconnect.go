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

// run reads from one transport after the other until the Client is closed, and with
// it ctx.
func (c *Client) run(ctx context.Context, l *link) {
	defer close(c.done)
	for tries := 0; ; {
		if c.serve(ctx, l) {
			tries = 0
		}
		if !c.down(l, tries == 0) {
			break
		}
		next, n := c.again(ctx, l, tries)
		if next == nil {
			break
		}
		l, tries = next, n
	}
	l.fail(ErrClosed)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// serve carries l over its transport until that ends; good: it was of use.
func (c *Client) serve(ctx context.Context, l *link) (good bool) {
	stop := context.AfterFunc(ctx, func() { l.fail(ErrClosed) })
	defer stop()
	t := l.line
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.write(t)
	}()
	start := time.Now()
	l.read(t)
	<-written
	return t.answered || time.Since(start) > goodLife
}

// down notes that the transport of l has ended; anew: only now was there a use in
// it, so that the Client's patience begins. open: the Client wants another.
func (c *Client) down(l *link, anew bool) (open bool) {
	why := l.why()
	c.mu.Lock()
	c.link, c.why = nil, why
	if anew {
		c.since = time.Now()
	}
	if open = !c.closed; open && c.opt.Patience >= 0 {
		c.patience = time.AfterFunc(c.opt.Patience-time.Since(c.since), func() { c.giveUp(l) })
	}
	c.wake()
	c.mu.Unlock()
	if open {
		c.opt.notify(State{Err: why})
	}
	return open
}

// giveUp ends what waits on l for a transport, if there is none yet.
func (c *Client) giveUp(l *link) {
	c.mu.Lock()
	why, over := c.why, c.link == nil && time.Since(c.since) >= c.opt.Patience
	c.mu.Unlock()
	if over {
		l.giveUp(why)
	}
}

// again connects, after a while that grows with tries; nil: ctx has ended. old is the
// link whose transport was lost.
func (c *Client) again(ctx context.Context, old *link, tries int) (*link, int) {
	for ; ; tries++ {
		if !pause(ctx, tries) {
			return nil, tries
		}
		l, resumed, err := c.connect(ctx, old)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				l.fail(ErrClosed)
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

// up makes l the link.
func (c *Client) up(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.patience != nil {
		c.patience.Stop()
	}
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
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case l != nil && l.cause() == nil:
			return l, nil
		case l == nil && refused(why):
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
