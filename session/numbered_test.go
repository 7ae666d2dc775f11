package session_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/session"
	"meta9/session/wire"
)

// numbered is a connection of the first VM's in a numbered dialect.
type numbered struct {
	*client
	d     wire.Dialect
	count uint64 // requests that were sent
}

// numbered connects and announces the key, or resumes its session, of which
// count requests are known. Tresume is to come then.
func (w *world) numbered(d wire.Dialect, key int, back *numbered) *numbered {
	w.t.Helper()
	n := &numbered{client: w.dial("unix", peers["vm"]), d: d}
	n.client.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: d.String()}, wire.Rversion)
	session := &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(key)}
	if back != nil {
		n.count = back.count
		n.client.do(session, wire.Rsession)
		return n
	}
	n.client.do(session, n.refusal())
	n.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "glenda", NUname: wire.NoUID}, wire.Rattach)
	return n
}

// refusal is the type of an error reply.
func (n *numbered) refusal() wire.Type {
	if n.d.IsL() {
		return wire.Rlerror
	}
	return wire.Rerror
}

// ask sends a request and gives its number.
func (n *numbered) ask(m *wire.Msg) uint64 {
	n.t.Helper()
	n.send(m)
	n.count++
	return n.count
}

func (n *numbered) do(m *wire.Msg, want wire.Type) *wire.Msg {
	n.t.Helper()
	n.count++
	return n.client.do(m, want)
}

func (n *numbered) walk(fid uint32, names ...string) {
	n.t.Helper()
	n.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: fid, Names: names}, wire.Rwalk)
}

func (n *numbered) lopen(fid uint32, flags p9.OpenFlags) {
	n.t.Helper()
	m := &wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: fid}
	m.L.Flags = uint32(flags)
	n.do(m, wire.Rlopen)
}

// tlock is a Tlock of a range, length 0 to the end.
func tlock(fid uint32, how p9.LockType, from, length uint64) *wire.Msg {
	m := &wire.Msg{Type: wire.Tlock, Tag: 1, Fid: fid}
	m.L.LockType, m.L.Start, m.L.Length, m.L.ProcID, m.L.ClientID = how, from, length, 7, "guest"
	return m
}

func (n *numbered) lock(fid uint32, how p9.LockType, from, length uint64) p9.LockStatus {
	n.t.Helper()
	return n.do(tlock(fid, how, from, length), wire.Rlock).L.Status
}

// resume sends Tresume and checks what is said of the requests.
func (n *numbered) resume(numbers []uint64, states ...uint8) {
	n.t.Helper()
	m := n.client.do(&wire.Msg{Type: wire.Tresume, Tag: wire.NoTag, Numbers: numbers}, wire.Rresume)
	if diff := cmp.Diff(states, m.States, cmpopts.EquateEmpty()); diff != "" {
		n.t.Errorf("of %d: %s", numbers, diff)
	}
}

// expect receives a reply of that type and tag.
func (n *numbered) expect(t wire.Type, tag uint16) *wire.Msg {
	n.t.Helper()
	m := n.receive()
	if m == nil || m.Type != t || m.Tag != tag {
		n.t.Fatalf("got %v, want %s tag %d", m, t, tag)
	}
	return m
}

// hangUp leaves the session parked, and gives its State.
func (n *numbered) hangUp(w *world) session.State {
	w.t.Helper()
	n.nc.Close()
	w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
	return slices.Collect(w.server.States())[0]
}

// moved is st as another process gets it.
func moved(t testing.TB, st session.State) (other session.State) {
	t.Helper()
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &other); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(st, other, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("through JSON: %s", diff)
	}
	return other
}

// lockSome leaves a session with a fid of each kind: 1 locked in part to write and
// in part to read, 2 on another file, 3 not locked any more, 4 a folder.
func lockSome(t *testing.T, w *world) (*numbered, session.State) {
	w.put("color", "blue")
	w.put("size", "xl")
	a := w.numbered(wire.LE, 1, nil)
	for fid, name := range []string{1: "color", 2: "size", 3: "color"} {
		if name != "" {
			a.walk(uint32(fid), "keys", name)
			a.lopen(uint32(fid), p9.ReadWrite)
		}
	}
	a.walk(4, "keys")
	a.lopen(4, p9.ReadOnly)
	for _, m := range []*wire.Msg{
		tlock(1, p9.WriteLock, 0, 10), tlock(1, p9.ReadLock, 20, 0), tlock(2, p9.WriteLock, 0, 0),
		tlock(3, p9.WriteLock, 12, 1), tlock(3, p9.Unlock, 12, 1), tlock(4, p9.WriteLock, 0, 0),
	} {
		if s := a.do(m, wire.Rlock).L.Status; s != p9.LockStatusOK {
			t.Fatalf("%s: status %d", m, s)
		}
	}
	return a, a.hangUp(w)
}

// TestLocksRoundTrip: a session's locks are had again on another host, from the
// moment of Restore.
func TestLocksRoundTrip(t *testing.T) {
	w := newWorld(t, nil)
	a, st := lockSome(t, w)
	other := openWorld(t, w.disk.Clone(), nil)
	if err := other.server.Restore(moved(t, st)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]session.State{st}, slices.Collect(other.server.States()), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("restored: %s", diff)
	}
	x := other.linuxClient()
	x.walk(1, "keys", "color")
	x.lopen(1, p9.ReadWrite)
	status := func(how p9.LockType, from, length uint64, want p9.LockStatus) {
		t.Helper()
		if got := x.do(tlock(1, how, from, length), wire.Rlock).L.Status; got != want {
			t.Errorf("type %d from %d, %d bytes: status %d, want %d", how, from, length, got, want)
		}
	}
	status(p9.ReadLock, 9, 1, p9.LockStatusBlocked)
	status(p9.WriteLock, 1<<63, 1, p9.LockStatusBlocked)
	status(p9.ReadLock, 20, 1, p9.LockStatusOK)
	status(p9.WriteLock, 10, 10, p9.LockStatusOK)
	b := other.numbered(wire.LE, 1, a)
	b.resume(nil)
	b.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("red"), Count: 3}, wire.Rwrite)
	if s := b.lock(1, p9.Unlock, 0, 10); s != p9.LockStatusOK {
		t.Errorf("unlocking: status %d", s)
	}
	status(p9.WriteLock, 0, 10, p9.LockStatusOK)
	b.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 1}, wire.Rclunk)
	status(p9.WriteLock, 0, 0, p9.LockStatusOK)
}

// TestLocksTaken: a fid whose lock somebody else has by now answers ESTALE to
// everything, holds no lock, and stays so when it moves on; others are as they
// were.
func TestLocksTaken(t *testing.T) {
	w := newWorld(t, nil)
	a, st := lockSome(t, w)
	other := openWorld(t, w.disk.Clone(), nil)
	x := other.linuxClient()
	x.walk(1, "keys", "color")
	x.lopen(1, p9.ReadWrite)
	x.walk(2, "keys")
	x.lopen(2, p9.ReadOnly)
	for _, m := range []*wire.Msg{tlock(1, p9.ReadLock, 5, 1), tlock(2, p9.ReadLock, 0, 0)} {
		if s := x.do(m, wire.Rlock).L.Status; s != p9.LockStatusOK {
			t.Fatalf("%s: status %d", m, s)
		}
	}
	if err := other.server.Restore(moved(t, st)); err != nil {
		t.Fatal(err)
	}
	third := openWorld(t, w.disk.Clone(), nil)
	if err := third.server.Restore(moved(t, slices.Collect(other.server.States())[0])); err != nil {
		t.Fatal(err)
	}
	if s := x.do(tlock(1, p9.WriteLock, 0, 0), wire.Rlock).L.Status; s != p9.LockStatusOK {
		t.Errorf("the fid has kept another lock: status %d", s)
	}
	for name, w := range map[string]*world{"first": other, "moved on": third} {
		b := w.numbered(wire.LE, 1, a)
		b.resume(nil)
		for _, m := range []*wire.Msg{
			{Type: wire.Tread, Tag: 1, Fid: 1, Count: 10},
			{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("red"), Count: 3},
			{Type: wire.Tgetattr, Tag: 1, Fid: 1},
			{Type: wire.Tsetattr, Tag: 1, Fid: 1},
			{Type: wire.Tfsync, Tag: 1, Fid: 1},
			{Type: wire.Twalk, Tag: 1, Fid: 1, Newfid: 9},
			{Type: wire.Tsread, Tag: 1, Fid: 1},
			{Type: wire.Treaddir, Tag: 1, Fid: 4, Count: 1000},
			tlock(1, p9.ReadLock, 100, 1),
			tlock(4, p9.Unlock, 0, 0),
		} {
			if r := b.do(m, wire.Rlerror); r.Errno != uint32(linux.ESTALE) {
				t.Errorf("%s: %s: %s", name, m, r)
			}
		}
		b.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 1}, wire.Rclunk)
		b.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 2, Data: []byte("m"), Count: 1}, wire.Rwrite)
		b.do(&wire.Msg{Type: wire.Tread, Tag: 1, Fid: 3, Count: 10}, wire.Rread)
		b.nc.Close()
	}
	if got := other.value("color"); got != "blue" {
		t.Errorf("color is %q", got)
	}
}
