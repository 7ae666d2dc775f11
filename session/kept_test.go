package session_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session"
	"meta9/session/wire"
)

// begin opens keys/color as fid 1 for writing and lets a write of "red" to it wait
// in the store, under tag 7 and the number that it gives.
func (n *numbered) begin(w *world) (number uint64, release func()) {
	n.walk(1, "keys", "color")
	if n.d.IsL() {
		n.lopen(1, 1)
	} else {
		n.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1, Mode: wire.OWrite}, wire.Ropen)
	}
	_, release = w.engine.Block()
	w.t.Cleanup(release)
	return n.ask(&wire.Msg{Type: wire.Twrite, Tag: 7, Fid: 1, Data: []byte("red"), Count: 3}), release
}

// settled waits until all that was sent has come.
func (n *numbered) settled() {
	n.do(&wire.Msg{Type: wire.Tflush, Tag: 65000, Oldtag: 65001}, wire.Rflush)
}

// TestNumbersRoundTrip: a session goes to another host with its count and the
// replies that may have been lost. What was under way fails there: nobody knows
// whether it has happened.
func TestNumbersRoundTrip(t *testing.T) {
	for _, d := range []wire.Dialect{wire.EN, wire.LE} {
		w := newWorld(t, nil)
		w.put("color", "blue")
		a := w.numbered(d, 1, nil)
		a.do(&wire.Msg{Type: wire.Tclunk, Tag: 5, Fid: 99}, a.refusal())
		failed := a.count
		write, _ := a.begin(w)
		a.ask(&wire.Msg{Type: wire.Tflush, Tag: 8, Oldtag: 7})
		a.ask(&wire.Msg{Type: wire.Tclunk, Tag: 9, Fid: 1})
		a.settled()
		st := a.hangUp(w)
		other := openWorld(t, w.disk.Clone(), nil)
		if err := other.server.Restore(moved(t, st)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]session.State{st}, slices.Collect(other.server.States()), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("restored: %s", diff)
		}
		b := other.numbered(d, 1, a)
		b.resume([]uint64{failed, write, write + 1, write + 2, b.count + 1},
			wire.Answered, wire.Answered, wire.Answered, wire.Answered, wire.Unseen)
		b.expect(b.refusal(), 5)
		for _, tag := range []uint16{7, 9} {
			if m := b.expect(b.refusal(), tag); !strings.HasPrefix(m.Ename, errs.IO.Text()) && m.Errno != uint32(syscall.EIO) {
				t.Errorf("under way: %s", m)
			}
		}
		b.settled() // no more than those
		b.do(&wire.Msg{Type: wire.Tclunk, Tag: 9, Fid: 1}, b.refusal())
		if got := other.value("color"); got != "blue" {
			t.Errorf("color is %q", got)
		}
	}
}

// TestHalfEcho: of an "echo v > key" whose write was under way, the truncation does
// not happen on the other host, where the write fails.
func TestHalfEcho(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	a := w.numbered(wire.LE, 1, nil)
	a.walk(1, "keys", "color")
	a.lopen(1, p9.WriteOnly|0o1000) // O_TRUNC
	_, release := w.engine.Block()
	t.Cleanup(release)
	write := a.ask(&wire.Msg{Type: wire.Twrite, Tag: 7, Fid: 1, Data: []byte("red"), Count: 3})
	a.settled()
	other := openWorld(t, w.disk.Clone(), nil)
	if err := other.server.Restore(moved(t, a.hangUp(w))); err != nil {
		t.Fatal(err)
	}
	b := other.numbered(wire.LE, 1, a)
	b.resume([]uint64{write}, wire.Answered)
	b.expect(wire.Rlerror, 7)
	b.do(&wire.Msg{Type: wire.Tclunk, Tag: 7, Fid: 1}, wire.Rclunk)
	if got := other.value("color"); got != "blue" {
		t.Errorf("color is %q", got)
	}
}

// TestKeptRefused: what is no State of a numbered session is refused.
func TestKeptRefused(t *testing.T) {
	w := newWorld(t, nil)
	st := w.numbered(wire.EN, 1, nil).hangUp(w)
	good := st.Kept[0].Frame
	long := wire.AppendError(nil, 1, errs.New(errs.Invalid, "%s", strings.Repeat("x", 200)), wire.EN)
	for name, kept := range map[string][]session.KeptReply{
		"nothing":      {{Number: 1}},
		"half a frame": {{Number: 1, Frame: good[:len(good)-1]}},
		"more":         {{Number: 1, Frame: append(good[:len(good):len(good)], 0)}},
		"no such type": {{Number: 1, Frame: []byte{7, 0, 0, 0, 255, 0, 0}}},
		"of .L":        {{Number: 1, Frame: []byte{7, 0, 0, 0, byte(wire.Rfsync), 0, 0}}},
		"too long":     {{Number: 1, Frame: append(append([]byte{0x2c, 1}, long[2:]...), make([]byte, 300-len(long))...)}},
		"too many":     make([]session.KeptReply, 2*wire.MaxNumbers+1),
	} {
		bad := st
		bad.Kept = kept
		if err := w.server.Restore(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestExpiryUnderWay: a session whose time is over while a change is under way ends
// for its client at once; the change ends by itself, and so does what it held.
func TestExpiryUnderWay(t *testing.T) {
	w := newWorld(t, func(c *session.Config) { c.Lifetime = 50 * time.Millisecond })
	w.put("color", "blue")
	a := w.numbered(wire.LE, 1, nil)
	_, release := a.begin(w)
	a.ask(tlock(1, 1, 0, 0))
	a.expect(wire.Rlock, 1)
	a.nc.Close()
	w.until("the expiry", func() bool { return w.server.Stats().Expired == 1 })
	b := w.dial("pipe", peers["vm"])
	b.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: "9P2000.L.e"}, wire.Rversion)
	b.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rlerror)
	x := w.linuxClient()
	x.walk(1, "keys", "color")
	x.lopen(1, 2)
	m := tlock(1, 1, 0, 0)
	m.L.Flags = 1
	x.send(m)
	x.do(&wire.Msg{Type: wire.Tflush, Tag: 2, Oldtag: 3}, wire.Rflush) // nothing came before
	if got := w.value("color"); got != "blue" {
		t.Errorf("color is %q before the commit", got)
	}
	release()
	if r := x.receive(); r == nil || r.Type != wire.Rlock || r.L.Status != 0 {
		t.Fatalf("the lock: %v", r)
	}
	if got := w.value("color"); got != "rede" {
		t.Errorf("color is %q", got)
	}
}

// TestKeptEviction: of a client that uses more tags than it may, the oldest replies
// go, and what it is told of them is still true.
func TestKeptEviction(t *testing.T) {
	const n = wire.MaxNumbers + 100
	w := newWorld(t, nil)
	a := w.numbered(wire.EN, 1, nil)
	first := a.count + 1
	for i := range n {
		a.do(&wire.Msg{Type: wire.Tclunk, Tag: uint16(i), Fid: 99}, wire.Rerror)
	}
	if kept := a.hangUp(w).Kept; len(kept) != wire.MaxNumbers || kept[0].Number != first+100 {
		t.Fatalf("%d replies are kept from %d on, want %d from %d on", len(kept), kept[0].Number, wire.MaxNumbers, first+100)
	}
	b := w.numbered(wire.EN, 1, a)
	var numbers []uint64
	for i := range uint64(wire.MaxNumbers) {
		numbers = append(numbers, first+50+i)
	}
	b.resume(numbers, []byte(strings.Repeat(string(rune(wire.Answered)), len(numbers)))...)
	for tag := uint16(100); tag < 50+wire.MaxNumbers; tag++ {
		b.expect(wire.Rerror, tag)
	}
	b.settled()
}

// TestTresumeHostile: a Tresume that says what cannot be is refused as a whole, and
// the connection can still do it right, once.
func TestTresumeHostile(t *testing.T) {
	w := newWorld(t, nil)
	a := w.numbered(wire.EN, 1, nil)
	a.do(&wire.Msg{Type: wire.Tclunk, Tag: 5, Fid: 99}, wire.Rerror)
	a.refusedResume(t, "before a resume", []uint64{1})
	a.nc.Close()
	w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
	b := w.numbered(wire.EN, 1, a)
	span := func(from, step uint64) (list []uint64) {
		for i := range uint64(wire.MaxNumbers) {
			list = append(list, from+i*step)
		}
		return list
	}
	const last = 1<<64 - 1
	for name, numbers := range map[string][]uint64{
		"0":                    {0},
		"twice the same":       {1, 1},
		"descending":           {2, 1},
		"512 descending":       span(600, last),
		"2^64-1":               {last},
		"the last and 2^64-1":  {1, 2, last},
		"2^64-1 and on":        {last, 0},
		"512 around 2^64":      span(last-5, 1),
		"512 with gaps":        span(1, 2),
		"512 that never came":  span(b.count+2, 1),
		"a gap, then the next": {b.count + 2, b.count + 3},
	} {
		b.refusedResume(t, name, numbers)
	}
	b.write(tresumeOf(513, span(1, 1)))
	b.expect(wire.Rerror, wire.NoTag)
	b.write(tresumeOf(wire.MaxNumbers, nil))
	b.expect(wire.Rerror, wire.NoTag)
	for _, m := range []*wire.Msg{
		{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)},
		{Type: wire.Tresume, Tag: 3},
		{Type: wire.Tclunk, Tag: 3},
		{Type: wire.Tattach, Tag: 3, Fid: 1, Afid: wire.NoFid},
		{Type: wire.Tflush, Tag: 3, Oldtag: wire.NoTag},
	} {
		b.client.do(m, wire.Rerror)
	}
	states := make([]uint8, wire.MaxNumbers)
	states[0], states[1] = wire.Answered, wire.Answered
	b.resume(span(1, 1), states...)
	b.expect(wire.Rattach, 1)
	b.expect(wire.Rerror, 5)
	b.refusedResume(t, "twice", nil)
}

// TestTresumeElsewhere: other dialects know no Tresume, and live on.
func TestTresumeElsewhere(t *testing.T) {
	w := newWorld(t, nil)
	for _, d := range []wire.Dialect{wire.Plain, wire.U, wire.E, wire.L} {
		c := w.dial("unix", peers["vm"])
		c.hello(d.String())
		c.write(tresumeOf(1, []uint64{1}))
		if m := c.receive(); m == nil || m.Type != wire.Rerror && m.Type != wire.Rlerror {
			t.Errorf("in %s: %v", d, m)
		}
		c.do(&wire.Msg{Type: wire.Tclunk, Tag: 1}, wire.Rclunk)
	}
	early := w.dial("unix", peers["vm"])
	early.write(tresumeOf(1, []uint64{1}))
	if m := early.receive(); m == nil || m.Type != wire.Rerror {
		t.Errorf("before Tversion: %v", m)
	}
}

// refusedResume sends a Tresume that is refused.
func (n *numbered) refusedResume(t *testing.T, name string, numbers []uint64) {
	t.Helper()
	n.send(&wire.Msg{Type: wire.Tresume, Tag: wire.NoTag, Numbers: numbers})
	if m := n.receive(); m == nil || m.Type != n.refusal() {
		t.Fatalf("%s: got %v", name, m)
	}
}

// tresumeOf is a Tresume that says it has so many numbers.
func tresumeOf(count int, numbers []uint64) []byte {
	size := wire.HeaderLen + 2 + 8*len(numbers)
	b := []byte{byte(size), byte(size >> 8), 0, 0, byte(wire.Tresume), 0xff, 0xff, byte(count), byte(count >> 8)}
	for _, n := range numbers {
		for shift := 0; shift < 64; shift += 8 {
			b = append(b, byte(n>>shift))
		}
	}
	return b
}

// TestKeptMemory: 10,000 parked sessions with some kept replies and locks take what
// they are thought to, and a bound of their bytes holds for those with all that a
// hostile client can leave.
func TestKeptMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of sessions")
	}
	notUnderRace(t)
	for _, tt := range []struct {
		name                 string
		sessions, kept, lock int
	}{
		{"some", 10000, 8, 2},
		{"all", 40, wire.MaxNumbers, 500},
	} {
		w := newWorld(t, nil)
		w.put("color", "blue")
		before := memory()
		for i := range tt.sessions {
			w.parkKept(i, tt.kept, tt.lock)
		}
		w.until("parked", func() bool { return w.server.Stats().Parked == tt.sessions && w.server.Stats().Conns == 0 })
		took, thought, n := memory()-before, w.server.Stats().ParkedBytes, int64(tt.sessions)
		t.Logf("%s: %d bytes each, %d thought", tt.name, took/n, thought/n)
		if thought < took*4/5 || thought > took*5/4 {
			t.Errorf("%s: they are thought to take %d bytes and take %d", tt.name, thought, took)
		}
	}
	const bound = 4 << 20
	w := newWorld(t, func(c *session.Config) { c.Limits.ParkedBytes = bound })
	w.put("color", "blue")
	before := memory()
	for i := range 50 {
		w.parkKept(i, wire.MaxNumbers, 500)
	}
	w.until("parked", func() bool { return w.server.Stats().Conns == 0 })
	st := w.server.Stats()
	if took := memory() - before; took > 2*bound || st.ParkedBytes > bound || st.Parked == 0 || st.Expired == 0 {
		t.Errorf("%d bytes are in use, %d allowed: %+v", took, bound, st)
	}
}

// parkKept leaves an admin's session with so many kept replies, each about as long
// as there are, and locks.
func (w *world) parkKept(i, kept, locks int) {
	const names = 14
	c := w.rawDial(peers["admin"])
	open := &wire.Msg{Type: wire.Tlopen, Fid: 1}
	open.L.Flags = 2
	c.askIn(wire.LE, 23+11+20+35+24,
		&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: "9P2000.L.e"},
		&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(i)},
		attach(0), &wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys", "color"}}, open)
	var walks, takes []*wire.Msg
	for tag := range kept {
		walks = append(walks,
			&wire.Msg{Type: wire.Twalk, Tag: uint16(tag), Newfid: 2, Names: slices.Repeat([]string{".."}, names)},
			&wire.Msg{Type: wire.Tclunk, Tag: 60000, Fid: 2})
	}
	c.askIn(wire.LE, kept*(9+13*names+7), walks...)
	for at := range locks {
		m := tlock(1, 0, uint64(2*at), 1)
		m.L.ProcID, m.L.ClientID = uint32(i), fmt.Sprintf("%0200d", i)
		takes = append(takes, m)
	}
	c.askIn(wire.LE, 8*locks, takes...)
	syscall.Close(c.fd)
}
