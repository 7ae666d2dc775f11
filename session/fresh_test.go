package session_test

import (
	"sync/atomic"
	"testing"

	"meta9/fs/errs"
	"meta9/session"
	"meta9/session/wire"
)

// TestFresh: while what the store has may be old, nothing of it is told, and what a client
// has begun can be ended.
func TestFresh(t *testing.T) {
	var old atomic.Bool
	w := newWorld(t, func(c *session.Config) {
		c.Fresh = func() error {
			if old.Load() {
				return errs.New(errs.IO, "it may be old")
			}
			return nil
		}
	})
	w.put("color", "blue")
	c := w.dial("unix", peers["vm"])
	c.hello("9P2000.e")
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"keys", "color"}}, wire.Rwalk)
	c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1, Mode: wire.ORdWr}, wire.Ropen)
	asks := []*wire.Msg{
		{Type: wire.Tread, Tag: 1, Fid: 1, Count: 10},
		{Type: wire.Tstat, Tag: 1, Fid: 1},
		{Type: wire.Tsread, Tag: 1, Names: []string{"keys", "color"}},
		{Type: wire.Twalk, Tag: 1, Newfid: 2, Names: []string{"keys"}},
	}
	old.Store(true)
	for _, m := range asks {
		if r := c.do(m, wire.Rerror); r.Ename != "i/o error: it may be old" {
			t.Errorf("%s: %s", m, r)
		}
	}
	c.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("red"), Count: 3}, wire.Rwrite)
	c.do(&wire.Msg{Type: wire.Tflush, Tag: 1, Oldtag: 9}, wire.Rflush)
	old.Store(false)
	for _, m := range asks {
		c.do(m, m.Type+1)
	}
	old.Store(true)
	c.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 1}, wire.Rclunk)

	linux := w.dial("unix", peers["vm"])
	linux.hello("9P2000.L")
	for _, what := range []wire.Type{wire.Tgetattr, wire.Tstatfs} {
		linux.do(&wire.Msg{Type: what, Tag: 1}, wire.Rlerror)
	}

	// What the admin reads of the daemon itself is told.
	admin := w.dial("unix", peers["admin"])
	admin.hello("9P2000.e")
	admin.do(&wire.Msg{Type: wire.Tsread, Tag: 1, Names: []string{"ctl"}}, wire.Rsread)
	for _, names := range [][]string{{"vms", vmOne, "keys", "color"}, {"vms"}, {"names"}, {"ctl", "..", "vms"}} {
		if r := admin.do(&wire.Msg{Type: wire.Tsread, Tag: 1, Names: names}, wire.Rerror); r.Ename != "i/o error: it may be old" {
			t.Errorf("%s: %s", names, r)
		}
	}
}
