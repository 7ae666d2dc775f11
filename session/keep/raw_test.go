package keep_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"meta9/session/wire"
)

// raw is a client that says what it likes.
type raw struct {
	t       testing.TB
	nc      net.Conn
	rd      *bufio.Reader
	dialect wire.Dialect
}

func newRaw(t testing.TB, nc net.Conn) *raw {
	return &raw{t: t, nc: nc, rd: bufio.NewReader(nc)}
}

func (c *raw) send(m *wire.Msg) {
	c.t.Helper()
	frame, err := wire.Append(nil, m, c.dialect)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.nc.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// receive is the next message; nil: the connection has ended.
func (c *raw) receive() *wire.Msg {
	c.t.Helper()
	_ = c.nc.SetReadDeadline(time.Now().Add(patient))
	size, err := c.rd.Peek(4)
	if err != nil {
		if err == io.EOF {
			return nil
		}
		c.t.Fatal(err)
	}
	frame := make([]byte, binary.LittleEndian.Uint32(size))
	if _, err := io.ReadFull(c.rd, frame); err != nil {
		c.t.Fatal(err)
	}
	m := new(wire.Msg)
	if err := wire.Decode(m, frame, c.dialect); err != nil {
		c.t.Fatalf("%x: %v", frame, err)
	}
	return m
}

// do is send and receive; the reply must be of that type.
func (c *raw) do(m *wire.Msg, want wire.Type) *wire.Msg {
	c.t.Helper()
	c.send(m)
	r := c.receive()
	if r == nil || r.Type != want || r.Tag != m.Tag {
		c.t.Fatalf("%s: got %v, want %s", m, r, want)
	}
	return r
}

// hello agrees on a version, and attaches fid 0.
func (c *raw) hello(version string) {
	c.t.Helper()
	c.version(version, 8192)
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "nobody", NUname: wire.NoUID}, wire.Rattach)
}

func (c *raw) version(version string, msize uint32) *wire.Msg {
	c.t.Helper()
	c.dialect = wire.None
	r := c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: msize, Version: version}, wire.Rversion)
	c.dialect = wire.Negotiate(r.Version)
	return r
}

// walk makes a fid of a key.
func (c *raw) walk(fid uint32, names ...string) {
	c.t.Helper()
	r := c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: fid, Names: names}, wire.Rwalk)
	if len(r.QIDs) != len(names) {
		c.t.Fatalf("walked to %v of %v", r.QIDs, names)
	}
}

// open makes a fid of a key and opens it with open(2)'s flags.
func (c *raw) open(fid uint32, flags uint32, names ...string) {
	c.t.Helper()
	c.walk(fid, names...)
	m := &wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: fid}
	m.L.Flags = flags
	c.do(m, wire.Rlopen)
}

// errno is what a request is refused with; 0: it succeeds.
func (c *raw) errno(m *wire.Msg) uint32 {
	c.t.Helper()
	c.send(m)
	r := c.receive()
	switch {
	case r == nil:
		c.t.Fatalf("%s ended the connection", m)
	case r.Type == wire.Rlerror:
		return r.Errno
	case r.Type != m.Type+1:
		c.t.Fatalf("%s: got %v", m, r)
	}
	return 0
}
