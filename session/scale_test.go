package session_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"meta9/session"
	"meta9/session/wire"
)

// memory is what the process has in use: heap and stacks, after a collection.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// rawClient is the client's end of a unix socket pair as a bare file descriptor,
// so that of its memory nothing counts.
type rawClient struct {
	t  testing.TB
	fd int
}

func (w *world) rawDial(p session.Peer) rawClient {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "pair")
	server, err := net.FileConn(f)
	if err != nil {
		w.t.Fatal(err)
	}
	f.Close()
	w.serve(server, p)
	return rawClient{w.t, fds[1]}
}

// ask sends messages and reads the replies, which have size bytes together.
func (c rawClient) ask(size int, msgs ...*wire.Msg) {
	c.t.Helper()
	c.askIn(wire.E, size, msgs...)
}

// askIn is ask in any dialect.
func (c rawClient) askIn(dialect wire.Dialect, size int, msgs ...*wire.Msg) {
	c.t.Helper()
	var frames []byte
	for _, m := range msgs {
		d := dialect
		if m.Type == wire.Tversion {
			d = wire.None
		}
		var err error
		if frames, err = wire.Append(frames, m, d); err != nil {
			c.t.Fatal(err)
		}
	}
	for len(frames) > 0 {
		n, err := syscall.Write(c.fd, frames)
		if err != nil {
			c.t.Fatal(err)
		}
		frames = frames[n:]
	}
	var b [4096]byte
	for size > 0 {
		n, err := syscall.Read(c.fd, b[:])
		if n <= 0 {
			c.t.Fatalf("%d bytes missing: %v", size, err)
		}
		size -= n
	}
	if size != 0 {
		c.t.Fatalf("%d bytes too many", -size)
	}
}

func version() *wire.Msg {
	return &wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: "9P2000.e"}
}

func attach(fid uint32) *wire.Msg {
	return &wire.Msg{Type: wire.Tattach, Fid: fid, Afid: wire.NoFid, Uname: "root", Aname: "vms/" + vmOne}
}

// descriptors allows n open files, or skips the test.
func descriptors(t *testing.T, n uint64) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Max < n {
		t.Skipf("%d file descriptors are allowed, %d needed", l.Max, n)
	}
	if l.Cur < n {
		l.Cur = l.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
}

// TestIdleMemory: an idle attached connection takes at most 8 KiB, of which half is the
// loop's stack, and 5 KiB once it sleeps.
func TestIdleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of connections")
	}
	notUnderRace(t)
	for _, test := range []struct {
		name    string
		silence time.Duration
		most    int64
	}{
		{"awake", time.Hour, 8 << 10},
		{"asleep", 100 * time.Millisecond, 5 << 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			const n = 5000
			descriptors(t, 2*n+100)
			w := newWorld(t, func(cfg *session.Config) { cfg.Silence = test.silence })
			clients := make([]rawClient, 0, n)
			before := memory()
			for range n {
				c := w.rawDial(peers["admin"])
				clients = append(clients, c)
				c.ask(21, version())
				c.ask(20, attach(0))
			}
			if test.silence < time.Hour {
				w.until("sleep", func() bool { return w.server.Stats().Asleep == n })
			}
			each := (memory() - before) / n
			for _, c := range clients {
				syscall.Close(c.fd)
			}
			t.Logf("%d bytes each", each)
			if each > test.most {
				t.Errorf("an idle connection takes %d bytes, over %d", each, test.most)
			}
		})
	}
}

// TestParkedMemory: 10,000 parked sessions of 4 fids take at most 64 MiB, and not
// much more than they are thought to.
func TestParkedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of sessions")
	}
	notUnderRace(t)
	const n, most = 10000, 64 << 20
	w := newWorld(t, nil)
	w.put("color", "blue")
	before := memory()
	for i := range n {
		c := w.rawDial(peers["admin"])
		c.ask(21+23, version(), &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(i)})
		c.ask(20, attach(0))
		c.ask(35, &wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys", "color"}})
		c.ask(35, &wire.Msg{Type: wire.Twalk, Newfid: 2, Names: []string{"keys", "color"}})
		c.ask(22, &wire.Msg{Type: wire.Twalk, Newfid: 3, Names: []string{"events"}})
		for fid := uint32(1); fid <= 3; fid++ {
			c.ask(24, &wire.Msg{Type: wire.Topen, Fid: fid})
		}
		c.ask(wire.ReadLen+4, &wire.Msg{Type: wire.Tread, Fid: 1, Count: 100})
		syscall.Close(c.fd)
	}
	w.until("parked", func() bool { return w.server.Stats().Parked == n && w.server.Stats().Conns == 0 })
	took, thought := memory()-before, w.server.Stats().ParkedBytes
	t.Logf("%d bytes each, %d thought", took/n, thought/n)
	if took > most {
		t.Errorf("%d sessions take %d bytes, over %d", n, took, most)
	}
	if thought < took*4/5 || thought > took*5/4 {
		t.Errorf("they are thought to take %d bytes and take %d", thought, took)
	}
}

func keyNumber(i int) (key [wire.KeyLen]byte) {
	copy(key[:], fmt.Sprintf("%08d", i))
	return key
}
