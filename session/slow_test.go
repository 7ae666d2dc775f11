package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meta9/fs/store"
	"meta9/session"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// deaf is a client over a unix socket that reads only when it is told to.
type deaf struct {
	t    testing.TB
	nc   net.Conn
	sent atomic.Int64 // bytes that the server or the socket took
	d    wire.Dialect
}

func (w *world) deaf(who string) *deaf {
	server, nc := redialtest.Pair(w.t)
	w.serve(server, peers[who])
	w.t.Cleanup(func() { nc.Close() })
	return &deaf{t: w.t, nc: nc, d: wire.None}
}

// send sends messages in a goroutine of its own, as far as they go.
func (c *deaf) send(w *world, msgs ...*wire.Msg) {
	var frames [][]byte
	for _, m := range msgs {
		frame, err := wire.Append(nil, m, c.d)
		if err != nil {
			c.t.Fatal(err)
		}
		frames = append(frames, frame)
	}
	w.served.Go(func() {
		for _, frame := range frames {
			n, err := c.nc.Write(frame)
			c.sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
}

// receive reads the next message.
func (c *deaf) receive() *wire.Msg {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patient))
	var head [4]byte
	if _, err := io.ReadFull(c.nc, head[:]); err != nil {
		c.t.Fatal(err)
	}
	frame := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16|int(head[3])<<24)
	copy(frame, head[:])
	if _, err := io.ReadFull(c.nc, frame[4:]); err != nil {
		c.t.Fatal(err)
	}
	m := new(wire.Msg)
	if err := wire.Decode(m, frame, c.d); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// unread is how many bytes of replies its socket holds.
func (c *deaf) unread() (n int64) {
	raw, err := c.nc.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			held, _ := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			n = int64(held)
		})
	}
	if err != nil {
		c.t.Error(err)
	}
	return n
}

func (c *deaf) do(w *world, m *wire.Msg, want wire.Type) {
	c.t.Helper()
	c.send(w, m)
	if r := c.receive(); r.Type != want {
		c.t.Fatalf("%s got %s", m, r)
	}
}

// hello opens the key big as fid 1, under a session key.
func (c *deaf) hello(w *world) {
	c.t.Helper()
	c.do(w, &wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: "9P2000.e"}, wire.Rversion)
	c.d = wire.E
	c.do(w, &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rerror)
	c.do(w, &wire.Msg{Type: wire.Tattach, Afid: wire.NoFid}, wire.Rattach)
	c.do(w, &wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys", "big"}}, wire.Rwalk)
	c.do(w, &wire.Msg{Type: wire.Topen, Fid: 1, Mode: wire.ORdWr}, wire.Ropen)
}

const bigValue = 256 << 10

// bigReads are n requests whose replies no socket holds.
func bigReads(n int) (msgs []*wire.Msg) {
	for i := range n {
		msgs = append(msgs, &wire.Msg{Type: wire.Tread, Tag: uint16(1000 + i), Fid: 1, Count: bigValue})
	}
	return msgs
}

// TestDeafPeer: a peer that does not read is not read either; others are served,
// and in the end it gets every reply.
func TestDeafPeer(t *testing.T) {
	const reads = 1000
	w := newWorld(t, nil)
	w.put("big", strings.Repeat("x", bigValue))
	a := w.deaf("vm")
	a.hello(w)
	before := memory()
	a.send(w, bigReads(reads)...)
	other := w.dial("unix", peers["vm"])
	other.hello("9P2000.e")
	for range 100 {
		other.do(&wire.Msg{Type: wire.Tsread, Tag: 2, Names: []string{"keys"}}, wire.Rsread)
	}
	if grown := memory() - before; grown > 16<<20 {
		t.Errorf("it took %d bytes", grown)
	}
	for i := range reads {
		if m := a.receive(); m.Type != wire.Rread || m.Tag != uint16(1000+i) || len(m.Data) != bigValue {
			t.Fatalf("%d: %s tag %d of %d bytes", i, m.Type, m.Tag, len(m.Data))
		}
	}
}

// TestTakeOverStuck: the old transport's loop is stuck in a write.
func TestTakeOverStuck(t *testing.T) {
	w := newWorld(t, nil)
	w.put("big", strings.Repeat("x", bigValue))
	a := w.deaf("vm")
	a.hello(w)
	a.send(w, bigReads(100)...)
	b := w.dial("unix", peers["vm"])
	b.do(version(), wire.Rversion)
	b.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rsession)
	b.do(&wire.Msg{Type: wire.Tread, Tag: 1, Fid: 1, Count: 100}, wire.Rread)
	w.until("the end of the old one", func() bool { return w.server.Stats().Conns == 1 })
}

// TestStalledReads: blocking reads that are woken while the peer takes nothing
// wait on, and are answered once it does, with more than woke them.
func TestStalledReads(t *testing.T) {
	const waiting, reads, puts = 50, 20, 100
	w := newWorld(t, func(c *session.Config) { c.Limits.Unsent = 1 })
	w.put("big", strings.Repeat("x", bigValue))
	a := w.deaf("vm")
	a.hello(w)
	a.do(w, &wire.Msg{Type: wire.Twalk, Newfid: 2, Names: []string{"events"}}, wire.Rwalk)
	a.do(w, &wire.Msg{Type: wire.Topen, Fid: 2}, wire.Ropen)
	var msgs []*wire.Msg
	for i := range waiting {
		msgs = append(msgs, &wire.Msg{Type: wire.Tread, Tag: uint16(i), Fid: 2, Count: bigValue})
	}
	a.send(w, append(msgs, bigReads(reads)...)...)
	w.until("replies", func() bool { return a.unread() > 0 })
	steady(w, a.unread)
	for range puts {
		w.put("big", strings.Repeat("y", bigValue))
	}
	got := make(map[uint16]bool)
	for len(got) < waiting+reads {
		m := a.receive()
		if m.Type != wire.Rread || got[m.Tag] {
			t.Fatalf("%s tag %d of %d bytes", m.Type, m.Tag, len(m.Data))
		}
		got[m.Tag] = true
		if n := bytes.Count(m.Data, []byte("\n")); m.Tag < waiting && n < 2 {
			t.Fatalf("tag %d got %d events, while nothing was sent", m.Tag, n)
		}
	}
}

// steady waits until n has stayed the same for a while. What it cannot see is
// something that goes on even later, so a failure is never its fault.
func steady(w *world, n func() int64) int64 {
	last, same := n(), 0
	w.until("a steady state", func() bool {
		if now := n(); now != last {
			last, same = now, 0
		}
		same++
		return same > 30
	})
	return last
}

// TestUnsentWrites: writes that are not durable yet count against the connection,
// which is not read past its limit.
func TestUnsentWrites(t *testing.T) {
	const size, limit, writes = 256 << 10, 1 << 20, 40
	w := newWorld(t, func(c *session.Config) { c.Limits.Unsent = limit })
	w.put("big", "")
	a := w.deaf("vm")
	a.hello(w)
	_, release := w.engine.Block()
	t.Cleanup(release)
	var msgs []*wire.Msg
	for i := range writes {
		msgs = append(msgs, &wire.Msg{Type: wire.Twrite, Tag: uint16(i), Fid: 1, Data: bytes.Repeat([]byte("x"), size)})
	}
	start := a.sent.Load()
	a.send(w, msgs...)
	// What the limit lets in, one message past it, and what a socket holds.
	if took := steady(w, a.sent.Load) - start; took > limit+4*size {
		t.Errorf("%d bytes were taken", took)
	}
	release()
	for i := range writes {
		if m := a.receive(); m.Type != wire.Rwrite || m.Count != size {
			t.Fatalf("%d: %s", i, m)
		}
	}
}

// TestDrain: what was begun is answered, then the connection ends; nobody new is
// let in, and nothing is parked.
func TestDrain(t *testing.T) {
	w := newWorld(t, nil)
	w.put("big", "")
	a := w.deaf("vm")
	a.hello(w)
	_, release := w.engine.Block()
	t.Cleanup(release)
	a.send(w, &wire.Msg{Type: wire.Twrite, Tag: 7, Fid: 1, Data: []byte("x")}, &wire.Msg{Type: wire.Tstat, Tag: 8})
	if m := a.receive(); m.Type != wire.Rstat {
		t.Fatal(m)
	}
	drained := make(chan error)
	go func() { drained <- w.server.Drain(context.Background()) }()
	w.until("the refusal", func() bool {
		server, nc := net.Pipe()
		defer nc.Close()
		refused := w.server.Stats().Refused
		w.served.Go(func() { w.server.Serve(server, peers["vm2"]) })
		nc.SetDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := nc.Read(make([]byte, 1))
		return errors.Is(err, io.EOF) && w.server.Stats().Refused > refused
	})
	release()
	if m := a.receive(); m.Type != wire.Rwrite || m.Tag != 7 {
		t.Fatal(m)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	if st := w.server.Stats(); st.Conns != 0 || st.Parked != 0 || st.Sessions != 0 {
		t.Errorf("left: %+v", st)
	}
}

// TestDrainImpatient: who does not take the replies is cut off when the time is
// over.
func TestDrainImpatient(t *testing.T) {
	w := newWorld(t, nil)
	w.put("big", strings.Repeat("x", bigValue))
	a := w.deaf("vm")
	a.hello(w)
	a.send(w, bigReads(100)...)
	w.until("the requests", func() bool { return a.sent.Load() > 100 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := w.server.Drain(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if n := w.server.Stats().Conns; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestExpiryDropsHold: a truncation that a parked session holds is forgotten with
// the session, and ends with a commit before.
func TestExpiryDropsHold(t *testing.T) {
	w := newWorld(t, func(c *session.Config) { c.Lifetime = 30 * time.Millisecond })
	w.put("big", "old")
	a := w.deaf("vm")
	a.hello(w)
	a.do(w, &wire.Msg{Type: wire.Twalk, Newfid: 2, Names: []string{"keys", "big"}}, wire.Rwalk)
	a.do(w, &wire.Msg{Type: wire.Topen, Fid: 2, Mode: wire.OWrite | wire.OTrunc}, wire.Ropen)
	a.nc.Close()
	w.until("the expiry", func() bool { return w.server.Stats().Expired == 1 })
	cell := w.store.Cell(vmOne)
	w.do(&store.Intent{Kind: store.Append, Cell: cell, Name: "big", Data: "er", By: "admin"})
	if got := w.value("big"); got != "older" {
		t.Errorf("the value is %q", got)
	}
}
