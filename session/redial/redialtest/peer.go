// Package redialtest is what the tests of redial, client and keep have in common: one end
// of a 9P connection that says what a test tells it to, and a server that lies; and, for
// all rooms, a byte stream with two ends.
package redialtest

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// Patience is how long a test waits for what must come.
const Patience = 20 * time.Second

// Pair is a byte stream with two ends: unix sockets.
func Pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return ends[0], ends[1]
}

// Peer is one end of a connection, in one goroutine.
type Peer struct {
	T       testing.TB
	NC      net.Conn
	Dialect wire.Dialect
}

// Send sends a message.
func (p *Peer) Send(m *wire.Msg) {
	p.T.Helper()
	frame, err := wire.Append(nil, m, p.Dialect)
	if err != nil {
		p.T.Fatal(err)
	}
	if _, err := p.NC.Write(frame); err != nil {
		p.T.Fatal(err)
	}
}

// Frame is the next frame, for which it waits so long; nil: the connection has ended.
func (p *Peer) Frame(limit time.Duration) []byte {
	p.T.Helper()
	_ = p.NC.SetReadDeadline(time.Now().Add(limit))
	frame, err := ReadFrame(p.NC)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		p.T.Fatal(err)
	}
	return frame
}

// ReadFrame reads one frame, however long it says that it is.
func ReadFrame(r io.Reader) ([]byte, error) {
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	size, _, _, _ := wire.Split(head)
	if size < wire.HeaderLen || size > wire.MaxMsize {
		return nil, errs.New(errs.Protocol, "a frame of %d bytes", size)
	}
	frame := append(head, make([]byte, size-wire.HeaderLen)...)
	_, err := io.ReadFull(r, frame[wire.HeaderLen:])
	return frame, err
}

// Receive is the next message; nil: the connection has ended.
func (p *Peer) Receive() *wire.Msg {
	p.T.Helper()
	frame := p.Frame(Patience)
	if frame == nil {
		return nil
	}
	m := new(wire.Msg)
	if err := wire.Decode(m, frame, p.Dialect); err != nil {
		p.T.Fatalf("%x: %v", frame, err)
	}
	return m
}

// Want is the next message, which must be of a type.
func (p *Peer) Want(typ wire.Type) *wire.Msg {
	p.T.Helper()
	m := p.Receive()
	if m == nil || m.Type != typ {
		p.T.Fatalf("got %v, want %s", m, typ)
	}
	return m
}

// Reply answers m with an empty message.
func (p *Peer) Reply(m *wire.Msg) { p.T.Helper(); p.Send(&wire.Msg{Type: m.Type + 1, Tag: m.Tag}) }

// Accept does what a server of a numbered dialect does at first; resumed: it has the
// session.
func (p *Peer) Accept(d wire.Dialect, resumed bool) {
	p.T.Helper()
	p.Dialect = wire.None
	v := p.Want(wire.Tversion)
	p.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Msize: v.Msize, Version: d.String()})
	p.Dialect = d
	s := p.Want(wire.Tsession)
	if resumed {
		p.Reply(s)
		return
	}
	p.Send(refusal(d, s.Tag, errs.CannotResume))
}

// refusal is an error in a dialect.
func refusal(d wire.Dialect, tag uint16, kind errs.Kind) *wire.Msg {
	if d.IsL() {
		return &wire.Msg{Type: wire.Rlerror, Tag: tag, Errno: uint32(kind.ErrnoL())}
	}
	return &wire.Msg{Type: wire.Rerror, Tag: tag, Ename: kind.Text()}
}
