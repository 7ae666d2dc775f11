package keep_test

import (
	"fmt"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/session/keep"
	"meta9/session/wire"
)

// The flags of open(2) that these tests give.
const (
	wronly = 1
	rdwr   = 2
	trunc  = 0o1000
	appnd  = 0o2000
)

// lost is a 9P2000.L client whose server forgets its session: restart ends the
// server as a kill does, and starts another over the same store.
func lost(t *testing.T) (h *host, c *raw, restart func()) {
	h = newHost(t)
	for _, k := range []string{"kept", "removed", "replaced", "renamed", "locked", "held", "begun", "more"} {
		h.put(k, "old value")
	}
	c = newRaw(t, h.keeper(keep.Options{Msize: 8192}))
	c.hello("9P2000.L")
	return h, c, func() { h.stop(); h.start() }
}

func (c *raw) read(fid uint32, off uint64) string {
	c.T.Helper()
	return string(c.do(&wire.Msg{Type: wire.Tread, Tag: 1, Fid: fid, Offset: off, Count: 100}, wire.Rread).Data)
}

func write(fid uint32, off uint64, data string) *wire.Msg {
	return &wire.Msg{Type: wire.Twrite, Tag: 1, Fid: fid, Offset: off, Data: []byte(data)}
}

func truncate(fid uint32) *wire.Msg {
	m := &wire.Msg{Type: wire.Tsetattr, Tag: 1, Fid: fid}
	m.L.SetMask.Size = true
	return m
}

func lockMsg(fid uint32, typ p9.LockType) *wire.Msg {
	m := &wire.Msg{Type: wire.Tlock, Tag: 1, Fid: fid}
	m.L.LockType, m.L.ProcID, m.L.ClientID = typ, 1, "guest"
	return m
}

// TestRestored: what can be restored is as if nothing had been.
func TestRestored(t *testing.T) {
	h, c, restart := lost(t)
	c.open(1, rdwr|trunc, "keys", "kept") // truncated once, and written
	c.do(write(1, 0, "new"), wire.Rwrite)
	c.open(2, wronly|appnd, "keys", "more")
	c.walk(3, "keys")
	c.open(4, 0, "keys")
	c.walk(5, "keys", "renamed")
	c.do(&wire.Msg{Type: wire.Trenameat, Tag: 1, Fid: 3, Name: "renamed", Newfid: 3, Ext: "other"}, wire.Rrenameat)
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Fid: 6, Afid: wire.NoFid, Aname: "keys", NUname: 1000}, wire.Rattach)
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Fid: 6, Newfid: 7, Names: []string{"more"}}, wire.Rwalk)
	create := &wire.Msg{Type: wire.Tlcreate, Tag: 1, Fid: 8, Name: "made", Perm: 0o600}
	create.L.Flags = rdwr | 0o300
	c.walk(8, "keys")
	c.do(create, wire.Rlcreate)
	c.open(9, rdwr, "keys", "locked")
	c.do(lockMsg(9, p9.WriteLock), wire.Rlock)
	c.do(lockMsg(9, p9.Unlock), wire.Rlock) // no longer
	h.put("kept", "changed by the host")
	restart()
	if got := c.read(1, 0); got != "changed by the host" {
		t.Errorf("an open file reads %q", got)
	}
	c.do(write(2, 0, "+"), wire.Rwrite)
	if got := h.value("more"); got != "old value+" {
		t.Errorf("appended: %q", got)
	}
	c.do(&wire.Msg{Type: wire.Treaddir, Tag: 1, Fid: 4, Count: 1000}, wire.Rreaddir)
	c.do(&wire.Msg{Type: wire.Tgetattr, Tag: 1, Fid: 5}, wire.Rgetattr)
	c.do(&wire.Msg{Type: wire.Tgetattr, Tag: 1, Fid: 7}, wire.Rgetattr)
	c.do(write(8, 0, "made"), wire.Rwrite)
	if got := h.value("made"); got != "made" {
		t.Errorf("the new file has %q", got)
	}
	c.do(write(9, 0, "x"), wire.Rwrite)
	for fid := range uint32(10) {
		c.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: fid}, wire.Rclunk)
	}
	// Nothing was left behind in the new session.
	if e := c.errno(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 0xfffffffc}); e != uint32(linux.EBADF) {
		t.Errorf("a fid of the keeper's is there: %d", e)
	}
}

// TestStale: what cannot be restored says so, and can be let go.
func TestStale(t *testing.T) {
	h, c, restart := lost(t)
	c.walk(1, "keys", "removed")
	c.open(2, rdwr, "keys", "replaced")
	c.open(3, rdwr, "keys", "locked")
	c.do(lockMsg(3, p9.WriteLock), wire.Rlock)
	c.open(4, wronly, "keys", "held")
	c.do(truncate(4), wire.Rsetattr)
	c.open(5, wronly|trunc, "keys", "begun")
	c.open(6, 0, "events")
	c.open(7, rdwr, "keys", "held")
	h.remove("removed")
	h.remove("replaced")
	h.put("replaced", "another one")
	restart()
	for fid := uint32(1); fid <= 6; fid++ {
		for _, m := range []*wire.Msg{
			{Type: wire.Tgetattr, Tag: 1, Fid: fid},
			{Type: wire.Twalk, Tag: 1, Fid: fid, Newfid: 50},
			{Type: wire.Tread, Tag: 1, Fid: fid, Count: 10},
			write(fid, 0, "x"),
			{Type: wire.Trename, Tag: 1, Fid: 0, Newfid: fid, Name: "x"},
			{Type: wire.Trenameat, Tag: 1, Fid: 0, Name: "x", Newfid: fid, Ext: "y"},
		} {
			if e := c.errno(m); e != uint32(linux.ESTALE) {
				t.Errorf("fid %d: %s gets %d", fid, m.Type, e)
			}
		}
		c.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: fid}, wire.Rclunk)
		c.walk(fid, "keys", "kept") // its number is free
	}
	for _, k := range []string{"locked", "held", "begun"} {
		if got := h.value(k); got != "old value" {
			t.Errorf("%s is %q", k, got)
		}
	}
	c.do(write(7, 0, "OLD"), wire.Rwrite)
	if got := h.value("held"); got != "OLD value" {
		t.Errorf("held is %q", got)
	}
}

// TestUnanswered: a change that was sent and not answered when the server forgot
// the session fails, and is never sent again; what changes nothing is asked again.
func TestUnanswered(t *testing.T) {
	h, c, restart := lost(t)
	c.open(1, wronly|appnd, "keys", "kept")
	c.open(2, 0, "keys", "more")
	c.open(3, 0, "events")
	_, release := h.engine.Block()
	defer release()
	m := write(1, 0, "!")
	for tag := range uint16(3) {
		m.Tag = 10 + tag
		c.Send(m)
	}
	c.do(&wire.Msg{Type: wire.Tgetattr, Tag: 1, Fid: 2}, wire.Rgetattr) // they have left
	c.Send(&wire.Msg{Type: wire.Tflush, Tag: 20, Oldtag: 10})
	c.Send(&wire.Msg{Type: wire.Tclunk, Tag: 21, Fid: 1})
	c.Send(&wire.Msg{Type: wire.Tread, Tag: 22, Fid: 3, Count: 100})    // waits for events
	c.do(&wire.Msg{Type: wire.Tgetattr, Tag: 1, Fid: 2}, wire.Rgetattr) // all have come
	go func() {
		h.until("the killed server", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.away })
		release()
	}()
	restart()
	got := make(map[uint16]*wire.Msg)
	for range 6 {
		r := c.Receive()
		got[r.Tag] = r
	}
	for tag := range uint16(3) {
		if r := got[10+tag]; r == nil || r.Errno != uint32(linux.EIO) {
			t.Errorf("write %d got %v", tag, r)
		}
	}
	if r := got[20]; r == nil || r.Type != wire.Rflush {
		t.Errorf("flush got %v", r)
	}
	if r := got[21]; r == nil || r.Type != wire.Rclunk {
		t.Errorf("clunk got %v", r)
	}
	if r := got[22]; r == nil || r.Errno != uint32(linux.ESTALE) {
		t.Errorf("the blocked read got %v", r)
	}
	if v := h.value("kept"); v != "old value!!!" && v != "old value!!" && v != "old value!" && v != "old value" {
		t.Errorf("kept is %q", v)
	}
	c.walk(1, "keys", "kept")
	if got := c.read(2, 0); got != "old value" {
		t.Errorf("reads %q", got)
	}
}

// TestWaiting: what is asked while there is no server waits, and is sent once there
// is one; a flush of it need not wait.
func TestWaiting(t *testing.T) {
	h, c, _ := lost(t)
	c.open(1, wronly|appnd, "keys", "kept")
	c.open(2, rdwr, "keys", "removed")
	h.remove("removed")
	h.stop()
	h.until("the keeper to see it", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.made > 2 })
	m := write(1, 0, "!")
	m.Tag = 10
	c.Send(m)
	m.Tag = 11
	c.Send(m)
	c.Send(&wire.Msg{Type: wire.Twrite, Tag: 12, Fid: 2, Data: []byte("x")})
	c.do(&wire.Msg{Type: wire.Tflush, Tag: 13, Oldtag: 11}, wire.Rflush)
	h.start()
	for range 2 {
		switch r := c.Receive(); {
		case r.Tag == 10 && r.Type == wire.Rwrite:
		case r.Tag == 12 && r.Errno == uint32(linux.ESTALE):
		default:
			t.Errorf("got %v", r)
		}
	}
	if v := h.value("kept"); v != "old value!" {
		t.Errorf("kept is %q", v)
	}
}

// TestExpired: the session's time is over while the server lives.
func TestExpired(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	c := newRaw(t, h.keeper(keep.Options{}))
	c.hello("9P2000.L")
	c.open(1, rdwr, "keys", "k")
	c.open(2, 0, "events")
	h.mu.Lock()
	h.away = true
	h.mu.Unlock()
	h.drop()
	h.parked(1)
	h.server.DropVM(vmOne) // which ends its sessions
	h.mu.Lock()
	h.away = false
	h.mu.Unlock()
	c.do(write(1, 0, "w"), wire.Rwrite)
	if e := c.errno(&wire.Msg{Type: wire.Tread, Tag: 1, Fid: 2, Count: 9}); e != uint32(linux.ESTALE) {
		t.Errorf("events: %d", e)
	}
}

// TestLostAndCut: the session is lost while the transport is cut all the time, so
// that also what is half restored is lost again.
func TestLostAndCut(t *testing.T) {
	h, c, restart := lost(t)
	for fid := range uint32(50) {
		h.put(fmt.Sprint(fid), "v")
		c.open(fid+1, rdwr, "keys", fmt.Sprint(fid))
	}
	for round := range 10 {
		h.cutting(uint64(round), 20000)
		restart()
		for fid := range uint32(50) {
			c.do(&wire.Msg{Type: wire.Tgetattr, Tag: 1, Fid: fid + 1}, wire.Rgetattr)
		}
		h.cutting(0, 0)
	}
	for fid := range uint32(50) {
		c.do(write(fid+1, 0, "w"), wire.Rwrite)
		if got := h.value(fmt.Sprint(fid)); got != "w" {
			t.Errorf("%d is %q", fid, got)
		}
	}
}
