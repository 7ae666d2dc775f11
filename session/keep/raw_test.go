package keep_test

import (
	"net"
	"testing"

	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// raw is a client that says what it likes.
type raw struct{ redialtest.Peer }

func newRaw(t testing.TB, nc net.Conn) *raw { return &raw{redialtest.Peer{T: t, NC: nc}} }

// do is send and receive; the reply must be of that type.
func (c *raw) do(m *wire.Msg, want wire.Type) *wire.Msg {
	c.T.Helper()
	c.Send(m)
	r := c.Receive()
	if r == nil || r.Type != want || r.Tag != m.Tag {
		c.T.Fatalf("%s: got %v, want %s", m, r, want)
	}
	return r
}

// hello agrees on a version, and attaches fid 0.
func (c *raw) hello(version string) {
	c.T.Helper()
	c.version(version, 8192)
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "nobody", NUname: wire.NoUID}, wire.Rattach)
}

func (c *raw) version(version string, msize uint32) *wire.Msg {
	c.T.Helper()
	c.Dialect = wire.None
	r := c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: msize, Version: version}, wire.Rversion)
	c.Dialect = wire.Negotiate(r.Version)
	return r
}

// walk makes a fid of a key.
func (c *raw) walk(fid uint32, names ...string) {
	c.T.Helper()
	r := c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: fid, Names: names}, wire.Rwalk)
	if len(r.QIDs) != len(names) {
		c.T.Fatalf("walked to %v of %v", r.QIDs, names)
	}
}

// open makes a fid of a key and opens it with open(2)'s flags.
func (c *raw) open(fid uint32, flags uint32, names ...string) {
	c.T.Helper()
	c.walk(fid, names...)
	m := &wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: fid}
	m.L.Flags = flags
	c.do(m, wire.Rlopen)
}

// errno is what a request is refused with; 0: it succeeds.
func (c *raw) errno(m *wire.Msg) uint32 {
	c.T.Helper()
	c.Send(m)
	r := c.Receive()
	switch {
	case r == nil:
		c.T.Fatalf("%s ended the connection", m)
	case r.Type == wire.Rlerror:
		return r.Errno
	case r.Type != m.Type+1:
		c.T.Fatalf("%s: got %v", m, r)
	}
	return 0
}
