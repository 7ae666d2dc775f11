package vminfo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// MaxBytes bounds one reply or one line: a Client does not trust the service.
const MaxBytes = 1 << 30

// The times of a Client.
const (
	dialTime  = 10 * time.Second
	readyTime = 30 * time.Second // for the first line of a stream, as vminfod's own client has it
)

// keepAlive detects within half a minute that a host is gone without closing the
// connection: an event stream may be silent for days.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// Client asks one vminfod, or meta9d.
type Client struct {
	base  string
	agent string
	http  *http.Client
}

// New makes a Client of the service at addr: http://HOST:PORT or unix:PATH. name
// is the client's name in the service's status. It does not connect yet.
func New(addr, name string) (*Client, error) {
	dialer := net.Dialer{Timeout: dialTime, KeepAliveConfig: keepAlive}
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return Over(func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }, name), nil
	}
	base := strings.TrimSuffix(addr, "/")
	if err := checkBase(base); err != nil {
		return nil, fmt.Errorf("%q: %w; it is http://HOST:PORT or unix:PATH", addr, err)
	}
	return newClient(base, name, dialer.DialContext), nil
}

// Over makes a Client of the service that dial connects to, as New does.
func Over(dial func(ctx context.Context) (net.Conn, error), name string) *Client {
	return newClient("http://localhost", name, func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) })
}

func newClient(base, name string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *Client {
	tr := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}
	return &Client{base: base, agent: userAgent(name), http: &http.Client{Transport: tr, CheckRedirect: refuseRedirect}}
}

// refuseRedirect makes a redirection an answer like any other: no vminfod sends one,
// and it could lead to any host.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func checkBase(base string) error {
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return err
	case u.Scheme != "http":
		return errors.New("not http")
	case u.Hostname() == "":
		return errors.New("no host")
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return errors.New("more than a host and a port")
	}
	return nil
}

// userAgent names the client in the form of vminfod's own clients.
func userAgent(name string) string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s - %s/%d (%s)", name, host, os.Getpid(), filepath.Base(os.Args[0]))
}

// Close ends the connections that no request uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// StatusError is an answer other than 200.
type StatusError struct {
	Code int
	Text string // the body, at most its first 1,000 bytes
}

// Error is the text that vminfod's own client has for it.
func (e *StatusError) Error() string { return "bad statusCode: " + strconv.Itoa(e.Code) }

// Open asks for a path and gives the body of a good answer, as it comes.
func (c *Client) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.agent)
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the caller knows the URL
		}
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("the connection was closed before an answer: %w", err)
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, &StatusError{resp.StatusCode, string(text)}
	}
	return resp.Body, nil
}

// Get asks for a path, with its query, and gives the whole body.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	body, err := c.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, MaxBytes+1))
	if err == nil && len(b) > MaxBytes {
		err = fmt.Errorf("an answer of more than %d bytes", MaxBytes)
	}
	return b, err
}

// VMs gives the JSON array of the VMs that q lets through. vminfod gives all, whole.
func (c *Client) VMs(ctx context.Context, q Query) ([]byte, error) {
	path := "/vms"
	if !q.All() {
		path += "?" + q.String()
	}
	return c.Get(ctx, path)
}

// VM gives the JSON object of one VM; one that is not there is a StatusError of
// 404.
func (c *Client) VM(ctx context.Context, zonename string) ([]byte, error) {
	return c.Get(ctx, "/vms/"+url.PathEscape(zonename))
}

// Stream is a stream of events. Close it.
type Stream struct {
	body  io.ReadCloser
	in    *bufio.Reader
	stop  context.CancelCauseFunc
	ctx   context.Context
	timer *time.Timer // ends a stream that does not begin; nil once it has
}

// errNotReady ends a stream that does not begin.
var errNotReady = fmt.Errorf("no ready event within %v", readyTime)

// Events opens the stream, whose first event is Ready and must come within 30 s.
func (c *Client) Events(ctx context.Context) (*Stream, error) {
	ctx, stop := context.WithCancelCause(ctx)
	s := &Stream{ctx: ctx, stop: stop}
	s.timer = time.AfterFunc(readyTime, func() { stop(errNotReady) })
	body, err := c.Open(ctx, "/events")
	if err != nil {
		s.timer.Stop()
		err = s.endReason(err)
		stop(nil)
		return nil, err
	}
	s.body, s.in = body, bufio.NewReaderSize(body, 64<<10)
	return s, nil
}

// Next waits for the next event. io.EOF: the service has ended the stream between
// two events; any other error ends it as well.
func (s *Stream) Next() (*Event, error) {
	line, err := s.line()
	if err != nil {
		return nil, s.endReason(err)
	}
	ev, err := ParseEvent(line)
	if err == nil {
		err = s.checkReady(ev)
	}
	if err != nil {
		return nil, err
	}
	return ev, nil
}

// checkReady checks the first event.
func (s *Stream) checkReady(ev *Event) error {
	if s.timer == nil {
		return nil
	}
	if ev.Type != Ready {
		return fmt.Errorf("%w: the first is %.40q, not ready", ErrNoEvent, ev.Type)
	}
	s.timer.Stop()
	s.timer = nil
	return nil
}

// Buffered tells whether Next would not wait: a whole line is there.
func (s *Stream) Buffered() bool {
	some, _ := s.in.Peek(s.in.Buffered())
	return bytes.IndexByte(some, '\n') >= 0
}

// line reads one line, in memory of its own. What cannot be an event is not
// gathered: it may have no end. A long line is gathered in parts, since one slice
// would be copied again and again as it grows.
func (s *Stream) line() ([]byte, error) {
	var parts [][]byte
	for size := 0; ; {
		part, err := s.in.ReadSlice('\n')
		if size == 0 && len(part) > 0 && part[0] != '{' {
			return nil, fmt.Errorf("%w: %.80q", ErrNoEvent, part)
		}
		size += len(part)
		parts = append(parts, bytes.Clone(part))
		switch {
		case err == nil:
			return bytes.Join(parts, nil)[:size-1], nil
		case errors.Is(err, io.EOF) && size > 0:
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case size > MaxBytes:
			return nil, fmt.Errorf("an event of more than %d bytes", MaxBytes)
		}
	}
}

// endReason is why the stream ended, where that was decided here.
func (s *Stream) endReason(err error) error {
	if cause := context.Cause(s.ctx); cause != nil {
		return cause
	}
	return err
}

// Close ends the stream; a Next that waits fails.
func (s *Stream) Close() error {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.stop(context.Canceled)
	return s.body.Close()
}
