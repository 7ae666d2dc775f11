package keep_test

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hugelgupf/p9/p9"
	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/session/keep"
	"meta9/session/wire"
)

// liar is a host whose server answers whatever its input says, until that is used
// up or it is made honest: then it is a simple server that has lost its sessions.
type liar struct {
	mu   sync.Mutex
	in   []byte
	conn net.Conn
}

// below takes a number of the input; the last one when nothing is left.
func (s *liar) below(n byte) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in) == 0 {
		return n - 1
	}
	v := s.in[0] % n
	s.in = s.in[1:]
	return v
}

func (s *liar) dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	s.mu.Lock()
	s.conn = ours
	s.mu.Unlock()
	go s.serve(ours)
	return theirs, nil
}

// repent makes it honest, and hangs up.
func (s *liar) repent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = nil
	if s.conn != nil {
		s.conn.Close()
	}
}

func (s *liar) serve(nc net.Conn) {
	defer nc.Close()
	for {
		var head [wire.HeaderLen]byte
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.LittleEndian.Uint32(head[:])-wire.HeaderLen)
		if _, err := io.ReadFull(nc, body); err != nil {
			return
		}
		reply := s.answer(wire.Type(head[4]), binary.LittleEndian.Uint16(head[5:]), body)
		if _, err := nc.Write(reply); err != nil || reply == nil {
			return
		}
	}
}

// answer is the truth or a lie; nil hangs up.
func (s *liar) answer(t wire.Type, tag uint16, body []byte) []byte {
	m := s.reply(t, tag, body)
	switch s.below(20) {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		m.Tag = uint16(s.below(40))
	case 3:
		m.Type = wire.Type(100 + s.below(60))
	case 4:
		m = &wire.Msg{Type: wire.Rlerror, Tag: tag, Errno: uint32(s.below(100))}
	}
	d := wire.LE
	if t == wire.Tversion {
		d = wire.None
	}
	frame, err := wire.Append(nil, m, d)
	if err != nil { // a type that has no frame
		frame = []byte{9, 0, 0, 0, byte(m.Type), 0, 0, 1, 2}
	}
	return s.spoil(frame)
}

// reply is what a server answers; only of sessions it may say what it likes.
func (s *liar) reply(t wire.Type, tag uint16, body []byte) *wire.Msg {
	m := &wire.Msg{Type: t + 1, Tag: tag}
	switch t {
	case wire.Tversion:
		m.Msize, m.Version = binary.LittleEndian.Uint32(body), "9P2000.L.e"
	case wire.Tsession:
		if s.below(3) == 2 { // as when the input is used up
			return &wire.Msg{Type: wire.Rlerror, Tag: tag, Errno: uint32(errs.CannotRecover.ErrnoL())}
		}
	case wire.Tresume:
		for range binary.LittleEndian.Uint16(body) {
			m.States = append(m.States, min(s.below(4), wire.Running))
		}
	case wire.Twalk:
		m.QIDs = make([]p9.QID, min(binary.LittleEndian.Uint16(body[8:]), wire.MaxWalk))
	}
	return m
}

// spoil damages a frame now and then.
func (s *liar) spoil(frame []byte) []byte {
	switch s.below(24) {
	case 0:
		binary.LittleEndian.PutUint32(frame, 1<<31)
	case 1:
		binary.LittleEndian.PutUint32(frame, uint32(s.below(8)))
	case 2:
		frame = append(frame, frame...)
	case 3:
		frame = frame[:len(frame)-min(len(frame)-1, int(s.below(9)))]
	case 4:
		frame[int(s.below(255))%len(frame)] = s.below(255)
	}
	return frame
}

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

// besiege has a client ask all of that through a keeper whose server lies: nothing
// panics, what reaches the client are answers to what it asked, one each, and once
// the server tells the truth all are there.
func besiege(t *testing.T, lies []byte) {
	s := &liar{in: lies}
	k, err := keep.Dial(t.Context(), keep.Options{Msize: 8192, Log: zerolog.Nop(), Dial: s.dial})
	if err != nil {
		return
	}
	down, end := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- k.Serve(t.Context(), down) }()
	c := newRaw(t, end)
	c.version("9P2000.L", 8192)
	owed := make(map[uint16]*wire.Msg)
	for _, m := range asks() {
		owed[m.Tag] = m
	}
	go func() {
		for _, m := range asks() {
			c.send(m)
		}
	}()
	truth := time.AfterFunc(time.Minute, s.repent)
	c.collect(owed)
	truth.Stop()
	end.Close()
	if err := <-served; err != nil {
		t.Errorf("the keeper ended with %v", err)
	}
	s.repent()
}

// collect takes an answer to each request that is owed one.
func (c *raw) collect(owed map[uint16]*wire.Msg) {
	c.t.Helper()
	unsure := make(map[uint16]*wire.Msg) // no true server refuses a Tflush
	for len(owed) > 0 {
		typ, tag := c.header(owed)
		asked := owed[tag]
		if asked == nil {
			asked = unsure[tag]
		}
		if asked == nil || typ != asked.Type+1 && typ != wire.Rlerror {
			c.t.Fatalf("%s tag %d answers %v", typ, tag, asked)
		}
		delete(owed, tag)
		delete(unsure, tag)
		if old := owed[asked.Oldtag]; asked.Type == wire.Tflush && old != nil {
			delete(owed, old.Tag)
			if typ == wire.Rlerror {
				unsure[old.Tag] = old
			}
		}
	}
}

// header is the next frame's, whose rest the kernel judges for itself. It waits
// long enough for all tries to connect.
func (c *raw) header(owed map[uint16]*wire.Msg) (wire.Type, uint16) {
	c.t.Helper()
	_ = c.nc.SetReadDeadline(time.Now().Add(time.Hour))
	head, err := c.rd.Peek(wire.HeaderLen)
	if err != nil {
		c.t.Fatalf("%v, and owed are %v", err, owed)
	}
	size, typ, tag, _ := wire.Split(head)
	if size < wire.HeaderLen || size > 8192 {
		c.t.Fatalf("a frame of %d bytes", size)
	}
	if _, err := c.rd.Discard(int(size)); err != nil {
		c.t.Fatal(err)
	}
	return typ, tag
}

// TestLiar: random lies.
func TestLiar(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 5))
			lies := make([]byte, random.IntN(400))
			for i := range lies {
				lies[i] = byte(random.Uint32())
			}
			besiege(t, lies)
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}

// FuzzLiar: any lies.
func FuzzLiar(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, lies []byte) {
		synctest.Test(t, func(t *testing.T) { besiege(t, lies) })
	})
}

// TestRefusedFlush: a server that refuses a Tflush still owes the answer to what
// was to be flushed, also when the session is lost after that.
func TestRefusedFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := make(chan *script, 2)
		k, err := keep.Dial(t.Context(), keep.Options{Msize: 8192, Log: zerolog.Nop(), Dial: func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			s := &script{newRaw(t, ours), time.Now()}
			go func() {
				s.accept(false)
				servers <- s
			}()
			return theirs, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		down, end := net.Pipe()
		go k.Serve(t.Context(), down)
		c := newRaw(t, end)
		c.version("9P2000.L", 8192)
		server := <-servers
		go c.send(&wire.Msg{Type: wire.Tread, Tag: 1, Count: 1})
		server.receive()
		go c.send(&wire.Msg{Type: wire.Tflush, Tag: 2, Oldtag: 1})
		server.receive()
		server.send(&wire.Msg{Type: wire.Rlerror, Tag: 2, Errno: uint32(errs.Unsupported.ErrnoL())})
		c.receive()
		server.nc.Close()
		server = <-servers
		if m := server.receive(); m.Type != wire.Tread || m.Tag != 1 {
			t.Fatal(m)
		}
		go server.send(&wire.Msg{Type: wire.Rread, Tag: 1, Data: []byte("x")})
		if m := c.receive(); m.Type != wire.Rread {
			t.Error(m)
		}
		end.Close()
		server.nc.Close()
	})
}
