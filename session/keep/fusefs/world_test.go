//go:build linux

package fusefs

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/session"
	"meta9/session/keep"
	"meta9/session/redial/redialtest"
)

const (
	vmOne      = "550e8400-e29b-41d4-a716-446655440000"
	ringEvents = 1000        // that a VM keeps
	waiting    = time.Minute // how long a test waits for what must come
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server with one VM, and a mount of it without a kernel: the test calls what a
// kernel would call, and notes what it is told to forget.
type world struct {
	*FS
	t      *testing.T
	store  *store.Store
	server *session.Server

	mu     sync.Mutex
	away   bool
	conns  []net.Conn
	served sync.WaitGroup

	sent   atomic.Int64 // bytes of requests
	hears  sync.RWMutex // whoever has it keeps all answers of the server back
	forgot sync.Map     // node -> how often the kernel was told to forget it
	stuck  sync.Map     // node -> a channel that the kernel waits for when it is first told
	calls  *keep.Calls
	rev    uint64 // of the host's last change
}

// sending counts what is sent.
type sending struct {
	net.Conn
	w *world
}

func (s sending) Write(p []byte) (int, error) {
	s.w.sent.Add(int64(len(p)))
	return s.Conn.Write(p)
}

func (s sending) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.w.hears.RLock()
	defer s.w.hears.RUnlock()
	return n, err
}

// InodeNotify is the kernel's.
func (w *world) InodeNotify(node uint64, off, _ int64) fuse.Status {
	if off >= 0 {
		w.t.Error("the kernel has no pages of ours")
	}
	if until, ok := w.stuck.LoadAndDelete(node); ok {
		<-until.(chan struct{})
	}
	n, _ := w.forgot.LoadOrStore(node, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	return fuse.OK
}

// Dial makes a transport.
func (w *world) Dial(context.Context) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := redialtest.Pair(w.t)
	w.conns = append(w.conns, ours)
	w.served.Go(func() {
		w.server.Serve(ours, session.Peer{Who: fs.Principal{VM: vmOne}, Via: "test", Resumes: true})
	})
	return sending{theirs, w}, nil
}

// cut ends the transport, and refuses others while away.
func (w *world) cut(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// renew ends the server, and lets the mount have a session of another one.
func (w *world) renew() {
	w.t.Helper()
	w.cut(true)
	w.until("the loss", func() bool { w.FS.mu.Lock(); defer w.FS.mu.Unlock(); return !w.live() })
	w.served.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.server
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waiting)
		defer cancel()
		if err := old.Drain(ctx); err != nil {
			w.t.Errorf("drain: %v", err)
		}
	})
	w.server = session.New(session.Config{Tree: fs.New(w.store, fs.Config{Log: zerolog.Nop()}), Log: zerolog.Nop(), Lifetime: time.Hour})
	w.away = false
}

// newWorld mounts a part of the VM's tree.
func newWorld(t *testing.T, aname string, cached bool) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	if w.store, err = store.Open(storetest.NewDisk(), store.Config{Log: zerolog.Nop(), VMEvents: ringEvents}); err != nil {
		t.Fatal(err)
	}
	w.server = session.New(session.Config{Tree: fs.New(w.store, fs.Config{Log: zerolog.Nop()}), Log: zerolog.Nop(), Lifetime: time.Hour})
	if r := w.store.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vmOne + `"}`}); r.Err != nil {
		t.Fatal(r.Err)
	}
	k, err := keep.Dial(t.Context(), keep.Options{Dial: w.Dial, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	w.calls = k.Calls(context.Background())
	if w.FS, err = New(w.calls, "root", aname, 0, cached); err != nil {
		t.Fatal(err)
	}
	w.begin(w)
	t.Cleanup(func() {
		w.calls.Close()
		w.cut(true)
		ctx, cancel := context.WithTimeout(context.Background(), waiting)
		defer cancel()
		if err := w.server.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
		w.served.Wait()
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if cached {
		w.until("the cache", func() bool { w.FS.mu.Lock(); defer w.FS.mu.Unlock(); return w.live() })
	}
	return w
}

// sticks has the mount stand still when it has the kernel forget a key, which it knows: stands
// waits for that moment, and goOn ends it.
func (w *world) sticks(path ...string) (stands, goOn func()) {
	w.t.Helper()
	id, code := w.look(path...)
	if !code.Ok() {
		w.t.Fatal(code)
	}
	until := make(chan struct{})
	w.stuck.Store(id, until)
	goOn = sync.OnceFunc(func() { close(until) })
	w.t.Cleanup(goOn)
	return func() {
		w.t.Helper()
		w.until("the mount stands still", func() bool { _, waits := w.stuck.Load(id); return !waits })
	}, goOn
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(waiting); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s never came", what)
		}
	}
}

// host changes a key as an admin does.
func (w *world) host(kind store.OpKind, name, data string) {
	w.t.Helper()
	r := w.store.Do(&store.Intent{Kind: kind, Cell: w.store.Cell(vmOne), Name: name, Data: data, By: "admin"})
	if r.Err != nil {
		w.t.Fatal(r.Err)
	}
	if w.rev = w.store.Cell(vmOne).Ring().Last(); r.Entry != nil {
		w.rev = r.Entry.Rev // a session's event may have come since
	}
}

// settled waits until the mount has followed the host's changes.
func (w *world) settled() {
	w.t.Helper()
	w.until("the event", func() bool { w.FS.mu.Lock(); defer w.FS.mu.Unlock(); return w.told >= w.rev })
}

// look is what the kernel does for a path: it looks up each name.
func (w *world) look(path ...string) (id uint64, code fuse.Status) {
	id = fuse.FUSE_ROOT_ID
	for _, name := range path {
		var out fuse.EntryOut
		if code = w.Lookup(nil, &fuse.InHeader{NodeId: id}, name, &out); !code.Ok() {
			return 0, code
		}
		id = out.NodeId
	}
	return id, fuse.OK
}

// open opens a key.
func (w *world) open(flags int, path ...string) (node, fh uint64) {
	w.t.Helper()
	node, code := w.look(path...)
	if !code.Ok() {
		w.t.Fatalf("%v: %v", path, code)
	}
	var out fuse.OpenOut
	if code := w.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}, Flags: uint32(flags)}, &out); !code.Ok() {
		w.t.Fatalf("opening %v: %v", path, code)
	}
	reads := flags&(syscall.O_ACCMODE|syscall.O_TRUNC) == syscall.O_RDONLY
	if got := out.OpenFlags; got&fuse.FOPEN_DIRECT_IO == 0 || got&fuse.FOPEN_NOFLUSH != 0 != reads {
		w.t.Errorf("%v, opened by %#x, is told as %#x", path, flags, got)
	}
	return node, out.Fh
}

// read is pread(2).
func (w *world) read(fh, off uint64, size int) string {
	w.t.Helper()
	buf := make([]byte, size)
	r, code := w.Read(nil, &fuse.ReadIn{Fh: fh, Offset: off, Size: uint32(size)}, buf)
	if !code.Ok() {
		w.t.Fatalf("read: %v", code)
	}
	b, _ := r.Bytes(buf)
	return string(b)
}

func (w *world) write(fh, off uint64, data string) {
	w.t.Helper()
	if _, code := w.Write(nil, &fuse.WriteIn{Fh: fh, Offset: off}, []byte(data)); !code.Ok() {
		w.t.Fatalf("write: %v", code)
	}
}

func (w *world) shut(fh uint64) { w.Release(nil, &fuse.ReleaseIn{Fh: fh}) }

// cat is the program: it reads until there is no more.
func (w *world) cat(path ...string) (value string) {
	w.t.Helper()
	_, fh := w.open(syscall.O_RDONLY, path...)
	defer w.shut(fh)
	for {
		more := w.read(fh, uint64(len(value)), 4096)
		if value += more; more == "" {
			return value
		}
	}
}

// silently wants do to ask nothing of the server.
func (w *world) silently(what string, do func()) {
	w.t.Helper()
	if _, err := w.getattr(keep.Interrupt{}, rootFid); err != nil { // Tclunks that nobody waits for are sent before
		w.t.Fatal(err)
	}
	before := w.sent.Load()
	if do(); w.sent.Load() != before {
		w.t.Errorf("%s: %d bytes were sent", what, w.sent.Load()-before)
	}
}
