package session_test

import (
	"testing"

	"meta9/session/wire"
)

var withTokens = []wire.Dialect{wire.EN2, wire.LE2}

// back is a client of a dialect with tokens on another connection, as it was when it had
// sent so many requests and had that token. It names all since the count known.
func (w *world) back(was *numbered, sent, token uint64, names ...uint64) (*numbered, *wire.Msg) {
	w.t.Helper()
	n := &numbered{client: w.dial("unix", peers["vm"]), d: was.d, count: sent}
	n.client.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: was.d.String()}, wire.Rversion)
	n.client.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rsession)
	n.send(&wire.Msg{Type: wire.Tresume, Tag: wire.NoTag, Counted: sent, Token: token, Numbers: names})
	return n, n.receive()
}

// openForWriting makes fid 1 of n the key, open for writing.
func (n *numbered) openForWriting(fid uint32, key string) {
	n.walk(fid, "keys", key)
	if n.d.IsL() {
		n.lopen(fid, 1)
	} else {
		n.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: fid, Mode: wire.OWrite}, wire.Ropen)
	}
}

func (n *numbered) clunk(fid uint32) {
	n.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: fid}, wire.Rclunk)
}

// TestSetBack: a guest is set back to a moment at which its fid 1 was on one key; since
// then that number was used for another. It may send what it likes before it notices: its
// session is refused, and no write of it reaches either key.
func TestSetBack(t *testing.T) {
	for _, d := range withTokens {
		w := newWorld(t, nil)
		w.put("color", "blue")
		w.put("size", "large")
		a := w.numbered(d, 1, nil)
		a.openForWriting(1, "color")
		a.nc.Close()
		// It resumes once, and is saved after that.
		a, m := w.back(a, a.count, 0)
		saved, token := a.count, m.Token
		a.clunk(1)
		a.openForWriting(1, "size")
		a.nc.Close()
		a, m = w.back(a, a.count, token)
		if m.Type != wire.Rresume || m.Token == token || m.Token == 0 {
			t.Fatalf("%v", m)
		}
		a.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("L"), Count: 1}, wire.Rwrite)
		a.nc.Close()
		for _, sent := range []uint64{saved, saved + 100} {
			b, m := w.back(a, sent, token)
			if m.Type != b.refusal() {
				t.Errorf("set back, %d sent: %v", sent, m)
			}
			b.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("X"), Count: 1}, b.refusal())
			b.nc.Close()
		}
		if w.value("color") != "blue" || w.value("size") != "Large" {
			t.Errorf("color %q, size %q", w.value("color"), w.value("size"))
		}
		if n := w.server.Stats().Past; n != 2 {
			t.Errorf("%d were told to have gone back in time", n)
		}
	}
}

// TestClone: of a guest that runs twice one goes on with the session, whoever comes first;
// the other is refused, and does not end it.
func TestClone(t *testing.T) {
	for _, d := range withTokens {
		w := newWorld(t, nil)
		w.put("color", "blue")
		a := w.numbered(d, 1, nil)
		a.openForWriting(1, "color")
		sent := a.count
		a.nc.Close()
		one, m := w.back(a, sent, 0)
		one.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("B"), Count: 1}, wire.Rwrite)
		token := m.Token
		other, m := w.back(a, sent, 0) // takes the transport away
		if m.Type != other.refusal() {
			t.Fatalf("the clone: %v", m)
		}
		other.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("X"), Count: 1}, other.refusal())
		one, m = w.back(one, one.count, token)
		if m.Type != wire.Rresume {
			t.Fatalf("the first: %v", m)
		}
		one.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("C"), Count: 1}, wire.Rwrite)
		if got := w.value("color"); got != "Clue" {
			t.Errorf("color is %q", got)
		}
		// It begins anew, under a key of its own.
		other.client.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: d.String()}, wire.Rversion)
		other.client.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(2)}, other.refusal())
	}
}

// TestMigrationFails: a guest goes to another host, and comes back since that failed: it
// goes on here as it was before. If it has done nothing there, its session is its own. If
// it has, its fids are other files', and it gets no session in which it could write these.
func TestMigrationFails(t *testing.T) {
	for _, d := range withTokens {
		w := newWorld(t, nil)
		w.put("color", "blue")
		w.put("size", "large")
		here := w.numbered(d, 1, nil)
		here.openForWriting(1, "color")
		sent, token := here.count, uint64(0)
		write := func(n *numbered, data string, want wire.Type) {
			t.Helper()
			n.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte(data), Count: 1}, want)
		}
		for i := range 3 { // nothing is done there
			if _, m := w.back(here, sent, token); m.Type != wire.Rresume {
				t.Fatalf("there: %v", m)
			}
			back, m := w.back(here, sent, token)
			if m.Type != wire.Rresume {
				t.Fatalf("back, try %d: %v", i, m)
			}
			write(back, "BCD"[i:i+1], wire.Rwrite)
			here, sent, token = back, back.count, m.Token
		}
		there, m := w.back(here, sent, token)
		if m.Type != wire.Rresume {
			t.Fatal(m)
		}
		there.clunk(1)
		there.openForWriting(1, "size")
		for _, more := range []uint64{0, 1, 50} { // requests that were sent into the old transport
			back, m := w.back(here, sent+more, token)
			if m.Type != back.refusal() {
				t.Errorf("back, %d sent more: %v", more, m)
			}
			write(back, "X", back.refusal())
			back.nc.Close()
		}
		if c, s := w.value("color"), w.value("size"); c != "Dlue" || s != "large" {
			t.Errorf("color %q, size %q", c, s)
		}
	}
}

// TestLostRresume: an Rresume that is lost costs nothing: the token before is good, and
// what never came is asked for again.
func TestLostRresume(t *testing.T) {
	for _, d := range withTokens {
		w := newWorld(t, nil)
		a := w.numbered(d, 1, nil)
		sent := a.count + 3 // which never came
		a.nc.Close()
		for range 3 {
			b, m := w.back(a, sent, 0, sent-2, sent-1, sent)
			if m.Type != wire.Rresume || string(m.States) != "\x00\x00\x00" {
				t.Fatalf("%v", m)
			}
			b.nc.Close()
		}
		b, m := w.back(a, sent, 0, sent-2, sent-1, sent)
		number := b.count + 1
		b.walk(1, "keys")
		b.nc.Close()
		b, m = w.back(b, b.count, m.Token, number)
		if m.Type != wire.Rresume || string(m.States) != "\x01" {
			t.Fatalf("%v", m)
		}
		b.expect(wire.Rwalk, 1)
	}
}

// TestFollows: a session of the old name is resumed under the new one, and not back.
func TestFollows(t *testing.T) {
	for was, is := range map[wire.Dialect]wire.Dialect{wire.EN: wire.EN2, wire.LE: wire.LE2} {
		w := newWorld(t, nil)
		a := w.numbered(was, 1, nil)
		a.walk(1, "keys")
		a.nc.Close()
		a.d = is
		b, m := w.back(a, a.count, 0)
		if m.Type != wire.Rresume {
			t.Fatal(m)
		}
		b.clunk(1)
		b.nc.Close()
		n := w.dial("unix", peers["vm"])
		n.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: was.String()}, wire.Rversion)
		n.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, b.refusal())
	}
}
