package keep_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/session/keep"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// asks are requests that a kernel may have under way at once, each under a tag of
// its own.
func asks() (list []*wire.Msg) {
	add := func(m wire.Msg) {
		m.Tag = uint16(1 + len(list))
		list = append(list, &m)
	}
	add(wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, NUname: wire.NoUID})
	for fid := uint32(1); fid < 4; fid++ {
		add(wire.Msg{Type: wire.Twalk, Newfid: fid, Names: []string{"keys", "a"}})
		add(wire.Msg{Type: wire.Tlopen, Fid: fid})
		add(wire.Msg{Type: wire.Twrite, Fid: fid, Data: []byte("value")})
		add(wire.Msg{Type: wire.Tread, Fid: fid, Count: 100})
		add(wire.Msg{Type: wire.Tlock, Fid: fid})
		add(wire.Msg{Type: wire.Tgetattr, Fid: fid})
		add(wire.Msg{Type: wire.Tsetattr, Fid: fid})
		add(wire.Msg{Type: wire.Tflush, Oldtag: uint16(len(list) - 3)})
	}
	add(wire.Msg{Type: wire.Twalk, Newfid: 9})
	add(wire.Msg{Type: wire.Tlcreate, Fid: 9, Name: "b"})
	add(wire.Msg{Type: wire.Trename, Fid: 9, Newfid: 0, Name: "c"})
	add(wire.Msg{Type: wire.Treaddir, Fid: 0, Count: 100})
	add(wire.Msg{Type: wire.Tclunk, Fid: 1})
	add(wire.Msg{Type: wire.Tremove, Fid: 2})
	add(wire.Msg{Type: wire.Tflush, Oldtag: 3})
	return list
}

// tryLies has a client ask all of that through a keeper whose server lies: nothing
// panics, what reaches the client are answers to what it asked, one each, and once
// the server tells the truth all are there.
func tryLies(t *testing.T, lies []byte) {
	s := redialtest.NewLiar(wire.LE, lies)
	k, err := keep.Dial(t.Context(), keep.Options{Msize: 8192, Log: zerolog.Nop(), Dial: s.Dial})
	if err != nil {
		return
	}
	down, end := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- k.Serve(t.Context(), down) }()
	c := newRaw(t, end)
	c.version("9P2000.L", 8192)
	pending := make(map[uint16]*wire.Msg)
	for _, m := range asks() {
		pending[m.Tag] = m
	}
	go func() {
		for _, m := range asks() {
			c.Send(m)
		}
	}()
	truth := time.AfterFunc(time.Minute, s.Repent)
	c.collect(pending)
	truth.Stop()
	end.Close()
	if err := <-served; err != nil {
		t.Errorf("the keeper ended with %v", err)
	}
	s.Repent()
}

// collect takes an answer to each request that is due.
func (c *raw) collect(pending map[uint16]*wire.Msg) {
	c.T.Helper()
	unsure := make(map[uint16]*wire.Msg) // no true server refuses a Tflush
	for len(pending) > 0 {
		typ, tag := c.header(pending)
		asked := pending[tag]
		if asked == nil {
			asked = unsure[tag]
		}
		if asked == nil || typ != asked.Type+1 && typ != wire.Rlerror {
			c.T.Fatalf("%s tag %d answers %v", typ, tag, asked)
		}
		delete(pending, tag)
		delete(unsure, tag)
		if old := pending[asked.Oldtag]; asked.Type == wire.Tflush && old != nil {
			delete(pending, old.Tag)
			if typ == wire.Rlerror {
				unsure[old.Tag] = old
			}
		}
	}
}

// header is the next frame's, whose rest the kernel judges for itself. It waits
// long enough for all tries to connect.
func (c *raw) header(pending map[uint16]*wire.Msg) (wire.Type, uint16) {
	c.T.Helper()
	frame := c.Frame(time.Hour)
	if len(frame) == 0 || len(frame) > 8192 {
		c.T.Fatalf("a frame of %d bytes, and due are %v", len(frame), pending)
	}
	_, typ, tag, _ := wire.Split(frame)
	return typ, tag
}

// TestLiar: random lies.
func TestLiar(t *testing.T) { redialtest.RandomLies(t, tryLies) }

// FuzzLiar: any lies.
func FuzzLiar(f *testing.F) { redialtest.FuzzLies(f, tryLies) }

// scripted is a client of 9P2000.L behind a keeper, and the servers that the keeper comes
// to, each when greet has greeted it; n counts them from 0 on. It is for a synctest bubble.
func scripted(t *testing.T, greet func(n int, s *raw)) (c *raw, servers chan *raw) {
	t.Helper()
	servers = make(chan *raw, 3)
	dialled := 0
	k, err := keep.Dial(t.Context(), keep.Options{Msize: 8192, Log: zerolog.Nop(), Dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		s := newRaw(t, ours)
		go func(n int) {
			greet(n, s)
			servers <- s
		}(dialled)
		dialled++
		return theirs, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	down, end := net.Pipe()
	go k.Serve(t.Context(), down)
	c = newRaw(t, end)
	c.version("9P2000.L", 8192)
	return c, servers
}

// TestRefusedFlush: a server that refuses a Tflush still has to answer what
// was to be flushed, also when the session is lost after that.
func TestRefusedFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, servers := scripted(t, func(_ int, s *raw) { s.Accept(wire.LE, false) })
		server := <-servers
		go c.Send(&wire.Msg{Type: wire.Tread, Tag: 1, Count: 1})
		server.Want(wire.Tread)
		go c.Send(&wire.Msg{Type: wire.Tflush, Tag: 2, Oldtag: 1})
		server.Want(wire.Tflush)
		server.Send(&wire.Msg{Type: wire.Rlerror, Tag: 2, Errno: uint32(errs.Unsupported.ErrnoL())})
		c.Receive()
		server.NC.Close()
		server = <-servers
		if m := server.Want(wire.Tread); m.Tag != 1 {
			t.Fatal(m)
		}
		go server.Send(&wire.Msg{Type: wire.Rread, Tag: 1, Data: []byte("x")})
		c.Want(wire.Rread)
		c.NC.Close()
		synctest.Wait() // the keeper knows that its client is gone, and does not come again
		server.NC.Close()
	})
}
