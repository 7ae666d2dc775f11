package qmp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what New needs. Zero fields take the defaults.
type Config struct {
	// GreetTime is how long the greeting may take; 10 s. A QEMU serves one client of a
	// socket at a time; others wait for the greeting.
	GreetTime time.Duration
	// Limit is how many bytes a message may have that comes in; 64 MiB.
	Limit int
	// Unasked is Limit while no answer to a Pass is to come; 0: Limit. Some bytes more may
	// have been read by then.
	Unasked int
	// OnEvent is called for every event, in the order in which they come, maybe
	// before New returns. It must return soon and must not call the Client.
	OnEvent func(Event)
}

// Client is a connection to a QMP server, past the negotiation.
type Client struct {
	conn     net.Conn
	dec      *Decoder
	onEvent  func(Event)
	greeting Greeting
	unasked  int           // Config.Unasked
	sending  chan struct{} // has a token while a goroutine writes
	done     chan struct{} // closed when the reading goroutine has ended
	passes   atomic.Int32  // calls that are Passes

	mu     sync.Mutex
	calls  map[uint64]call // nil: the connection has ended
	lastID uint64
	err    error // why it has ended
}

// call is a command that was sent, and has no answer yet.
type call struct {
	done chan<- answer // capacity 1
	pass bool
}

// answer is the answer to a command: a result or an error.
type answer struct {
	ret json.RawMessage
	err *Error
}

// message is anything that a server says.
type message struct {
	QMP    *Greeting       `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *Error          `json:"error"`
	ID     json.RawMessage `json:"id"`
	Event
}

// Dial connects to the unix socket at path and negotiates; see New.
func Dial(ctx context.Context, path string, cfg Config) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return New(ctx, conn, cfg)
}

// New waits for the greeting on conn and negotiates: it enables OOB where that is
// offered. It takes conn over, and closes it on an error. The Client lives on when
// ctx ends, until Close or until the connection does.
func New(ctx context.Context, conn net.Conn, cfg Config) (*Client, error) {
	limit := cmp.Or(cfg.Limit, 64<<20)
	c := &Client{
		conn: conn, onEvent: cfg.OnEvent, unasked: cmp.Or(cfg.Unasked, limit),
		sending: make(chan struct{}, 1), done: make(chan struct{}), calls: make(map[uint64]call),
	}
	c.dec = NewDecoder(incoming{c}, limit)
	if err := c.greet(ctx, cmp.Or(cfg.GreetTime, 10*time.Second)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	go c.read()
	caps := Command{Name: Capabilities}
	if slices.Contains(c.greeting.Capabilities, OOB) {
		caps.Arguments = map[string]any{"enable": []string{OOB}}
	}
	if _, err := c.Do(ctx, caps); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// incoming reads the connection for the Decoder. It ends the connection where a message has more
// than Config.Unasked bytes and no Pass waits for an answer.
type incoming struct{ c *Client }

func (in incoming) Read(b []byte) (int, error) {
	if in.c.dec.Held() > in.c.unasked && in.c.passes.Load() == 0 {
		return 0, ErrTooLarge
	}
	return in.c.conn.Read(b)
}

// ErrNoGreeting is what New returns where nothing came in time.
var ErrNoGreeting = errors.New("no greeting")

// greet reads the greeting.
func (c *Client) greet(ctx context.Context, limit time.Duration) error {
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var m message
	err := withDeadline(timed, c.conn.SetReadDeadline, func() error {
		text, err := c.dec.Next()
		if err != nil {
			return err
		}
		if json.Unmarshal(text, &m) != nil {
			m = message{}
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w within %s; another client may have this socket", ErrNoGreeting, limit)
	case err != nil:
		return fmt.Errorf("no greeting: %w", inWords(err))
	case m.QMP == nil:
		return errors.New("no greeting: this is not QMP")
	}
	c.greeting = *m.QMP
	return nil
}

// withDeadline runs f. When ctx ends meanwhile, it sets a deadline in the past with set,
// so that f's reads or writes fail.
func withDeadline(ctx context.Context, set func(time.Time) error, f func() error) error {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = set(time.Unix(1, 0))
		close(fired)
	})
	err := f()
	if !stop() {
		<-fired
		_ = set(time.Time{})
	}
	return err
}

// inWords is an error that says how a connection ended.
func inWords(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection ended in the middle of a message")
	case errors.Is(err, io.EOF):
		return errors.New("the connection ended")
	case errors.Is(err, ErrTooLarge):
		return errors.New("a message is larger than the limit")
	}
	return err
}

// Greeting is what the server said first.
func (c *Client) Greeting() Greeting { return c.greeting }

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection has ended; nil as long as it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. Calls that wait fail. It must not be called by
// OnEvent, which is not called after Close has returned.
func (c *Client) Close() {
	c.fail(net.ErrClosed)
	<-c.done
}

// fail ends the connection. The first reason is kept.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = inWords(err)
	}
	c.calls = nil
	c.mu.Unlock()
	_ = c.conn.Close()
}

// read reads messages until the connection ends.
func (c *Client) read() {
	defer close(c.done)
	for {
		text, err := c.dec.Next()
		if err == nil {
			err = c.handle(text)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// handle passes on one message. It ignores messages that it does not know (section 5).
func (c *Client) handle(text []byte) error {
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("not QMP: %w", err)
	}
	switch {
	case m.Event.Name != "":
		if c.onEvent != nil {
			c.onEvent(m.Event)
		}
	case m.Error != nil && m.ID == nil:
		// All our commands have an id. The server could not read one of them, and does
		// not say which.
		return fmt.Errorf("a command was not understood: %w", m.Error)
	case m.Error != nil || m.Return != nil:
		c.answer(m.ID, answer{m.Return, m.Error})
	}
	return nil
}

// answer passes an answer to the call that waits for it, if it still waits.
func (c *Client) answer(id json.RawMessage, a answer) {
	n, err := strconv.ParseUint(string(id), 10, 64)
	if err != nil {
		return
	}
	if call, ok := c.take(n); ok {
		call.done <- a
	}
}

// take removes a call; false: it is not there.
func (c *Client) take(id uint64) (call, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call, ok := c.calls[id]
	delete(c.calls, id)
	if call.pass {
		c.passes.Add(-1)
	}
	return call, ok
}
