package session_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"meta9/session"
	"meta9/session/wire"
)

// client is the other end of a connection. It reads and writes all the time, so
// that neither end ever waits for the test.
type client struct {
	t       testing.TB
	nc      net.Conn
	dialect wire.Dialect
	frames  chan []byte   // what came; closed at the end
	writes  chan []byte   // what goes out
	paused  chan struct{} // closed: it reads
	resume  func()
}

// dial connects a client to the world.
func (w *world) dial(transport string, p session.Peer) *client {
	server, end := transports[transport](w.t)
	c := w.client(end)
	c.resume()
	w.serve(server, p)
	return c
}

func (w *world) client(nc net.Conn) *client {
	c := &client{t: w.t, nc: nc, frames: make(chan []byte, 1<<12), writes: make(chan []byte, 1<<12), paused: make(chan struct{})}
	c.resume = sync.OnceFunc(func() { close(c.paused) })
	w.served.Go(c.read)
	w.served.Go(c.sendAll)
	w.t.Cleanup(func() { c.resume(); close(c.writes); nc.Close() })
	return c
}

func (c *client) read() {
	defer close(c.frames)
	<-c.paused
	for {
		var size [4]byte
		if _, err := io.ReadFull(c.nc, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.LittleEndian.Uint32(size[:]))
		copy(frame, size[:])
		if _, err := io.ReadFull(c.nc, frame[4:]); err != nil {
			return
		}
		c.frames <- frame
	}
}

// send sends a message.
func (c *client) send(m *wire.Msg) {
	c.t.Helper()
	frame, err := wire.Append(nil, m, c.dialect)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(frame)
}

// write sends bytes, and does not wait until they are gone.
func (c *client) write(b []byte) { c.writes <- b }

func (c *client) sendAll() {
	for b := range c.writes {
		_, _ = c.nc.Write(b) // a server that hung up is seen by reading
	}
}

// receive waits for the next message; nil: the connection has ended.
func (c *client) receive() *wire.Msg {
	c.t.Helper()
	select {
	case frame, ok := <-c.frames:
		if !ok {
			return nil
		}
		m := new(wire.Msg)
		if err := wire.Decode(m, frame, c.dialect); err != nil {
			c.t.Fatalf("%x: %v", frame, err)
		}
		if m.Type == wire.Rversion {
			c.dialect = wire.Negotiate(m.Version)
		}
		return m
	case <-time.After(patient):
		c.t.Fatal("no reply came")
		return nil
	}
}

// do is send and receive; the reply must be of that type.
func (c *client) do(m *wire.Msg, want wire.Type) *wire.Msg {
	c.t.Helper()
	c.send(m)
	r := c.receive()
	if r == nil || r.Type != want || r.Tag != m.Tag {
		c.t.Fatalf("%s: got %v, want %s", m, r, want)
	}
	return r
}

// hello begins a session and attaches fid 0.
func (c *client) hello(version string) {
	c.t.Helper()
	c.dialect = wire.None
	c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: version}, wire.Rversion)
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Fid: 0, Afid: wire.NoFid, Uname: "glenda", NUname: wire.NoUID}, wire.Rattach)
}
