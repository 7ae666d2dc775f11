package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/client"
	"meta9/session/redial"
	"meta9/session/wire"
)

// pending is a client of 9P2000.e.n with two requests that the server has and does
// not answer: a change, whose commit waits for release, and a read of events.
type pending struct {
	*realServer
	c            *client.Client
	change, read chan error
	release      func()
}

func newPending(t *testing.T, lifetime time.Duration, opt client.Options) *pending {
	t.Helper()
	s := newRealServer(t, lifetime)
	p := &pending{realServer: s, c: s.dial(opt), change: make(chan error, 1), read: make(chan error, 1)}
	s.create(p.c)
	if p.c.Dialect() != "9P2000.e.n.2" {
		t.Fatalf("speaks %s", p.c.Dialect())
	}
	events := openFile(t, p.c, "vms/"+realVM+"/events", os.O_RDONLY)
	return p.ask(t.Context(), events)
}

// ask makes the two requests.
func (p *pending) ask(ctx context.Context, events *client.File) *pending {
	p.t.Helper()
	entered, release := p.engine.Block()
	p.release = release
	p.t.Cleanup(release)
	before := p.server.Stats().Requests
	go func() { p.read <- second(events.ReadAt(ctx, make([]byte, 100), 0)) }()
	go func() { p.change <- p.c.WriteFile(ctx, onceKeys+"a", []byte("v")) }()
	<-entered
	until(p.t, "the read blocks", func() bool { return p.server.Stats().Requests >= before+2 })
	return p
}

// written is how the change ended, at the server.
func (p *pending) written() bool {
	_, err := p.c.Stat(p.t.Context(), onceKeys+"a")
	if err != nil && !errors.Is(err, errs.NotFound) {
		p.t.Error(err)
	}
	return err == nil
}

// parked waits until the client's session is parked.
func (p *pending) parked() {
	p.t.Helper()
	until(p.t, "the session is parked", func() bool { return p.server.Stats().Parked == 1 })
}

// A change that is under way when the transport is lost goes on, and its caller
// sees a pause; so does who waits for an event.
func TestPause(t *testing.T) {
	p := newPending(t, time.Hour, client.Options{})
	for range 3 {
		p.drop(true)
		p.parked()
		p.back()
		until(t, "the client is back", func() bool { return p.server.Stats().Parked == 0 })
	}
	select {
	case err := <-p.change:
		t.Fatalf("the change ended with %v", err)
	case err := <-p.read:
		t.Fatalf("the read ended with %v", err)
	default:
	}
	p.drop(true)
	p.parked()
	p.release() // answered while nobody is there
	p.back()
	if err := <-p.change; err != nil || !p.written() {
		t.Errorf("the change: %v", err)
	}
	if err := <-p.read; err != nil {
		t.Errorf("the read: %v", err)
	}
}

// With the session goes what is known of a change; nothing else fails for it but a
// stream.
func TestExpiredIsUnknown(t *testing.T) {
	p := newPending(t, time.Millisecond, client.Options{})
	p.drop(true)
	until(t, "the session has expired", func() bool { return p.server.Stats().Sessions == 0 })
	p.back()
	if err := <-p.change; !errors.Is(err, client.ErrUnknown) {
		t.Errorf("the change: %v", err)
	}
	if err := <-p.read; !errors.Is(err, errs.Stale) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("the read: %v", err)
	}
	p.release()
}

// Who proves by MUMBLE who he is gets his session back by the message's key, with
// what he had asked.
func TestNumbersOfMumble(t *testing.T) {
	s := newRealServer(t, time.Hour)
	s.peer = session.Peer{Via: "tcp"}
	message := auth.Message{Key: [8]byte{1, 2, 3}, Group: "admins"}
	c := s.dial(client.Options{Mumble: message.Sign([]byte(secret))})
	s.create(c)
	p := &pending{realServer: s, c: c, change: make(chan error, 1), read: make(chan error, 1)}
	p.ask(t.Context(), openFile(t, c, "vms/"+realVM+"/events", os.O_RDONLY))
	p.drop(true)
	p.parked()
	p.back()
	p.release()
	if err := errors.Join(<-p.change, <-p.read); err != nil || !p.written() {
		t.Error(err)
	}
	if st := p.server.Stats(); st.Resumed != 1 || st.Sessions != 1 {
		t.Errorf("%+v", st)
	}
}

// A server without numbers knows nothing of the session.
func TestNumbersAreGone(t *testing.T) {
	f, s := newFake(t), newRealServer(t, time.Hour)
	var other atomic.Bool
	c, err := client.Dial(t.Context(), "either", client.Options{Dial: func(ctx context.Context) (net.Conn, error) {
		if other.Load() {
			return f.Dial(ctx)
		}
		return s.Dial(ctx)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.create(c)
	entered, release := s.engine.Block()
	defer release()
	change := make(chan error)
	go func() { change <- c.WriteFile(t.Context(), onceKeys+"a", []byte("v")) }()
	<-entered
	other.Store(true)
	s.drop(false)
	if err := <-change; !errors.Is(err, client.ErrUnknown) {
		t.Errorf("the change: %v", err)
	}
	if _, err := c.Stat(t.Context(), "keys"); err != nil || c.Dialect() != "9P2000.e" {
		t.Errorf("%s: %v", c.Dialect(), err)
	}
}

// When patience ends, so do all requests, and new ones do not begin. The session
// is still there afterwards, with all its tags.
func TestPatienceEnds(t *testing.T) {
	p := newPending(t, time.Hour, client.Options{Patience: 50 * time.Millisecond})
	p.drop(true)
	if err := <-p.change; !errors.Is(err, client.ErrUnknown) || !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("the change: %v", err)
	}
	if err := <-p.read; errors.Is(err, client.ErrUnknown) || !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("the read: %v", err)
	}
	if err := p.c.Remove(t.Context(), onceKeys+"a"); !errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("a later change: %v", err)
	}
	p.release()
	p.back()
	until(t, "the client is back", func() bool { return p.c.Dialect() != "" })
	if n := p.server.Stats().Resumed; n != 1 {
		t.Errorf("%d resumed", n)
	}
	if !p.written() {
		t.Error("the change had begun, and is gone")
	}
	p.allTags()
}

// allTags makes more requests at once than there are tags.
func (p *pending) allTags() {
	p.t.Helper()
	var all sync.WaitGroup
	for range wire.MaxNumbers {
		all.Go(func() {
			if _, err := p.c.Stat(p.t.Context(), onceKeys); err != nil {
				p.t.Error(err)
			}
		})
	}
	all.Wait()
}

// A context that ends while there is no transport ends a read at once. A change is
// in doubt if the server may have it.
func TestContextEndsWhileDown(t *testing.T) {
	s := newRealServer(t, time.Hour)
	c := s.dial(client.Options{Patience: -1})
	s.create(c)
	p := &pending{realServer: s, c: c, change: make(chan error, 1), read: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.ask(ctx, openFile(t, c, "vms/"+realVM+"/events", os.O_RDONLY))
	s.drop(true)
	p.parked()
	cancel()
	if err := <-p.read; !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("the read: %v", err)
	}
	if err := <-p.change; !errors.Is(err, context.Canceled) || !errors.Is(err, client.ErrUnknown) {
		t.Errorf("the change: %v", err)
	}
	p.release()
	s.back()
	if !p.written() {
		t.Error("the change had begun, and is gone")
	}
	p.allTags()
}

// plug is a transport that takes nothing while it is plugged, until it is closed.
type plug struct {
	net.Conn
	plugged chan struct{} // closed: it is
	waits   chan struct{} // closed when a write waits
	closed  chan struct{}
	once    sync.Once
}

func (p *plug) Write(b []byte) (int, error) {
	select {
	case <-p.plugged:
		close(p.waits)
		<-p.closed
		return 0, net.ErrClosed
	default:
		return p.Conn.Write(b)
	}
}

func (p *plug) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}

// A change that never left is not in doubt: it is made by the next transport, or,
// when its context or patience ends before that, never.
func TestNeverLeft(t *testing.T) {
	for _, tt := range []struct {
		name     string
		patience time.Duration
		cancel   bool
		want     error
	}{
		{"waits", 0, false, nil},
		{"context ends", 0, true, context.Canceled},
		{"patience ends", 50 * time.Millisecond, false, client.ErrUnavailable},
	} {
		s := newRealServer(t, time.Hour)
		first := &plug{plugged: make(chan struct{}), waits: make(chan struct{}), closed: make(chan struct{})}
		opt := client.Options{Patience: tt.patience, Dial: func(ctx context.Context) (net.Conn, error) {
			conn, err := s.Dial(ctx)
			if err != nil || first.Conn != nil {
				return conn, err
			}
			first.Conn = conn
			return first, nil
		}}
		c, err := client.Dial(t.Context(), "plugged", opt)
		if err != nil {
			t.Fatal(err)
		}
		s.create(c)
		close(first.plugged)
		ctx, cancel := context.WithCancel(t.Context())
		change := make(chan error, 1)
		go func() { change <- c.WriteFile(ctx, onceKeys+"a", []byte("v")) }()
		<-first.waits
		s.drop(true)
		until(t, "the loss is noticed", func() bool { return c.Dialect() == "" })
		if tt.cancel {
			cancel()
		} else if tt.want == nil {
			s.back()
		}
		if err = <-change; !errors.Is(err, tt.want) || errors.Is(err, client.ErrUnknown) {
			t.Errorf("%s: %v", tt.name, err)
		}
		s.back()
		until(t, "the client is back", func() bool { return c.Dialect() != "" })
		if _, err := c.Stat(t.Context(), onceKeys+"a"); errors.Is(err, errs.NotFound) != (tt.want != nil) {
			t.Errorf("%s: then %v", tt.name, err)
		}
		cancel()
		c.Close()
	}
}

// Close does not wait for a server that is away, and says what is in doubt.
func TestCloseWhileDown(t *testing.T) {
	p := newPending(t, time.Hour, client.Options{})
	p.drop(true)
	p.parked()
	if err := p.c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-p.change; !errors.Is(err, client.ErrUnknown) || !errors.Is(err, client.ErrClosed) {
		t.Errorf("the change: %v", err)
	}
	if err := <-p.read; !errors.Is(err, client.ErrClosed) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("the read: %v", err)
	}
}

// readers are more reads of events than there are tags: all that can have one
// block. Each tells how it ended.
func (s *realServer) readers(ctx context.Context, events *client.File) (ended chan error) {
	const n = redial.MaxRequests/2 + 50
	ended = make(chan error, n)
	before := s.server.Stats().Requests
	for range n {
		go func() { ended <- second(events.ReadAt(ctx, make([]byte, 100), 0)) }()
	}
	until(s.t, "all block", func() bool { return s.server.Stats().Requests >= before+redial.MaxRequests/2 })
	return ended
}

// All tags are in use by reads that block, each of which is flushed, while
// transports go: as many numbers as a Tresume may have, and none is forgotten.
func TestFlushesOverCuts(t *testing.T) {
	s := newRealServer(t, time.Hour)
	c := s.dial(client.Options{})
	s.create(c)
	events := openFile(t, c, "vms/"+realVM+"/events", os.O_RDONLY)
	for round := range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := s.readers(ctx, events)
		s.drop(round%2 == 0)
		cancel()
		if round%3 == 0 {
			s.drop(round%2 == 0)
		}
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		s.back()
		p := &pending{realServer: s, c: c}
		p.allTags()
	}
	if err := events.Close(); err != nil {
		t.Error(err)
	}
	if n := s.server.Stats().Sessions; n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// The end of patience reaches those, too, who wait for a tag.
func TestPatienceWithoutTags(t *testing.T) {
	s := newRealServer(t, time.Hour)
	c := s.dial(client.Options{Patience: 50 * time.Millisecond})
	s.create(c)
	events := openFile(t, c, "vms/"+realVM+"/events", os.O_RDONLY)
	ended := s.readers(t.Context(), events)
	s.drop(true)
	for range cap(ended) {
		if err := <-ended; !errors.Is(err, client.ErrUnavailable) {
			t.Error(err)
		}
	}
}

// A session that was lost again before the attach was answered has not the fids
// that the client had.
func TestAttachIsLost(t *testing.T) {
	f := newFake(t)
	f.put("keys/a", []byte("value"))
	c := f.dial(client.Options{})
	file := openFile(t, c, "keys/a", os.O_RDONLY)
	defer file.Close()
	f.next(wire.Tattach, doCut)
	f.forget()
	b := make([]byte, 10)
	if n, err := file.ReadAt(t.Context(), b, 0); err != nil || string(b[:n]) != "value" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}
