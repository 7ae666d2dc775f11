package mdata

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"meta9/fs/errs"
)

// Places are where a guest finds its metadata service: the unix sockets of zones,
// newest first, and the second serial port of a virtual machine.
var Places = []string{
	"/.zonecontrol/metadata.sock",
	"/native/.zonecontrol/metadata.sock",
	"/var/run/smartdc/metadata.sock",
	"/dev/ttyS1",
}

// Find is the first of Places that is there. errs.NotFound: none is.
func Find() (string, error) {
	for _, path := range Places {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errs.New(errs.NotFound, "no metadata service: none of %s is there", strings.Join(Places, ", "))
}

// Bounds of a call.
const (
	callTime   = 60 * time.Second       // where the context has no deadline
	tries      = 3                      // how often a request is sent
	retryPause = 100 * time.Millisecond // before the next try, unless the last one timed out
	maxReply   = 16 << 20               // bytes
	maxKeys    = 64 << 10               // names in a reply; 16 MiB could hold millions
)

// Client asks a host for metadata, by version 2 where the host has it. A call ends
// with its context, or after a minute. When the service is not there, is silent or
// sends what is no reply, the error is errs.IO with a text that names the service and
// says what was sent and what came back; then the Client can only be closed. It
// belongs to one goroutine at a time.
type Client struct {
	path     string
	link     link
	shared   bool // the link is a serial line: it stays open, and other clients use it too
	lines    *Lines
	v2       bool
	exchange exchange
}

// Refusal is a host's FAILURE, or a reply with a code that the protocol has not.
type Refusal struct {
	Path string // of the host
	What string // the request
	Text string // the host's words, or ""
}

// Error names the host and the request, as all errors of a Client.
func (r *Refusal) Error() string {
	if r.Text == "" {
		return r.Path + ": " + r.What + ": the host refuses, and does not say why"
	}
	return r.Path + ": " + r.What + ": " + r.Text
}

// Unwrap makes a Refusal an errs.NotPermitted.
func (r *Refusal) Unwrap() error { return errs.NotPermitted }

// Dial connects to the service at path: a unix socket, or a character device,
// which is locked for as long as the Client is open.
func Dial(ctx context.Context, path string) (*Client, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	c := &Client{path: path, exchange: exchange{began: time.Now()}}
	if err := c.connect(ctx); err != nil {
		c.Close()
		return nil, c.explain(ctx, "connecting", err)
	}
	return c, nil
}

// withDeadline is ctx with a deadline.
func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTime)
}

// Close ends the connection.
func (c *Client) Close() error {
	if c.link == nil {
		return nil
	}
	return c.link.Close()
}

// Get is the value of the key. errs.NotFound: there is none.
func (c *Client) Get(ctx context.Context, key string) ([]byte, error) {
	return c.call(ctx, request{Get, describe(Get, key), []byte(key)})
}

// Keys are the names of all keys but the derived ones (sdc:).
func (c *Client) Keys(ctx context.Context) ([]string, error) {
	list, err := c.call(ctx, request{Keys, Keys, nil})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if n := bytes.Count(list, []byte("\n")) + 1; n > maxKeys {
		return nil, errs.New(errs.TooBig, "%s: %s: %d names, and %d are the limit", c.path, Keys, n, maxKeys)
	}
	return strings.Split(string(list), "\n"), nil
}

// Put makes value the key's. errs.Unsupported: the host speaks version 1 only.
func (c *Client) Put(ctx context.Context, key string, value []byte) error {
	enc := base64.StdEncoding
	payload := enc.AppendEncode(nil, []byte(key))
	payload = enc.AppendEncode(append(payload, ' '), value)
	_, err := c.call(ctx, request{Put, describe(Put, key), payload})
	return err
}

// Delete removes the key, if it is there. errs.Unsupported: as for Put.
func (c *Client) Delete(ctx context.Context, key string) error {
	_, err := c.call(ctx, request{Delete, describe(Delete, key), []byte(key)})
	return err
}

// request is one request of a call. It may be sent more than once: to do it twice has
// the effect of doing it once.
type request struct {
	code    string
	what    string // for people
	payload []byte // decoded
}

// describe is a request in words for error texts. A key may have any length and any
// bytes, so it is quoted and cut.
func describe(code, key string) string { return fmt.Sprintf("%s %.80q", code, key) }

// Errors of one attempt, after which another may succeed.
var (
	errSilent  = errors.New("no answer")
	errRefused = errors.New("the host does not understand what it is sent")
	errTooMuch = errors.New("the host sends more than any answer has")
	errBusy    = errors.New("the line is never quiet")
)

// call sends the request, again if need be, and gives the value of the reply.
func (c *Client) call(ctx context.Context, r request) ([]byte, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	c.exchange = exchange{began: time.Now()}
	var err error
	for left := tries; left > 0; left-- {
		if left < tries {
			if err = c.retry(ctx, err); err != nil {
				break
			}
		}
		var value []byte
		if value, err = c.try(ctx, r, left); !transient(err) {
			return value, err
		}
	}
	return nil, c.explain(ctx, r.what, err)
}

// transient tells whether another attempt may succeed: the error is not the host's
// answer to the request.
func transient(err error) bool {
	var r *Refusal
	return err != nil && !errors.As(err, &r) && !errors.Is(err, errs.NotFound) && !errors.Is(err, errs.Unsupported)
}

// retry connects again for another attempt. It returns the error of that, or, when no
// time is left, the error of the attempt before.
func (c *Client) retry(ctx context.Context, err error) error {
	if !errors.Is(err, errSilent) {
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
	if ended(ctx) {
		return err
	}
	return c.connect(ctx)
}

// try sends the request once. With left attempts to go it waits for one part in left of
// the time that remains: a host that lost one frame may answer the next.
func (c *Client) try(ctx context.Context, r request, left int) ([]byte, error) {
	deadline, _ := ctx.Deadline()
	defer c.setDeadline(ctx, time.Until(deadline)/time.Duration(left))()
	if c.v2 {
		return c.tryV2(r)
	}
	return c.tryV1(r)
}

// exchange is what was sent and received during a call, for error texts.
type exchange struct {
	began time.Time
	sent  []byte // the last request
	times int    // how often one was sent
	got   []byte // the beginning of the last line that came back
	lines int    // how many came
}

// explain makes an error that says where it happened, what was sent and what came
// back.
func (c *Client) explain(ctx context.Context, what string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	text := err.Error()
	switch {
	case errors.Is(err, io.EOF):
		text = "the host closed the connection"
	case errors.Is(err, errSilent):
		text = fmt.Sprintf("%v in %v", err, time.Since(c.exchange.began).Round(time.Millisecond))
	}
	return errs.New(errs.IO, "%s: %s: %s%v", c.path, what, text, c.exchange)
}

// String leaves out values, which may be secrets.
func (t exchange) String() string {
	if t.times == 0 {
		return ""
	}
	sent, got := fmt.Sprintf("; sent the line %q", withoutPayload(t.sent)), "received nothing"
	if t.times > 1 {
		sent += fmt.Sprintf(", the last of %d", t.times)
	}
	if t.lines > 0 {
		got = fmt.Sprintf("received the line %q", withoutPayload(t.got))
	}
	if t.lines > 1 {
		got += fmt.Sprintf(", the last of %d", t.lines)
	}
	return sent + ", " + got
}

// withoutPayload is the beginning of a line; of a frame, all but its payload.
func withoutPayload(line []byte) string {
	const words, most = 5, 80 // V2, length, checksum, id, code
	s := string(line[:min(len(line), most)])
	if parts := strings.SplitN(s, " ", words+1); parts[0] == V2 && len(parts) > words {
		s = strings.Join(parts[:words], " ") + " ..."
	}
	return strings.TrimRight(s, "\n")
}
