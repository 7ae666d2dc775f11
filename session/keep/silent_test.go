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
	"meta9/session/wire"
)

// script is a server that answers what a test says.
type script struct {
	*raw
	came time.Time
}

// accept does what a server of 9P2000.L.e does at first; resumed: it has the
// session.
func (s *script) accept(resumed bool) {
	s.dialect = wire.None
	v := s.receive()
	s.send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Msize: v.Msize, Version: "9P2000.L.e"})
	s.dialect = wire.LE
	s.receive() // Tsession
	if resumed {
		s.send(&wire.Msg{Type: wire.Rsession, Tag: wire.NoTag})
		return
	}
	s.send(&wire.Msg{Type: wire.Rlerror, Tag: wire.NoTag, Errno: uint32(errs.CannotRecover.ErrnoL())})
}

// TestSilence: a server that owes an answer for long is asked whether it is there,
// and given up when it is not. One that owes nothing may be silent.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := make(chan *script, 9)
		dialled := 0
		k, err := keep.Dial(t.Context(), keep.Options{Msize: 8192, Log: zerolog.Nop(), Dial: func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			s := &script{newRaw(t, ours), time.Now()}
			servers <- s
			dialled++
			go s.accept(dialled > 1)
			return theirs, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		down, end := net.Pipe()
		go k.Serve(t.Context(), down)
		c := newRaw(t, end)
		c.version("9P2000.L", 8192)
		time.Sleep(time.Hour) // idle
		first := <-servers
		sent := time.Now()
		go c.send(&wire.Msg{Type: wire.Tgetattr, Tag: 3, Fid: 1})
		if m := first.receive(); m.Type != wire.Tgetattr {
			t.Fatal(m)
		}
		probe := first.receive()
		if waited := time.Since(sent); probe.Type != wire.Tflush || waited != 15*time.Second {
			t.Fatalf("%v after %v", probe, waited)
		}
		first.send(&wire.Msg{Type: wire.Rflush, Tag: probe.Tag})
		alive := time.Now()
		if m := first.receive(); m.Type != wire.Tflush {
			t.Fatal(m)
		}
		second := <-servers
		if waited := second.came.Sub(alive); waited < 45*time.Second || waited > time.Minute+time.Second {
			t.Errorf("given up after %v", waited)
		}
		synctest.Wait()
		m := second.receive()
		if m.Type != wire.Tresume || len(m.Numbers) != 2 {
			t.Fatal(m)
		}
		second.send(&wire.Msg{Type: wire.Rresume, Tag: wire.NoTag, States: []uint8{wire.Answered, wire.Unseen}})
		for range 2 { // the flush that never came, then the request once more
			m := second.receive()
			reply := wire.Msg{Type: wire.Rflush, Tag: m.Tag}
			if m.Type == wire.Tgetattr {
				reply.Type = wire.Rgetattr
			}
			second.send(&reply)
		}
		if m := c.receive(); m.Type != wire.Rgetattr || m.Tag != 3 {
			t.Errorf("got %v", m)
		}
		end.Close()
		first.nc.Close()
		go second.receive()
		time.Sleep(time.Minute)
		second.nc.Close()
	})
}

// TestBounded: a client may have so much unanswered, and no more is read from it
// then.
func TestBounded(t *testing.T) {
	for name, size := range map[string]int{"requests": 1, "bytes": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.put("k", "")
			c := newRaw(t, h.keeper(keep.Options{}))
			c.version("9P2000.L", wire.MaxMsize)
			c.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid}, wire.Rattach)
			c.open(1, rdwr, "keys", "k")
			h.stop()
			sent := make(chan int)
			go func() {
				n := 0
				for ; n < 4096 && n*size < 64<<20; n++ {
					m := write(1, 0, string(make([]byte, size)))
					m.Tag = uint16(n)
					frame, _ := wire.Append(nil, m, wire.L)
					_ = c.nc.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
					if _, err := c.nc.Write(frame); err != nil {
						break
					}
				}
				sent <- n
			}()
			n := <-sent
			if n < 8 || n*size > 20<<20 || n >= 4096 {
				t.Errorf("%d requests were taken", n)
			}
			h.torn = true
			c.nc.Close()
			h.start()
		})
	}
}
