package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/client"
	"meta9/session/client/eventtest"
)

const secret = "secret"

const realVM = "550e8400-e29b-41d4-a716-446655440000"

// realServer is meta9's own server over a store in memory, with one VM.
type realServer struct {
	t      *testing.T
	server *session.Server
	engine *storetest.Recorder

	mu    sync.Mutex
	peer  session.Peer
	away  bool       // nobody answers
	rng   *rand.Rand // nil: transports last
	conns []net.Conn // the server's ends
	cuts  int
}

func newRealServer(t *testing.T, lifetime time.Duration) *realServer {
	s := &realServer{
		t: t, engine: &storetest.Recorder{Engine: store.NewMemory()},
		peer: session.Peer{Who: fs.Principal{Admin: true}, Via: "test", Resumes: true},
	}
	st, err := store.Open(s.engine, store.Config{VMEvents: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	s.server = session.New(session.Config{
		Tree: fs.New(st, fs.Config{}), Lifetime: lifetime, Log: zerolog.Nop(),
		Auth: &auth.Keyring{Secret: []byte(secret), AdminGroups: []string{"admins"}, Now: time.Now},
	})
	t.Cleanup(func() {
		for _, c := range s.conns {
			c.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.server.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("store: %v", err)
		}
	})
	return s
}

// Dial is a client's Options.Dial.
func (s *realServer) Dial(context.Context) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, io.ErrClosedPipe
	}
	ours, theirs := net.Pipe()
	s.conns = append(s.conns, ours)
	go s.server.Serve(ours, s.peer)
	if s.rng == nil {
		return theirs, nil
	}
	s.cuts++
	return &flaky{Conn: theirs, left: 500 + s.rng.IntN(6000), silent: s.rng.IntN(2) == 0}, nil
}

func (s *realServer) dial(opt client.Options) *client.Client {
	s.t.Helper()
	opt.Dial = s.Dial
	c, err := client.Dial(s.t.Context(), "real", opt)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// create makes the VM.
func (s *realServer) create(c *client.Client) {
	s.t.Helper()
	if err := c.WriteFile(s.t.Context(), "ctl", []byte(`create {"uuid":"`+realVM+`"}`)); err != nil {
		s.t.Fatal(err)
	}
}

// drop cuts all transports; away: nobody answers until back.
func (s *realServer) drop(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *realServer) back() { s.with(func() { s.away = false }) }

// flaky is a transport that breaks after some bytes, in the middle of what is
// being sent. A silent one does not tell the server, which is then taken over.
type flaky struct {
	net.Conn
	silent bool

	mu     sync.Mutex
	left   int
	closed bool
}

func (f *flaky) spend(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n = min(n, f.left)
	f.left -= n
	return n
}

func (f *flaky) Read(p []byte) (int, error) {
	got, err := f.Conn.Read(p)
	n := f.spend(got)
	if n < got {
		f.Close()
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func (f *flaky) Write(p []byte) (int, error) {
	n := f.spend(len(p))
	if n < len(p) {
		f.Conn.Write(p[:n])
		f.Close()
		return n, io.ErrClosedPipe
	}
	return f.Conn.Write(p)
}

func (f *flaky) SetReadDeadline(t time.Time) error { return f.set(f.Conn.SetReadDeadline, t) }

func (f *flaky) SetWriteDeadline(t time.Time) error { return f.set(f.Conn.SetWriteDeadline, t) }

func (f *flaky) set(deadline func(time.Time) error, t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	return deadline(t)
}

func (f *flaky) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed = true; f.silent && f.left == 0 {
		return f.Conn.SetDeadline(time.Unix(1, 0)) // wakes only us
	}
	return f.Conn.Close()
}

func TestRealServer(t *testing.T) {
	s := newRealServer(t, time.Minute)
	c, ctx := s.dial(client.Options{User: "me"}), t.Context()
	s.create(c)
	keys := "vms/" + realVM + "/keys/"
	value := bytes.Repeat([]byte("x"), 1<<20)
	if err := c.WriteFile(ctx, keys+"big", value); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ReadFile(ctx, keys+"big"); err != nil || !bytes.Equal(got, value) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if err := c.WriteFile(ctx, keys+"big", append(value, 'y')); !errors.Is(err, errs.TooLarge) {
		t.Errorf("a value over the limit: %v", err)
	}
	file := openFile(t, c, keys+"new", os.O_RDWR|os.O_CREATE)
	if n, err := file.WriteAt(ctx, []byte("hello"), 0); n != 5 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Rename(ctx, keys+"new", keys+"big"); err != nil {
		t.Error(err)
	}
	info, err := c.Stat(ctx, keys+"big")
	if err != nil || info.Length != 5 || info.Muid != "admin" || time.Since(info.Mtime) > time.Minute {
		t.Errorf("stat %+v, %v", info, err)
	}
	if err := c.Remove(ctx, keys+"big"); err != nil {
		t.Error(err)
	}
	if list, err := c.ReadDir(ctx, keys); err != nil || len(list) != 0 {
		t.Errorf("listed %v, %v", names(list), err)
	}
	if _, err := c.ReadFile(ctx, keys); !errors.Is(err, errs.IsDir) {
		t.Errorf("read of a folder: %v", err)
	}
	if err := c.WriteFile(ctx, "ctl", []byte("nonsense")); !errors.Is(err, errs.Invalid) {
		t.Errorf("a verb that there is none: %v", err)
	}
}

// eventReader reads events, and counts how often each key was set.
type eventReader struct {
	t    *testing.T
	file *client.File
	seen map[string]int
}

func (r *eventReader) run(until string) {
	all, err := eventtest.Until(r.t.Context(), r.file, 400, until) // a transport must live for one reply
	if err != nil {
		r.t.Errorf("events: %v", err)
	}
	for _, e := range all {
		if e.Type == "key-set" {
			r.seen[e.Key]++
		}
	}
}

// Transports break in the middle of anything, with and without the server's
// knowledge; the session lives on. Every write happens once, is seen as one event,
// and none fails.
func TestRealServerStorm(t *testing.T) {
	const writers, rounds = 4, 150
	s := newRealServer(t, time.Minute)
	c, ctx := s.dial(client.Options{}), t.Context()
	s.create(c)
	keys := "vms/" + realVM + "/keys/"
	s.with(func() { s.rng = rand.New(rand.NewPCG(9, 2000)) })
	storm := s.dial(client.Options{})
	r := &eventReader{t: t, file: openFile(t, storm, "vms/"+realVM+"/events", os.O_RDONLY), seen: map[string]int{}}
	var all, reading sync.WaitGroup
	reading.Go(func() { r.run("end") })
	for w := range writers {
		all.Go(func() {
			for i := range rounds {
				name := fmt.Sprintf("%d-%d", w, i)
				if err := storm.WriteFile(ctx, keys+name, []byte(name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := c.WriteFile(ctx, keys+"end", nil); err != nil {
		t.Fatal(err)
	}
	reading.Wait()
	for i := range writers * rounds {
		name := fmt.Sprintf("%d-%d", i/rounds, i%rounds)
		if got, err := c.ReadFile(ctx, keys+name); err != nil || r.seen[name] != 1 || string(got) != name {
			t.Errorf("%s: %v; %d events; it has %q", name, err, r.seen[name], got)
		}
	}
	if err := r.file.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d transports", s.cuts)
	if s.cuts < 10 {
		t.Error("that was no storm")
	}
}

func (s *realServer) with(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

// After its lifetime a session is gone, and the client says what went with it.
func TestRealServerForgets(t *testing.T) {
	s := newRealServer(t, time.Millisecond)
	var opt client.Options
	ch := states(&opt)
	c, ctx := s.dial(opt), t.Context()
	s.create(c)
	key := "vms/" + realVM + "/keys/a"
	file := openFile(t, c, key, os.O_RDWR|os.O_CREATE)
	defer file.Close()
	events := openFile(t, c, "events", os.O_RDONLY)
	defer events.Close()
	for resumed := true; resumed; {
		s.with(func() { s.conns[len(s.conns)-1].Close() })
		resumed = nextUp(t, ch).Resumed
	}
	if n, err := file.WriteAt(ctx, []byte("v"), 0); n != 1 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	if _, err := events.ReadAt(ctx, make([]byte, 100), 0); !errors.Is(err, errs.Stale) {
		t.Errorf("events: %v", err)
	}
}
