package mdata

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// link is the connection to the host: a socket, or a serial line.
type link interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// Times of a serial line, which other clients use too.
const (
	quiet         = 100 * time.Millisecond // without a byte: nobody is using it
	syncTime      = 2 * time.Second        // for the answer to an empty line
	negotiateTime = 6 * time.Second        // for the answer to NEGOTIATE
	lockPause     = 50 * time.Millisecond  // between two attempts to lock it
)

// connect connects, for the first time or again, and finds out which version the host
// speaks. On a serial line the host may start later, so it tries until ctx ends.
func (c *Client) connect(ctx context.Context) error {
	for {
		err := c.connectOnce(ctx)
		if err == nil || !c.shared || !errors.Is(err, errSilent) || ended(ctx) {
			return err
		}
	}
}

// connectOnce is one attempt of connect. A socket is dialled again, so that no reply of
// an earlier request can come. A serial line stays open, and locked, until the Client
// is closed; sync reads what is left on it.
func (c *Client) connectOnce(ctx context.Context) error {
	if !c.shared {
		if err := c.open(ctx); err != nil {
			return err
		}
	}
	limit := callTime
	if c.shared {
		limit = negotiateTime
		if err := c.sync(ctx); err != nil {
			return err
		}
	}
	c.lines = NewLines(c.link, maxReply)
	defer c.setDeadline(ctx, limit)()
	return c.negotiate()
}

// open opens the link, after closing the one before.
func (c *Client) open(ctx context.Context) error {
	c.Close()
	c.link = nil
	fi, err := os.Stat(c.path)
	if err != nil {
		return withoutPath(err)
	}
	switch mode := fi.Mode(); {
	case mode&os.ModeSocket != 0:
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", c.path)
		if err != nil {
			return withoutPath(err)
		}
		c.link = conn
	case mode&os.ModeCharDevice != 0:
		s, err := openSerial(ctx, c.path)
		if err != nil {
			return err
		}
		c.link, c.shared = s, true
	default:
		return errors.New("this is no unix socket and no character device")
	}
	return nil
}

// withoutPath is the innermost of the errors in err: all texts of a Client begin with
// the path already.
func withoutPath(err error) error {
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

// setDeadline makes reads and writes fail after d, and when ctx ends. The caller calls
// done after them.
func (c *Client) setDeadline(ctx context.Context, d time.Duration) (done func()) {
	until := time.Now().Add(d)
	if end, ok := ctx.Deadline(); ok && end.Before(until) {
		until = end
	}
	l := c.link
	l.SetDeadline(until)
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// serial is a character device in raw mode that this process has locked; see
// openSerial.
type serial struct{ *os.File }

// sync makes sure that the next line which comes answers the next request: it waits
// until nothing comes, ends with an LF a line that another client may have begun, and
// waits for the host's answer to that.
func (c *Client) sync(ctx context.Context) error {
	for again := false; ; again = true {
		if err := c.readUntilQuiet(ctx); err != nil {
			return err
		}
		c.lines = NewLines(c.link, maxReply)
		err := c.askEmptyLine(ctx)
		switch {
		case err == nil && again:
			return c.readUntilQuiet(ctx) // the answers to the empty lines before
		case !errors.Is(err, errSilent), ended(ctx):
			return err
		}
	}
}

// askEmptyLine sends an empty line and waits for its answer.
func (c *Client) askEmptyLine(ctx context.Context) error {
	defer c.setDeadline(ctx, syncTime)()
	if err := c.send([]byte("\n")); err != nil {
		return err
	}
	for {
		line, err := c.next()
		if err != nil || isRefusal(line) {
			return err
		}
	}
}

// readUntilQuiet reads and drops what comes, until nothing has come for a while. Where ctx
// ends before, the error is errBusy if something kept coming, else errSilent.
func (c *Client) readUntilQuiet(ctx context.Context) error {
	buf, began, came := make([]byte, 4<<10), time.Now(), false
	for !ended(ctx) {
		done := c.setDeadline(ctx, quiet)
		n, err := c.link.Read(buf)
		done()
		came = came || n > 0
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !ended(ctx):
			return nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
	if !came || time.Since(began) < quiet {
		return errSilent
	}
	return errBusy
}

// ended tells whether ctx has ended, or its deadline has passed.
func ended(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}
