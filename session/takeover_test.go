package session_test

import (
	"testing"

	"meta9/session/wire"
)

// TestLastTakeOverWins: of two that claim a session while what its old connection
// has begun still runs, the last gets it.
func TestLastTakeOverWins(t *testing.T) {
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
	claim := func(n int) *client {
		c := w.dial("unix", peers["vm"])
		c.do(version(), wire.Rversion)
		c.send(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)})
		w.until("the claim", func() bool { return w.server.Claims() == n })
		return c
	}
	b, c := claim(1), claim(2)
	release()
	if m := b.receive(); m == nil || m.Type != wire.Rerror {
		t.Errorf("the first got %v", m)
	}
	if m := c.receive(); m == nil || m.Type != wire.Rsession {
		t.Errorf("the last got %v", m)
	}
	c.do(&wire.Msg{Type: wire.Tread, Fid: 1, Count: 1}, wire.Rread)
	b.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid}, wire.Rattach)
}
