package listen_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/payload"
	"meta9/rarelog/logtest"
	"meta9/session/listen"
)

const (
	vm1 = "01b2c898-945f-11e1-a523-af1afbe22821"
	vm2 = "01b2c898-945f-11e1-a523-af1afbe22822"
)

func TestMain(m *testing.M) {
	if os.Getenv(dialAsEnv) != "" {
		dialAs()
		return
	}
	goleak.VerifyTestMain(m)
}

// arrival is one call of a Handler.
type arrival struct {
	c    net.Conn
	who  fs.Principal
	via  string
	addr string
}

// desk is a Handler that keeps what is handed over until the test looks.
type desk struct {
	t   *testing.T
	got chan arrival
}

func newDesk(t *testing.T) *desk {
	d := &desk{t, make(chan arrival, 64)}
	t.Cleanup(func() {
		for len(d.got) > 0 {
			(<-d.got).c.Close()
		}
	})
	return d
}

func (d *desk) handle(c net.Conn, who fs.Principal, via, addr string, ended func()) {
	defer ended() // for the Listener: it is the test's now
	d.got <- arrival{c, who, via, addr}
}

// next is the next arrival.
func (d *desk) next() arrival {
	d.t.Helper()
	select {
	case a := <-d.got:
		d.t.Cleanup(func() { a.c.Close() })
		return a
	case <-time.After(10 * time.Second):
		d.t.Fatal("nobody was handed over")
		return arrival{}
	}
}

// none fails if somebody was handed over.
func (d *desk) none() {
	d.t.Helper()
	select {
	case a := <-d.got:
		a.c.Close()
		d.t.Errorf("%s was handed over", a.who)
	default:
	}
}

// logs is a log that a test can read.
type logs struct{ logtest.Log }

func (l *logs) lines() int             { return l.Count("\n") }
func (l *logs) logger() zerolog.Logger { return zerolog.New(l) }

// vms is a set of VMs that a test changes.
type vms struct {
	t  *testing.T
	mu sync.Mutex
	m  map[string]*vm.VM
	id uint64
}

func newVMs(t *testing.T, payloads ...string) *vms {
	s := &vms{t: t, m: map[string]*vm.VM{}}
	for _, p := range payloads {
		s.put(p)
	}
	return s
}

// put adds the VM of a payload, or replaces it.
func (s *vms) put(text string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	v, _, err := payload.Create([]byte(text), vm.Stamp{
		NextID:  func(n uint64) uint64 { s.id += n; return s.id },
		NextRev: func() uint64 { return 1 },
	}, vm.DefaultLimits)
	if err != nil {
		s.t.Fatal(err)
	}
	s.m[v.UUID] = v
}

// keep adds a VM with a property as an older version took it.
func (s *vms) keep(uuid, name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[uuid] = &vm.VM{UUID: uuid, Props: ordjson.Members{{Name: name, Value: ordjson.Value{Kind: ordjson.String, Text: text}}}}
}

func (s *vms) remove(uuid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, uuid)
}

func (s *vms) get(uuid string) *vm.VM {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[uuid]
}

func (s *vms) byCID(cid uint32) *vm.VM {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.m {
		if c, _ := v.Prop("vsock_cid"); c.Text == fmt.Sprint(cid) {
			return v
		}
	}
	return nil
}

// vmJSON is a VM's, with more members.
func vmJSON(uuid, more string) string {
	return fmt.Sprintf(`{"uuid":%q%s}`, uuid, more)
}

// open listens on an address until the test ends.
func open(t *testing.T, cfg listen.Config, text string) *listen.Listener {
	t.Helper()
	a, err := listen.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	l, err := cfg.Listen(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// refuse expects that an address cannot be listened on, for a reason.
func refuse(t *testing.T, cfg listen.Config, text, reason string) {
	t.Helper()
	a, err := listen.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	l, err := cfg.Listen(a)
	if err == nil {
		l.Close()
		t.Fatalf("%s can be listened on", text)
	}
	if !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), text) {
		t.Errorf("error %q does not say %q and %q", err, text, reason)
	}
}

// dial connects to a listener's text until the test ends.
func dial(t *testing.T, via string) net.Conn {
	t.Helper()
	network, addr, _ := strings.Cut(via, ":")
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dialLate is dial where the socket is just being made: its file is there before anybody
// listens.
func dialLate(t *testing.T, path string) (c net.Conn) {
	t.Helper()
	until(t, "somebody listens at "+path, func() bool {
		var err error
		c, err = net.Dial("unix", path)
		return err == nil
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// closed expects that the peer of c closes it.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the connection is still open: %v", err)
	} else if err != io.EOF && !strings.Contains(err.Error(), "reset") {
		t.Logf("closed by %v", err)
	}
}

// until polls for what another goroutine will bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// shortDir is a folder whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm()
}

func join(parts ...string) string { return filepath.Join(parts...) }

// any is some VM for every UUID.
func (s *vms) any(uuid string) *vm.VM { return &vm.VM{UUID: uuid} }

// rss is this process's resident memory in bytes.
func rss(tb testing.TB) int {
	tb.Helper()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		tb.Fatal(err)
	}
	return pages * os.Getpagesize()
}
