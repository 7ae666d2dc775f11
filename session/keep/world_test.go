package keep_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/rarelog/logtest"
	"meta9/session"
	"meta9/session/keep"
	"meta9/session/redial/redialtest"
)

const (
	vmOne   = "550e8400-e29b-41d4-a716-446655440000"
	patient = 20 * time.Second // how long a test waits for what must come
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is meta9d without its channels: a disk with one VM, and stores and servers
// over it, one after the other.
type host struct {
	t      testing.TB
	disk   *storetest.Disk
	engine *storetest.Recorder
	store  *store.Store
	log    logtest.Log

	mu     sync.Mutex
	server *session.Server
	who    fs.Principal
	change func(*session.Config) // of the next server; nil: nothing
	away   bool                  // nobody answers
	conns  []net.Conn            // ends that the server has
	made   int                   // transports so far
	cut    *rand.Rand            // not nil: transports end at random, after
	most   int                   // so many bytes at most
	cuts   int
	served sync.WaitGroup

	torn bool // the client ends within a frame
}

func newHost(t testing.TB) *host {
	h := &host{t: t, disk: storetest.NewDisk(), who: fs.Principal{VM: vmOne}}
	h.start()
	if res := h.store.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vmOne + `"}`}); res.Err != nil {
		t.Fatal(res.Err)
	}
	t.Cleanup(func() {
		h.stop()
		if t.Failed() {
			t.Log(h.log.String())
		}
	})
	return h
}

// start makes a server that knows of no session.
func (h *host) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.engine = &storetest.Recorder{Engine: h.disk}
	st, err := store.Open(h.engine, store.Config{Log: zerolog.Nop(), VMEvents: 10000})
	if err != nil {
		h.t.Fatal(err)
	}
	h.store = st
	cfg := session.Config{Tree: fs.New(st, fs.Config{Log: zerolog.Nop()}), Log: zerolog.Nop(), Lifetime: time.Hour}
	if h.change != nil {
		h.change(&cfg)
	}
	h.server, h.away = session.New(cfg), false
}

// stop ends the server as a kill does: nothing of its sessions is left.
func (h *host) stop() {
	h.mu.Lock()
	h.away = true
	for _, c := range h.conns {
		c.Close()
	}
	h.conns = nil
	server := h.server
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := server.Drain(ctx); err != nil {
		h.t.Errorf("drain: %v", err)
	}
	h.served.Wait()
	if err := h.store.Close(); err != nil {
		h.t.Errorf("store: %v", err)
	}
}

// drop cuts all transports.
func (h *host) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		c.Close()
	}
	h.conns = nil
}

// Dial is a keeper's Options.Dial.
func (h *host) Dial(context.Context) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.made++
	if h.away {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := redialtest.Pair(h.t)
	h.conns = append(h.conns, ours)
	h.served.Add(1)
	go func(s *session.Server, p session.Peer) {
		defer h.served.Done()
		s.Serve(ours, p)
	}(h.server, session.Peer{Who: h.who, Via: "test", Resumes: !h.who.Nobody()})
	if h.cut == nil {
		return theirs, nil
	}
	h.cuts++
	return &scissors{Conn: theirs, left: h.cut.IntN(h.most), read: h.cut.IntN(40) == 0}, nil
}

// cutting makes transports end after at most so many bytes; 0: no more.
func (h *host) cutting(seed uint64, most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most, h.cut = most, nil
	if most > 0 {
		h.cut = rand.New(rand.NewPCG(seed, 99))
	}
}

// scissors is a transport that ends after a number of bytes: of both directions, or
// only of those that are read, which tears a reply.
type scissors struct {
	net.Conn
	mu   sync.Mutex
	left int
	read bool
}

// take gives how many of n bytes may still pass.
func (s *scissors) take(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, s.left)
	s.left -= n
	return n
}

func (s *scissors) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p[:min(len(p), 500)])
	if got := s.take(n); got < n {
		s.Close()
		return got, io.EOF
	}
	return n, err
}

func (s *scissors) Write(p []byte) (int, error) {
	if s.read {
		return s.Conn.Write(p)
	}
	n := s.take(len(p))
	_, err := s.Conn.Write(p[:n])
	if n < len(p) {
		s.Close()
		return n, io.ErrClosedPipe
	}
	return n, err
}

// value is a key of the VM; "-" when there is none.
func (h *host) value(name string) string {
	e := h.store.Cell(vmOne).VM().Get(0, name)
	if e == nil {
		return "-"
	}
	return e.Value
}

// put sets a key as an admin would.
func (h *host) put(name, value string) {
	h.t.Helper()
	res := h.store.Do(&store.Intent{Kind: store.Put, Cell: h.store.Cell(vmOne), Name: name, Data: value, By: "admin"})
	if res.Err != nil {
		h.t.Fatal(res.Err)
	}
}

func (h *host) remove(name string) {
	h.t.Helper()
	res := h.store.Do(&store.Intent{Kind: store.Remove, Cell: h.store.Cell(vmOne), Name: name, By: "admin"})
	if res.Err != nil {
		h.t.Fatal(res.Err)
	}
}

// until waits for what must come.
func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patient); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%s never came", what)
		}
	}
}

// parked waits until the server has parked that many sessions.
func (h *host) parked(n int) {
	h.t.Helper()
	h.until("the parked session", func() bool { return h.server.Stats().Parked == n })
}

// keeper is a keeper of the host's, and gives the client's end.
func (h *host) keeper(opt keep.Options) net.Conn {
	h.t.Helper()
	if opt.Dial == nil {
		opt.Dial = h.Dial
	}
	opt.Log = zerolog.New(&h.log)
	k, err := keep.Dial(h.t.Context(), opt)
	if err != nil {
		h.t.Fatal(err)
	}
	down, end := redialtest.Pair(h.t)
	done := make(chan error, 1)
	go func() { done <- k.Serve(context.Background(), down) }()
	h.t.Cleanup(func() {
		end.Close()
		select {
		case err := <-done:
			if err != nil && !h.torn {
				h.t.Errorf("the keeper ended with %v", err)
			}
		case <-time.After(patient):
			h.t.Error("the keeper did not end")
		}
	})
	return end
}

// mount is a 9P2000.L client, p9's, behind a keeper, and its root.
func (h *host) mount() p9.File {
	h.t.Helper()
	c, err := p9.NewClient(h.keeper(keep.Options{}))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	root, err := c.Attach("")
	if err != nil {
		h.t.Fatal(err)
	}
	return root
}
