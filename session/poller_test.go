package session

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// sleeping is a connection that the poller can wait for, and its peer.
func sleeping(t *testing.T, id uint64) (*conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	c := &conn{id: id}
	if c.in.raw, err = nc.(syscall.Conn).SyscallConn(); err != nil {
		t.Fatal(err)
	}
	return c, peer
}

// TestPollerRefused: what Go's poller does not take is no epoll to sleep by. (It takes no
// plain file.)
func TestPollerRefused(t *testing.T) {
	fd, err := syscall.Open(filepath.Join(t.TempDir(), "file"), syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var p poller
	if err := p.use(fd); err != os.ErrNoDeadline {
		t.Errorf("%v", err)
	}
	if p.file != nil {
		t.Error("it is used")
	}
	p.close()
}

// TestPollerEnds: when the poller ends by itself, all that sleep are woken, and nobody
// sleeps from then on.
func TestPollerEnds(t *testing.T) {
	const patient = 10 * time.Second
	woken := make(chan uint64, 10)
	p := poller{awaken: func(c *conn) { woken <- c.id }}
	wakes := func(want uint64) {
		t.Helper()
		select {
		case id := <-woken:
			if id != want {
				t.Errorf("%d is woken, not %d", id, want)
			}
		case <-time.After(patient):
			t.Fatalf("%d sleeps", want)
		}
	}
	a, peer := sleeping(t, 1)
	b, _ := sleeping(t, 2)
	if !p.add(a) || !p.add(b) {
		t.Fatal("they cannot sleep")
	}
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	wakes(1)
	if err := p.file.SetReadDeadline(time.Unix(1, 0)); err != nil { // its read fails
		t.Fatal(err)
	}
	wakes(2)
	if p.count() != 0 || p.add(b) {
		t.Error("somebody sleeps")
	}
	p.close()
}
