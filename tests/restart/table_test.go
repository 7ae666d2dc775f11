package restart

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/session/client"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// relay is a way to meta9d that can be cut.
type relay struct {
	net.Listener
	to    string
	mu    sync.Mutex
	conns []net.Conn
	came  int
}

func newRelay(t *testing.T, to string) *relay {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "relay"))
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: to}
	go r.run()
	t.Cleanup(func() {
		l.Close()
		r.cut()
		os.RemoveAll(dir)
	})
	return r
}

func (r *relay) run() {
	for {
		c, err := r.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("unix", r.to)
		if err != nil {
			c.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, c, s)
		r.came++
		r.mu.Unlock()
		pipe := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			to.Close()
			from.Close()
		}
		go pipe(c, s)
		go pipe(s, c)
	}
}

// cut ends what goes over the relay.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// connections is how many have come.
func (r *relay) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.came
}

// stays tells whether what is connected is still there: nothing is to be read of it.
func stays(t *testing.T, c net.Conn) bool {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return os.IsTimeout(err)
}

// TestSeen: what each kind of client sees, of each thing that can happen, as the tables of
// docs/operator.md ("Restart") say. What is under way then is in the other tests here, and
// in those of session, session/client, tests/mount and tests/guest.
func TestSeen(t *testing.T) {
	for _, row := range []struct {
		what string
		do   func(w *world, r *relay)
		// Of 9P2000, .u and .L, of 9P2000.e, and of session/client.
		stays, kept, resumes bool
		others               bool // those of other protocols stay
	}{
		{"a live update", func(w *world, _ *relay) { w.LiveUpdate() }, true, true, true, true},
		{"the transport is lost", func(_ *world, r *relay) { r.cut() }, false, true, true, true},
		{"a planned restart", func(w *world, _ *relay) { w.PlannedRestart() }, false, true, true, false},
		{"a kill", func(w *world, _ *relay) { w.Restart() }, false, true, true, false},
		{"the host loses power", func(w *world, _ *relay) {
			w.Kill()
			_ = os.RemoveAll(filepath.Join(w.Run(), "journal"))
			w.again()
		}, false, false, false, false},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := newWorld(t)
			w.put("open", "of open")
			r := newRelay(t, w.VM(uuid))
			way := r.Addr().String()
			var plain []*raw.Conn
			for _, version := range []string{"9P2000", "9P2000.u", "9P2000.L"} {
				c := w.plain("unix", way, version)
				w.rpc(c, wire.Twalk, uint32(0), uint32(1), []string{"keys", "open"})
				plain = append(plain, c)
			}
			e := w.dialBy(way, "9P2000.e", 9, false)
			w.rpc(e, wire.Tattach, uint32(0), wire.NoFid, "", "")
			w.rpc(e, wire.Twalk, uint32(0), uint32(1), []string{"keys", "open"})
			w.rpc(e, wire.Topen, uint32(1), wire.ORdWr)
			var states sync.Map
			c, err := client.Dial(w.ctx, "unix:"+way, client.Options{Patience: patient, Notify: func(s client.State) {
				if s.Up {
					states.Store(s.Resumed, true)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			f, err := c.OpenFile(w.ctx, "keys/open", os.O_RDWR)
			if err != nil {
				t.Fatal(err)
			}
			lines := w.lines()
			if _, err := lines.get("open"); err != nil {
				t.Fatal(err)
			}
			web, err := net.Dial("unix", filepath.Join(w.Run(), "vminfo.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer web.Close()
			if _, err := fmt.Fprint(web, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if s, err := bufio.NewReader(web).ReadString('\n'); err != nil || !strings.Contains(s, "200") {
				t.Fatalf("%q, %v", s, err)
			}
			came := r.connections()

			row.do(w, r)

			for i, p := range plain {
				if got := stays(t, p.Net); got != row.stays {
					t.Errorf("client %d of v9fs's dialects: its connection stays: %v, want %v", i, got, row.stays)
				}
			}
			if row.stays {
				for _, p := range plain {
					w.rpc(p, wire.Twalk, uint32(1), uint32(2), []string{})
				}
			} else {
				e.Close()
				e = w.dialBy(way, "9P2000.e", 9, row.kept)
			}
			if row.kept {
				if b, err := e.Read(1, 3, 100); err != nil || string(b) != "open" {
					t.Errorf("9P2000.e reads %q, %v", b, err)
				}
			}
			b := make([]byte, 4)
			if n, err := f.ReadAt(w.ctx, b, 3); string(b[:n]) != "open" {
				t.Errorf("session/client reads %q, %v", b[:n], err)
			}
			_, resumed := states.Load(true)
			_, renewed := states.Load(false)
			if resumed != (row.resumes && !row.stays) || renewed == row.resumes {
				t.Errorf("the session of session/client was resumed: %v, and was another: %v", resumed, renewed)
			}
			if row.stays && r.connections() != came {
				t.Errorf("%d connections, before %d", r.connections(), came)
			}
			if got := stays(t, lines.Conn); got != row.others {
				t.Errorf("the connection of the Joyent protocol stays: %v, want %v", got, row.others)
			}
			if got, want := stays(t, web), row.what == "the transport is lost"; got != want {
				t.Errorf("the connection of HTTP stays: %v, want %v", got, want)
			}
			if v, err := w.lines().get("open"); err != nil || v != "of open" {
				t.Errorf("the Joyent protocol, asked anew: %q, %v", v, err)
			}
		})
	}
}

// again starts meta9d on what it has left.
func (w *world) again() {
	w.t.Helper()
	d, err := daemon.Start(w.Options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Daemon = d
	testenv.Eventually(w.t, "the VM's socket is there", func() bool {
		c, err := net.Dial("unix", w.VM(uuid))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
