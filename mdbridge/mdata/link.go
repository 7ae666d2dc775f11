package mdata

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// link is a way to the host.
type link interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// Times of a shared line: how long it is quiet before it is taken to be free, how
// long the host has to answer an empty line and NEGOTIATE, and how often a lock
// is tried.
const (
	quiet     = 100 * time.Millisecond
	syncTime  = 2 * time.Second
	greetTime = 6 * time.Second
	lockPause = 50 * time.Millisecond
)

// reset connects, anew if need be, and finds out which version the host speaks.
// On a serial line, where the host may come later, it tries until ctx ends.
func (c *Client) reset(ctx context.Context) error {
	for {
		err := c.greet(ctx)
		_, shared := c.link.(*serial)
		if err == nil || !shared || !errors.Is(err, errSilent) || over(ctx) {
			return err
		}
	}
}

// greet is one attempt of reset. A socket is dialled anew, which leaves all behind
// that was said before; a serial line is one line for ever, and is kept, with its
// lock, until the Client is closed.
func (c *Client) greet(ctx context.Context) error {
	_, shared := c.link.(*serial)
	if !shared {
		if err := c.open(ctx); err != nil {
			return err
		}
		_, shared = c.link.(*serial)
	}
	limit := patience
	if shared {
		limit = greetTime
		if err := c.sync(ctx); err != nil {
			return err
		}
	}
	c.lines = NewLines(c.link, maxReply)
	defer c.limit(ctx, limit)()
	return c.negotiate()
}

// open opens the link. A host that has hung up is dialled again.
func (c *Client) open(ctx context.Context) error {
	c.Close()
	c.link = nil
	fi, err := os.Stat(c.path)
	if err != nil {
		return bare(err)
	}
	switch mode := fi.Mode(); {
	case mode&os.ModeSocket != 0:
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", c.path)
		if err != nil {
			return bare(err)
		}
		c.link = conn
	case mode&os.ModeCharDevice != 0:
		s, err := openSerial(ctx, c.path)
		if err != nil {
			return err
		}
		c.link = s
	default:
		return errors.New("this is no unix socket and no character device")
	}
	return nil
}

// bare is err without the path, which stands in front of all our errors.
func bare(err error) error {
	for {
		var p *os.PathError
		var o *net.OpError
		var c *os.SyscallError
		switch {
		case errors.As(err, &p):
			err = p.Err
		case errors.As(err, &o):
			err = o.Err
		case errors.As(err, &c):
			err = c.Err
		default:
			return err
		}
	}
}

// limit ends all waiting for the host after d, and when ctx ends. What it gives
// must be called when the waiting is over.
func (c *Client) limit(ctx context.Context, d time.Duration) (done func()) {
	until := time.Now().Add(d)
	if end, ok := ctx.Deadline(); ok && end.Before(until) {
		until = end
	}
	l := c.link
	l.SetDeadline(until)
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// serial is a character device that is ours alone, in raw mode; see openSerial.
type serial struct{ *os.File }

// sync makes sure that what comes next answers what is sent next: it waits until
// the line is quiet, ends a line that somebody may have begun, and waits for the
// host's answer to that.
func (c *Client) sync(ctx context.Context) error {
	for again := false; ; again = true {
		if err := c.drain(ctx); err != nil {
			return err
		}
		c.lines = NewLines(c.link, maxReply)
		err := c.poke(ctx)
		switch {
		case err == nil && again:
			return c.drain(ctx) // of the answers to earlier ones
		case !errors.Is(err, errSilent), over(ctx):
			return err
		}
	}
}

// poke sends an empty line and waits for its answer.
func (c *Client) poke(ctx context.Context) error {
	defer c.limit(ctx, syncTime)()
	if err := c.send([]byte("\n")); err != nil {
		return err
	}
	for {
		line, err := c.next()
		if err != nil || refuses(line) {
			return err
		}
	}
}

// drain reads what comes until the line is quiet.
func (c *Client) drain(ctx context.Context) error {
	buf := make([]byte, 4<<10)
	for !over(ctx) {
		done := c.limit(ctx, quiet)
		_, err := c.link.Read(buf)
		done()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !over(ctx):
			return nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
	return errBusy
}

// over tells whether ctx has ended, or is just about to.
func over(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}
