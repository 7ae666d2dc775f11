package libvirt

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A message begins with its length, header and all, and six words (virnetprotocol.x).
const (
	headerLen = 28

	program = 0x20008086 // REMOTE_PROGRAM
	version = 1          // REMOTE_PROTOCOL_VERSION
)

// Types and statuses of messages.
const (
	typeCall, typeReply, typeMessage = 0, 1, 2
	statusOK, statusError            = 0, 1
)

// The procedures that are used (enum remote_procedure).
const (
	procOpen         = 1
	procAuthList     = 66
	procAuthPolkit   = 70
	procLibVersion   = 157
	procDomainState  = 212
	procListDomains  = 273
	procRegister     = 316
	procLifecycle    = 318 // a message
	openReadOnly     = 1   // VIR_CONNECT_RO
	eventLifecycle   = 0   // VIR_DOMAIN_EVENT_ID_LIFECYCLE
	authNone         = 0
	authPolkit       = 2
	maxAuth          = 20 // REMOTE_AUTH_TYPE_LIST_MAX
	bytesOfDomain    = 24 // at least: an empty name, a UUID, a number
	wantDomains      = 1  // need_results
	allDomains       = 0  // no flag: of every state
	registerAllOfAll = 0  // no domain: events of all
)

// header is what a message begins with.
type header struct {
	length, program, version, proc, kind, serial, status uint32
}

// Client is a connection to a libvirtd.
type Client struct {
	conn   net.Conn
	cfg    Config
	events *rate.Limiter
	done   chan struct{} // closed when the reading goroutine has ended
	ctx    context.Context
	cancel context.CancelFunc // ends a wait of the reading goroutine

	calling chan struct{} // has a token while a call is made
	serial  uint32        // of the last call; for whoever calls

	mu     sync.Mutex
	proc   uint32      // of the call that waits
	want   uint32      // its serial; 0: none waits
	answer chan answer // capacity 1; the call's
	err    error       // why the connection has ended
}

type answer struct {
	status uint32
	body   []byte
}

// Dial connects to the socket at path, opens URI for reading and asks for events. The
// Client lives on when ctx ends, until Close or until the connection does.
func Dial(ctx context.Context, path string, cfg Config) (*Client, error) {
	cfg.CallTime = cmp.Or(cfg.CallTime, 10*time.Second)
	timed, cancel := context.WithTimeout(ctx, cfg.CallTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(timed, "unix", path)
	if err != nil {
		return nil, err
	}
	c := &Client{
		conn: conn, cfg: cfg, events: rate.NewLimiter(eventRate, eventBurst),
		done: make(chan struct{}), calling: make(chan struct{}, 1),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	go c.read()
	if err := c.open(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection and waits for its goroutine.
func (c *Client) Close() {
	c.fail(net.ErrClosed)
	<-c.done
}

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the connection has ended, or nil.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection; the first error is why.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.cancel()
		_ = c.conn.Close()
	}
}

// open does what must come before other calls.
func (c *Client) open(ctx context.Context) error {
	r, err := c.call(ctx, procAuthList, nil)
	if err != nil {
		return err
	}
	n := r.uint()
	if n > maxAuth {
		return errShort
	}
	// The first that is known; libvirt offers root none but "none".
	way := uint32(authNone)
	for i := range n {
		if is := r.uint(); i == 0 || is == authNone {
			way = is
		}
	}
	if err := r.end(); err != nil {
		return err
	}
	switch way {
	case authNone:
	case authPolkit:
		if r, err = c.call(ctx, procAuthPolkit, nil); err == nil {
			r.int()
			err = r.end()
		}
		if err != nil {
			return fmt.Errorf("polkit: %w", err)
		}
	default:
		return errors.New("libvirtd asks for a password (auth_unix_ro in its settings); meta9d needs none, polkit or a socket of its own")
	}
	if r, err = c.call(ctx, procOpen, appendInt(appendText(appendInt(nil, 1), URI), openReadOnly)); err == nil {
		err = r.end()
	}
	if err != nil {
		return err
	}
	if r, err = c.call(ctx, procRegister, appendInt(appendInt(nil, eventLifecycle), registerAllOfAll)); err != nil {
		return err
	}
	r.int()
	return r.end()
}

// Version asks for libvirt's version.
func (c *Client) Version(ctx context.Context) (Version, error) {
	r, err := c.call(ctx, procLibVersion, nil)
	if err != nil {
		return 0, err
	}
	v := Version(r.hyper())
	return v, r.end()
}

// Domains are the UUIDs of all domains, running or not; at most MaxDomains.
func (c *Client) Domains(ctx context.Context) ([]string, error) {
	r, err := c.call(ctx, procListDomains, appendInt(appendInt(nil, wantDomains), allDomains))
	if err != nil {
		return nil, err
	}
	n := r.uint()
	if n > MaxDomains || int(n) > len(r.b)/bytesOfDomain {
		return nil, errShort
	}
	uuids := make([]string, 0, n)
	for range n {
		uuids = append(uuids, r.domain())
	}
	r.uint() // their number, once more
	return uuids, r.end()
}

// State asks for a domain's state. IsNoDomain tells of an error that there is no such
// domain.
func (c *Client) State(ctx context.Context, uuid string) (State, error) {
	args, err := appendDomain(nil, uuid)
	if err != nil {
		return State{}, err
	}
	r, err := c.call(ctx, procDomainState, appendInt(args, 0))
	if err != nil {
		return State{}, err
	}
	s := State{r.int(), r.int()}
	return s, r.end()
}

// call makes a call and waits for its answer, at most CallTime. One that is not answered
// in that time, or before ctx ends, ends the connection: the answer could come later.
func (c *Client) call(ctx context.Context, proc uint32, args []byte) (*cursor, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTime)
	defer cancel()
	select {
	case c.calling <- struct{}{}:
		defer func() { <-c.calling }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { c.fail(c.lateness(ctx)) })
	defer stop()

	c.serial = max(c.serial+1, 1)
	answered := make(chan answer, 1)
	c.mu.Lock()
	c.proc, c.want, c.answer = proc, c.serial, answered
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(appendCall(nil, proc, c.serial, args)); err != nil {
		c.fail(err)
		return nil, c.Err()
	}
	select {
	case a := <-answered:
		r := &cursor{b: a.body}
		if a.status == statusError {
			return nil, failure(r)
		}
		return r, nil
	case <-c.done:
		return nil, c.Err()
	}
}

// lateness is why a call that ctx ended was given up.
func (c *Client) lateness(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("libvirtd does not answer within %v", c.cfg.CallTime)
	}
	return context.Cause(ctx)
}

// appendCall appends a call as a message.
func appendCall(b []byte, proc, serial uint32, args []byte) []byte {
	for _, word := range []uint32{uint32(headerLen + len(args)), program, version, proc, typeCall, serial, statusOK} {
		b = appendInt(b, word)
	}
	return append(b, args...)
}

// failure is the error of a remote_error, of which the code and the text are of use.
func failure(r *cursor) error {
	e := &Error{Code: r.int()}
	r.int() // where in libvirt it arose
	if r.option() {
		e.Text = string(r.text())
	}
	if r.bad {
		return errShort
	}
	return e
}

// read reads what comes in, until the connection ends.
func (c *Client) read() {
	defer close(c.done)
	in := bufio.NewReader(c.conn)
	for {
		if err := c.next(in); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("libvirtd has ended the connection")
			}
			c.fail(err)
			return
		}
	}
}

// next reads one message.
func (c *Client) next(in *bufio.Reader) error {
	var b [headerLen]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return err
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	h := header{word(0), word(1), word(2), word(3), word(4), word(5), word(6)}
	most := uint32(maxEvent)
	if h.kind == typeReply {
		most = maxAnswer
	}
	if h.length < headerLen || h.length > headerLen+most {
		return fmt.Errorf("libvirtd sent a message of %d bytes; from %d to %d are taken", h.length, headerLen, headerLen+most)
	}
	if h.kind == typeReply {
		return c.reply(in, h)
	}
	if err := c.events.Wait(c.ctx); err != nil {
		return err
	}
	body := int(h.length - headerLen)
	if h.kind != typeMessage || h.program != program || h.proc != procLifecycle {
		_, err := in.Discard(body) // of a later version, or for somebody else
		return err
	}
	e, err := readEvent(in, body)
	if err == nil && c.cfg.OnEvent != nil {
		c.cfg.OnEvent(e)
	}
	return err
}

// readEvent reads a remote_domain_event_callback_lifecycle_msg.
func readEvent(in io.Reader, n int) (Event, error) {
	r := &cursor{b: make([]byte, n)}
	if _, err := io.ReadFull(in, r.b); err != nil {
		return Event{}, err
	}
	r.int() // which of our callbacks
	e := Event{UUID: r.domain(), Kind: r.int()}
	r.int() // more of it
	return e, r.end()
}

// reply reads an answer, if it is the one that is waited for.
func (c *Client) reply(in io.Reader, h header) error {
	c.mu.Lock()
	awaited := c.want != 0 && h.serial == c.want && h.proc == c.proc && h.program == program
	c.mu.Unlock()
	if !awaited || h.status != statusOK && h.status != statusError {
		return errors.New("libvirtd sent an answer that nobody has asked for")
	}
	body := make([]byte, h.length-headerLen)
	if _, err := io.ReadFull(in, body); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer <- answer{h.status, body} // has room: want is 0 after it
	c.want = 0
	return nil
}
