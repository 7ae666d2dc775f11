package session_test

import (
	"bytes"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"meta9/fs/budget"
	"meta9/session"
	"meta9/session/wire"
)

// The bytes that a VM's requests hold are taken from its one account: what is too much
// waits or is refused, and nothing else of the VM or of others.

const large = 1 << 20 // bytes of a value

// shareOf makes a world in which a VM may have that many bytes, or wait for them.
func shareOf(t *testing.T, bytes int64, wait time.Duration) *world {
	return newWorld(t, func(c *session.Config) {
		c.Budget = budget.New(budget.Limits{VM: bytes, All: 64 << 20, Floor: bytes, Wait: wait})
	})
}

// wide is a client of 9P2000.e with the largest msize.
func (w *world) wide(who, version string) *client {
	c := w.dial("unix", peers[who])
	c.dialect = wire.None
	c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: version}, wire.Rversion)
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Fid: 0, Afid: wire.NoFid, Uname: "glenda", NUname: wire.NoUID}, wire.Rattach)
	return c
}

// fill takes all but left of what the first VM may have, until the test's end or undo.
func (w *world) fill(t *testing.T, share, left int64) (undo func()) {
	a := w.budget.Account(vmOne)
	n := share - left - a.Used()
	if err := a.Try(n); err != nil {
		t.Fatal(err)
	}
	undone := false
	undo = func() {
		if !undone {
			undone = true
			a.Release(n)
			a.Close()
		}
	}
	t.Cleanup(undo)
	return undo
}

func sread(tag uint16, names ...string) *wire.Msg {
	return &wire.Msg{Type: wire.Tsread, Tag: tag, Names: names}
}

func swrite(tag uint16, data string, names ...string) *wire.Msg {
	return &wire.Msg{Type: wire.Tswrite, Tag: tag, Names: names, Data: []byte(data)}
}

// TestReadWaitsForRoom: a large reply waits until there is room; meanwhile small
// requests of the same connection are answered, and others of the VM, and it can be
// flushed.
func TestReadWaitsForRoom(t *testing.T) {
	const share = 8 << 20
	w := shareOf(t, share, time.Minute)
	value := strings.Repeat("v", large)
	w.put("big", value)
	w.put("small", "s")
	c, other := w.wide("vm", "9P2000.e"), w.wide("vm", "9P2000.L")
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 2, Fid: 0, Newfid: 1, Names: []string{"keys", "big"}}, wire.Rwalk)
	c.do(&wire.Msg{Type: wire.Topen, Tag: 2, Fid: 1}, wire.Ropen)
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 2, Fid: 0, Newfid: 3}, wire.Rwalk)
	undo := w.fill(t, share, large/2)
	c.send(sread(10, "keys", "big"))
	c.send(&wire.Msg{Type: wire.Tread, Tag: 11, Fid: 1, Count: large})
	c.send(sread(12, "keys", "big"))
	if r := c.do(sread(20, "keys", "small"), wire.Rsread); string(r.Data) != "s" {
		t.Errorf("%q", r.Data)
	}
	c.do(swrite(21, strings.Repeat("w", 4000), "keys", "small"), wire.Rswrite)
	c.do(&wire.Msg{Type: wire.Tflush, Tag: 22, Oldtag: 12}, wire.Rflush)
	c.do(&wire.Msg{Type: wire.Tclunk, Tag: 23, Fid: 3}, wire.Rclunk)
	other.do(&wire.Msg{Type: wire.Tgetattr, Tag: 2, Fid: 0}, wire.Rgetattr)
	other.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: "9P2000.L"}, wire.Rversion)
	if st := w.budget.Stats(); st.Waiting != 2 {
		t.Errorf("%+v", st)
	}
	undo()
	seen := map[uint16]bool{}
	for range 2 {
		r := c.receive()
		if string(r.Data) != value {
			t.Fatalf("%v of %d bytes", r.Type, len(r.Data))
		}
		seen[r.Tag] = true
	}
	if !seen[10] || !seen[11] {
		t.Error("replies:", seen)
	}
}

// TestLargeRepliesApart: large replies that get their room together are not gathered in one
// buffer, which would be of no use afterwards: they use what earlier ones have left.
func TestLargeRepliesApart(t *testing.T) {
	const share, replies = 8 << 20, 4
	w := shareOf(t, share, time.Minute)
	value := strings.Repeat("v", large)
	w.put("big", value)
	c := w.wide("vm", "9P2000.e")
	allocated := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	a := w.budget.Account(vmOne)
	defer a.Close()
	idle := a.Used()
	round := func() uint64 {
		w.until("earlier replies have given back what they held", func() bool { return a.Used() <= idle })
		undo := w.fill(t, share, large/2)
		for tag := range uint16(replies) {
			c.send(sread(tag, "keys", "big"))
		}
		w.until("reads that wait for room", func() bool { return w.budget.Stats().Waiting == replies })
		before := allocated()
		undo()
		for range replies {
			if r := c.receive(); string(r.Data) != value {
				t.Fatalf("%v of %d bytes", r.Type, len(r.Data))
			}
		}
		return allocated() - before
	}
	round()
	if got := round(); got > replies*large*3/2 { // the client makes one for each
		t.Errorf("%d bytes were allocated for %d replies of %d", got, replies, large)
	}
}

// TestReadIsRefused after a while, with what the account has, and the connection lives.
func TestReadIsRefused(t *testing.T) {
	const share = 8 << 20
	w := shareOf(t, share, 10*time.Millisecond)
	w.put("big", strings.Repeat("v", large))
	c := w.wide("vm", "9P2000.e")
	undo := w.fill(t, share, large/2)
	r := c.do(sread(10, "keys", "big"), wire.Rerror)
	if !strings.HasPrefix(r.Ename, "Resource temporarily unavailable: VM has ") || !strings.HasSuffix(r.Ename, " bytes in flight, 8388608 is its share") {
		t.Errorf("%q", r.Ename)
	}
	undo()
	c.do(sread(10, "keys", "big"), wire.Rsread)
	if st := w.budget.Stats(); st.Waits != 1 || st.Refused != 1 {
		t.Errorf("%+v", st)
	}
}

// TestWriteIsRefused: a large frame for which there is no room is dropped, stores
// nothing, and counts as a request like any.
func TestWriteIsRefused(t *testing.T) {
	const share = 8 << 20
	w := shareOf(t, share, 10*time.Millisecond)
	c := w.wide("vm", "9P2000.e")
	undo := w.fill(t, share, large)
	c.do(swrite(10, strings.Repeat("v", 9000), "keys", "medium"), wire.Rswrite)
	r := c.do(swrite(10, strings.Repeat("v", large), "keys", "big"), wire.Rerror)
	if !strings.HasPrefix(r.Ename, "Resource temporarily unavailable: VM has ") {
		t.Errorf("%q", r.Ename)
	}
	if got := w.value("big"); got != "-" {
		t.Errorf("%d bytes were stored", len(got))
	}
	undo()
	c.do(swrite(10, strings.Repeat("v", large), "keys", "big"), wire.Rswrite)
	if got := len(w.value("big")); got != large {
		t.Errorf("%d bytes are stored", got)
	}
}

// TestWritesInTurn: more than fits at a time is written after all, one after the other.
func TestWritesInTurn(t *testing.T) {
	const share = 6 << 20
	w := shareOf(t, share, time.Minute)
	value := bytes.Repeat([]byte("v"), large)
	var all []*client
	for range 6 {
		all = append(all, w.wide("vm", "9P2000.e"))
	}
	for i, c := range all {
		for tag := range uint16(3) {
			c.send(&wire.Msg{Type: wire.Tswrite, Tag: tag, Names: []string{"keys", string(rune('a' + i))}, Data: value})
		}
	}
	for _, c := range all {
		for range 3 {
			if r := c.receive(); r.Type != wire.Rswrite {
				t.Fatal(r)
			}
		}
	}
	if w.budget.Stats().Waits == 0 {
		t.Error("nobody has waited: the test shows nothing")
	}
}

// TestManyFids: fids cost, and the VM that has too many gets an error.
func TestManyFids(t *testing.T) {
	const share = 7 << 20
	w := shareOf(t, share, time.Minute)
	c := w.wide("vm", "9P2000.e")
	undo := w.fill(t, share, 1<<20)
	n := uint32(1)
	for ; n < 4000; n++ {
		c.send(&wire.Msg{Type: wire.Twalk, Tag: 2, Fid: 0, Newfid: n})
		if r := c.receive(); r.Type == wire.Rerror {
			if !strings.HasPrefix(r.Ename, "Resource temporarily unavailable: ") {
				t.Error(r)
			}
			break
		}
	}
	if n < 1000 || n > 1600 {
		t.Errorf("%d fids are a MiB", n)
	}
	undo()
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 2, Fid: 0, Newfid: n}, wire.Rwalk)
}

// TestTakeOverWhileWaiting: a connection that waits for room is taken over at once.
func TestTakeOverWhileWaiting(t *testing.T) {
	const share = 8 << 20
	w := shareOf(t, share, time.Minute)
	session := &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: [8]byte{1, 2, 3}}
	hello := func() *client {
		c := w.dial("unix", peers["vm"])
		c.dialect = wire.None
		c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: "9P2000.e"}, wire.Rversion)
		c.send(session)
		return c
	}
	c := hello()
	c.receive()
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Fid: 0, Afid: wire.NoFid, NUname: wire.NoUID}, wire.Rattach)
	w.fill(t, share, large)
	c.send(swrite(2, strings.Repeat("v", large), "keys", "k"))
	w.until("the wait for room", func() bool { return w.budget.Stats().Waiting == 1 })
	begun := time.Now()
	if r := hello().receive(); r.Type != wire.Rsession {
		t.Error(r)
	}
	if took := time.Since(begun); took > patient/2 {
		t.Errorf("taken over after %v", took)
	}
}

// TestSessionEndsItsLines: the transactions that a session had begun count no more when it
// has ended, whatever way.
func TestSessionEndsItsLines(t *testing.T) {
	w := newWorld(t, nil)
	piece := []byte(`{"do":[{"put":"a","value":"` + strings.Repeat("x", 600<<10))
	for i := range 3 {
		c := w.wide("vm", "9P2000")
		c.walk(1, "txn")
		c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1, Mode: wire.OWrite}, wire.Ropen)
		c.send(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: piece, Count: uint32(len(piece))})
		if r := c.receive(); r == nil || r.Type != wire.Rwrite {
			t.Fatalf("session %d: %v", i, r)
		}
		c.nc.Close()
		w.until("the session's end", func() bool { return w.server.Stats().Sessions == 0 })
	}
}

// TestNobodyGivesBack: those who have not said who they are have no parked sessions, and the
// admin's are not theirs; and while sessions are kept for the next process, none ends.
func TestNobodyGivesBack(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	park := func(who string, key int) {
		c := w.dial("unix", peers[who])
		c.do(version(), wire.Rversion)
		c.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(key)}, wire.Rerror)
		c.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, Uname: "glenda"}, wire.Rattach)
		c.nc.Close()
	}
	park("admin", 1)
	park("vm", 2)
	park("vm", 3)
	w.until("three parked sessions", func() bool { return w.server.Stats().Parked == 3 })
	w.server.GiveBack("")
	if n := w.server.Stats().Parked; n != 3 {
		t.Errorf("nobody has given back %d sessions", 3-n)
	}
	w.server.GiveBack(vmOne)
	if n := w.server.Stats().Parked; n != 2 {
		t.Errorf("the VM has %d of 3", n)
	}
	w.freeze()()
	w.server.GiveBack(vmOne)
	if n := w.server.Stats().Parked; n != 2 {
		t.Errorf("%d sessions are left of those that are kept", n)
	}
}

// TestVMStats: what a VM has here is counted apart from what others have.
func TestVMStats(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	greeted := func(who string, key int) *client {
		c := w.dial("unix", peers[who])
		c.do(version(), wire.Rversion)
		c.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(key)}, wire.Rerror)
		c.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, Uname: "glenda"}, wire.Rattach)
		return c
	}
	want := func(conns, sessions, parked int) func() bool {
		return func() bool {
			c, s, p := w.server.VMStats(vmOne)
			return c == conns && s == sessions && p == parked
		}
	}
	if !want(0, 0, 0)() {
		t.Error("a VM has something before it came")
	}
	greeted("admin", 1)
	greeted("vm", 2)
	third := greeted("vm", 3)
	w.until("two connections", want(2, 2, 0))
	third.nc.Close()
	w.until("one of them parked", want(1, 2, 1))
}

// TestStreamWaitsForRoom: a blocked read of events that is woken while the account is full
// is answered when there is room, and nothing else happens on its connection.
func TestStreamWaitsForRoom(t *testing.T) {
	const share = 1 << 20
	w := shareOf(t, share, time.Minute)
	c := w.wide("vm", "9P2000")
	c.walk(1, "events")
	c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1}, wire.Ropen)
	c.send(&wire.Msg{Type: wire.Tread, Tag: 2, Fid: 1, Count: 60_000})
	c.do(&wire.Msg{Type: wire.Tstat, Tag: 1, Fid: 0}, wire.Rstat) // the read is entered
	// The read may still hold the room for a reply that it found not to be there yet.
	a := w.budget.Account(vmOne)
	defer a.Close()
	w.until("an account at rest", func() bool { return a.Used() == 0 })
	undo := w.fill(t, share, 1000)
	w.put("color", "blue")
	w.until("a request that waits for room", func() bool { return w.budget.Stats().Waiting == 1 })
	undo()
	if r := c.receive(); r == nil || r.Type != wire.Rread || !strings.Contains(string(r.Data), `"key":"color"`) {
		t.Errorf("the read gets %v", r)
	}
}
