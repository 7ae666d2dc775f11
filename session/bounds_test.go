package session_test

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// What a guest may make the server hold, where one of Limits stands for it.

// TestLongNamesWait: the names in changes that wait count like the bytes of writes.
func TestLongNamesWait(t *testing.T) {
	const limit, renames = 1 << 20, 60
	w := newWorld(t, func(c *session.Config) { c.Limits.Unsent = limit })
	a := w.deaf("vm")
	a.do(w, &wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: "9P2000.L"}, wire.Rversion)
	a.d = wire.L
	a.do(w, &wire.Msg{Type: wire.Tattach, Afid: wire.NoFid}, wire.Rattach)
	a.do(w, &wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys"}}, wire.Rwalk)
	a.do(w, &wire.Msg{Type: wire.Twalk, Newfid: 2, Names: []string{"keys"}}, wire.Rwalk)
	_, release := w.engine.Block()
	t.Cleanup(release)
	long := strings.Repeat("n", 60<<10)
	msgs := []*wire.Msg{{Type: wire.Tlcreate, Fid: 1, Name: "new"}}
	msgs[0].L.Flags = uint32(p9.WriteOnly)
	for i := range renames {
		msgs = append(msgs, &wire.Msg{Type: wire.Trenameat, Tag: uint16(1 + i), Fid: 1, Newfid: 2, Name: long, Ext: long})
	}
	start := a.sent.Load()
	a.send(w, msgs...)
	// What the limit lets in, one message past it, and what a socket holds.
	if took := steady(w, a.sent.Load) - start; took > limit+8*int64(len(long)) {
		t.Errorf("%d bytes were taken", took)
	}
	release()
	for range msgs {
		a.receive()
	}
}

// TestOpenStreams: each open stream keeps what it gave last, so that a connection
// has no more of them than could wait.
func TestOpenStreams(t *testing.T) {
	const limit = 5
	w := newWorld(t, func(c *session.Config) { c.Limits.Waiting = limit })
	c := w.dial("unix", peers["vm"])
	c.hello("9P2000.e")
	open := func(fid uint32) *wire.Msg {
		c.do(&wire.Msg{Type: wire.Twalk, Newfid: fid, Names: []string{"events"}}, wire.Rwalk)
		c.send(&wire.Msg{Type: wire.Topen, Fid: fid})
		return c.receive()
	}
	for fid := uint32(1); fid <= limit; fid++ {
		if m := open(fid); m.Type != wire.Ropen {
			t.Fatalf("stream %d: %s", fid, m)
		}
	}
	if m := open(100); m.Type != wire.Rerror || !strings.HasPrefix(m.Ename, errs.TooManyFids.Text()) {
		t.Errorf("one too many: %s", m)
	}
	c.do(&wire.Msg{Type: wire.Tclunk, Fid: 3}, wire.Rclunk)
	c.do(&wire.Msg{Type: wire.Tremove, Fid: 4}, wire.Rerror)
	for fid := uint32(101); fid <= 102; fid++ {
		if m := open(fid); m.Type != wire.Ropen {
			t.Errorf("in the place of one that is closed: %s", m)
		}
	}
	if m := open(103); m.Type != wire.Rerror {
		t.Errorf("one too many again: %s", m)
	}
}

// TestLockWaits: of the requests for one file's locks a bounded number waits here,
// since each lock that goes has all of them try again. Who comes later asks again.
func TestLockWaits(t *testing.T) {
	const each, conns, most = 100, 3, 256
	w := newWorld(t, func(c *session.Config) { c.Limits.Waiting = 2 * each })
	w.put("key", "value")
	open := func(number int) *numbered {
		n := w.numbered(wire.LE, number, nil)
		n.walk(1, "keys", "key")
		n.lopen(1, p9.ReadWrite)
		return n
	}
	holder := open(0)
	if s := holder.lock(1, p9.WriteLock, 0, 0); s != p9.LockStatusOK {
		t.Fatal(s)
	}
	refused := 0
	var waiters []*numbered
	for i := range conns {
		n := open(1 + i)
		waiters = append(waiters, n)
		for j := range uint16(each) {
			m := tlock(1, p9.ReadLock, uint64(j), 1)
			m.Tag, m.L.Flags = 2+j, uint32(p9.LockFlagsBlock)
			n.ask(m)
		}
		refused += n.locks(t, p9.LockStatusBlocked, &wire.Msg{Type: wire.Tstatfs, Tag: 1})
	}
	if refused != conns*each-most {
		t.Errorf("%d are told to ask again, want %d", refused, conns*each-most)
	}
	holder.lock(1, p9.Unlock, 0, 0)
	for i, n := range waiters {
		for range min(each, most-i*each) {
			if m := n.receive(); m == nil || m.Type != wire.Rlock || m.L.Status != p9.LockStatusOK {
				t.Fatalf("connection %d: %v", i, m)
			}
		}
	}
}

// locks counts the Rlocks that come before the reply to last; all have that status.
func (n *numbered) locks(t *testing.T, status p9.LockStatus, last *wire.Msg) (count int) {
	t.Helper()
	for n.ask(last); ; count++ {
		switch m := n.receive(); {
		case m == nil:
			t.Fatal("the connection has ended")
		case m.Tag == last.Tag:
			return count
		case m.Type != wire.Rlock || m.L.Status != status:
			t.Fatalf("got %s", m)
		}
	}
}

// TestParkedShare: one VM cannot push out the parked sessions of another.
func TestParkedShare(t *testing.T) {
	const share, fids = 16 << 20, 4095
	w := newWorld(t, func(c *session.Config) { c.Limits.ParkedBytes = share + share/4 })
	other := w.dial("unix", peers["vm2"])
	other.do(version(), wire.Rversion)
	other.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(0)}, wire.Rerror)
	other.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid}, wire.Rattach)
	other.nc.Close()
	w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
	var walks []*wire.Msg
	for fid := range uint32(fids) {
		walks = append(walks, &wire.Msg{Type: wire.Twalk, Newfid: 1 + fid, Names: []string{"keys", "color"}})
	}
	w.put("color", "blue")
	for i := range 14 {
		n := w.numbered(wire.LE, 1+i, nil)
		for some := range slices.Chunk(walks, 64) {
			for tag, m := range some {
				m.Tag = uint16(tag)
				n.ask(m)
			}
			for range some {
				if r := n.receive(); r.Type != wire.Rwalk {
					t.Fatal(r)
				}
			}
		}
		n.nc.Close()
		w.until("the end of the connection", func() bool { return w.server.Stats().Conns == 0 })
		if st := w.server.Stats(); st.ParkedBytes > share+share/16 {
			t.Fatalf("%d sessions of one VM, and %d bytes are parked", i+1, st.ParkedBytes)
		}
	}
	if n := w.server.Stats().Expired; n == 0 {
		t.Error("no session had to go")
	}
	back := w.dial("unix", peers["vm2"])
	back.do(version(), wire.Rversion)
	back.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(0)}, wire.Rsession)
}

// TestEvictedFromTheMost: where no more sessions can be parked, those go that are of
// whoever has most, the longest parked first; the admin's few stay.
func TestEvictedFromTheMost(t *testing.T) {
	const most = 8
	w := newWorld(t, func(c *session.Config) { c.Limits.Parked = most })
	resume := func(who string, number int) bool {
		c := w.dial("unix", peers[who])
		c.do(version(), wire.Rversion)
		c.send(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(number)})
		m := c.receive()
		if m.Type == wire.Rerror {
			c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid}, wire.Rattach)
		}
		c.nc.Close()
		w.until("the end of the connection", func() bool { return w.server.Stats().Conns == 0 })
		return m.Type == wire.Rsession
	}
	// The oldest are those of the ones who have few.
	for i, who := range []string{"vm2", "vm2", "admin"} {
		resume(who, i)
	}
	const first, sessions = 10, 30
	for i := range sessions {
		resume("vm", first+i)
		if n := w.server.Stats().Parked; n > most {
			t.Fatalf("%d are parked, %d may be", n, most)
		}
	}
	for i, who := range []string{"vm2", "vm2", "admin"} {
		if !resume(who, i) {
			t.Errorf("session %d, of %s, went", i, who)
		}
	}
	for i := range most - 3 {
		if number := first + sessions - 1 - i; !resume("vm", number) {
			t.Errorf("session %d, of the newest of vm, went", number)
		}
	}
	// Who has most is no matter of who came: vm2 gets its share from vm.
	for i := range 3 {
		resume("vm2", 100+i)
	}
	for i := range 3 {
		if !resume("vm2", 100+i) {
			t.Errorf("new session %d of vm2 went, though vm has as many", i)
		}
	}
}

// TestCrowdedAddress: one address that takes all connections that it gets leaves places
// to others, on a channel that proves nobody and on one that does, and so do many such
// addresses; a place that is given back can be taken again.
func TestCrowdedAddress(t *testing.T) {
	const limit = 40
	for _, tt := range []struct {
		kind   string
		peer   session.Peer
		places int
	}{
		{"nobodies", session.Peer{Via: "tcp::564"}, limit / 2},
		{"proved", session.Peer{Who: fs.Principal{Admin: true}, Via: "tls::564", Resumes: true}, limit},
	} {
		w := newWorld(t, func(c *session.Config) { c.Limits.Conns = limit })
		// take connects from an address until it is refused, and at most most times.
		take := func(addr string, most int) (got []net.Conn) {
			p := tt.peer
			p.Addr = addr
			for range most {
				before := w.server.Stats()
				server, client := redialtest.Pair(t)
				t.Cleanup(func() { client.Close() })
				w.serve(server, p)
				w.until("let in or refused", func() bool {
					now := w.server.Stats()
					return now.Conns > before.Conns || now.Refused > before.Refused
				})
				if w.server.Stats().Conns == before.Conns {
					return got
				}
				got = append(got, client)
			}
			return got
		}
		first := take("192.0.2.1", limit)
		if len(first) != tt.places/2 {
			t.Errorf("%s: one address has %d of %d places", tt.kind, len(first), tt.places)
		}
		second := take("2001:db8::1", limit)
		if n := len(second); n == 0 || n > tt.places/4 {
			t.Errorf("%s: the second has %d", tt.kind, n)
		}
		if n := len(take("2001:db8::2", limit)); n != 0 {
			t.Errorf("%s: one site of IPv6 has %d more by its next address", tt.kind, n)
		}
		if n := len(take("198.51.100.7", 2)); n != 2 {
			t.Errorf("%s: an honest address gets %d of 2", tt.kind, n)
		}
		for _, c := range first {
			c.Close()
		}
		w.until("the places are free", func() bool { return int(w.server.Stats().Conns) == len(second)+2 })
		if n := len(take("192.0.2.1", limit)); n == 0 {
			t.Errorf("%s: nothing is left after all was given back", tt.kind)
		}
	}
}

// TestResumeBesideGuesser: a session is resumed with the right key, within the delay of
// its address, while a neighbour behind the same address guesses keys and MUMBLE
// messages on many connections.
func TestResumeBesideGuesser(t *testing.T) {
	w := newWorld(t, nil)
	key := [wire.KeyLen]byte{1, 2, 3, 4, 5, 6, 7, 8}
	message := auth.Message{Time: uint32(time.Now().Unix()), Key: key, Node: vmOne, Group: "nodes"}
	c := w.dial("unix", peers["tcp"])
	c.do(version(), wire.Rversion)
	c.do(&wire.Msg{Type: wire.Tauth, Tag: 1, Uname: "root", Aname: "/"}, wire.Rauth)
	c.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Data: []byte(message.Sign([]byte(secret)))}, wire.Rwrite)
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Fid: 1, Afid: wire.NoFid}, wire.Rattach)
	c.nc.Close()
	w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
	stop := make(chan struct{})
	var guessers sync.WaitGroup
	defer guessers.Wait()
	defer close(stop)
	for i := range 8 {
		guessers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				g := w.dial("unix", peers["tcp"])
				g.do(version(), wire.Rversion)
				g.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1000*i + n)}, wire.Rerror)
				g.nc.Close()
			}
		})
	}
	w.until("guesses that were wrong", func() bool { return w.server.Stats().Misses >= 20 })
	for range 2 {
		began := time.Now()
		c := w.dial("unix", peers["tcp"])
		c.do(version(), wire.Rversion)
		c.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: key}, wire.Rsession)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		c.nc.Close()
		w.until("parked", func() bool { return w.server.Stats().Parked == 1 })
	}
}
