package session_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// A benchmark sends prepared frames and counts the bytes that come back, so that
// the client costs as little as can be. The echo, which answers each frame with a
// prepared Rread of the true size, is the most that a server could do.

// load is a client that sends the same frames again and again.
type load struct {
	nc     net.Conn
	burst  []byte // the frames of all requests in flight
	answer []byte // room for their replies
}

// newLoad prepares n requests in flight, whose replies have size bytes each.
func newLoad(b testing.TB, nc net.Conn, n, size int, request func(tag uint16) *wire.Msg) *load {
	return newLoadIn(wire.Plain, b, nc, n, size, request)
}

// newLoadIn is newLoad in another dialect.
func newLoadIn(d wire.Dialect, b testing.TB, nc net.Conn, n, size int, request func(tag uint16) *wire.Msg) *load {
	l := &load{nc: nc, answer: make([]byte, n*size)}
	for tag := range n {
		var err error
		if l.burst, err = wire.Append(l.burst, request(uint16(tag)), d); err != nil {
			b.Fatal(err)
		}
	}
	return l
}

// round sends one burst and waits for all of its replies.
func (l *load) round(b testing.TB) {
	if _, err := l.nc.Write(l.burst); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(l.nc, l.answer); err != nil {
		b.Fatal(err)
	}
}

// echo answers each frame with an Rread of n bytes.
func echo(nc net.Conn, n int) {
	in := bufio.NewReaderSize(nc, 64<<10)
	var out []byte
	for {
		head, err := in.Peek(wire.HeaderLen)
		if err != nil {
			return
		}
		tag := binary.LittleEndian.Uint16(head[5:])
		if _, err := in.Discard(int(binary.LittleEndian.Uint32(head))); err != nil {
			return
		}
		from := len(out)
		out = append(out, make([]byte, wire.ReadLen+n)...)
		wire.PutRead(out[from:], wire.Rread, tag, n)
		if in.Buffered() == 0 {
			if _, err := nc.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

const benchValue = 100 // bytes

// opened is a connection on which fid 1 is an open key of benchValue bytes.
func (w *world) opened(b testing.TB) net.Conn {
	w.put("bench", strings.Repeat("x", benchValue))
	server, nc := redialtest.Pair(b)
	w.serve(server, peers["vm"])
	b.Cleanup(func() { nc.Close() })
	ask := func(m *wire.Msg, size int) {
		newLoad(b, nc, 1, size, func(uint16) *wire.Msg { return m }).round(b)
	}
	ask(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 131072, Version: "9P2000"}, 19)
	ask(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, NUname: wire.NoUID}, 20)
	ask(&wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys", "bench"}}, 9+2*13)
	ask(&wire.Msg{Type: wire.Topen, Fid: 1, Mode: wire.ORead}, 24)
	return nc
}

func read(tag uint16) *wire.Msg {
	return &wire.Msg{Type: wire.Tread, Tag: tag, Fid: 1, Count: 4096}
}

func benchRead(b *testing.B, flight int, ours bool) {
	var nc net.Conn
	if ours {
		nc = newWorld(b, nil).opened(b)
	} else {
		server, end := redialtest.Pair(b)
		done := make(chan struct{})
		go func() { echo(server, benchValue); close(done) }()
		b.Cleanup(func() { end.Close(); <-done; server.Close() })
		nc = end
	}
	l := newLoad(b, nc, flight, wire.ReadLen+benchValue, read)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		l.round(b)
	}
	b.ReportMetric(float64(b.N*flight)/b.Elapsed().Seconds(), "reads/s")
}

// BenchmarkRead1 reads one at a time, BenchmarkRead32 has 32 in flight: ours and
// the echo. Ours should reach 0.9 and 0.6 of the echo's rate.
func BenchmarkRead1(b *testing.B) {
	b.Run("ours", func(b *testing.B) { benchRead(b, 1, true) })
	b.Run("echo", func(b *testing.B) { benchRead(b, 1, false) })
}

func BenchmarkRead32(b *testing.B) {
	b.Run("ours", func(b *testing.B) { benchRead(b, 32, true) })
	b.Run("echo", func(b *testing.B) { benchRead(b, 32, false) })
}

// attached is a connection on which fid 0 is who's root, and keys/bench is there.
func (w *world) attached(b testing.TB, who string) net.Conn {
	w.put("bench", strings.Repeat("x", benchValue))
	server, nc := redialtest.Pair(b)
	w.serve(server, peers[who])
	b.Cleanup(func() { nc.Close() })
	for _, m := range []*wire.Msg{
		{Type: wire.Tversion, Tag: wire.NoTag, Msize: 131072, Version: "9P2000.e"},
		{Type: wire.Tattach, Afid: wire.NoFid, NUname: wire.NoUID},
	} {
		size := 20
		if m.Type == wire.Tversion {
			size = 21
		}
		newLoad(b, nc, 1, size, func(uint16) *wire.Msg { return m }).round(b)
	}
	return nc
}

// wholeReads are n Tsreads of the first VM's key bench by its path.
func wholeReads(b testing.TB, nc net.Conn, n int, names ...string) *load {
	return newLoadIn(wire.E, b, nc, n, wire.ReadLen+benchValue, func(tag uint16) *wire.Msg {
		return &wire.Msg{Type: wire.Tsread, Tag: tag, Names: names}
	})
}

// BenchmarkReadByPath is a Tsread at a time, by the guest's path and the admin's.
func BenchmarkReadByPath(b *testing.B) {
	for who, names := range map[string][]string{"vm": {"keys", "bench"}, "admin": {"vms", vmOne, "keys", "bench"}} {
		b.Run(who, func(b *testing.B) {
			l := wholeReads(b, newWorld(b, nil).attached(b, who), 1, names...)
			b.ReportAllocs()
			for b.Loop() {
				l.round(b)
			}
		})
	}
}

// TestNoAllocations: in a steady state Tread, Tsread and Tstat allocate nothing, through
// the whole loop.
func TestNoAllocations(t *testing.T) {
	notUnderRace(t)
	w := newWorld(t, nil)
	nc := w.opened(t)
	stat := func(tag uint16) *wire.Msg { return &wire.Msg{Type: wire.Tstat, Tag: tag, Fid: 1} }
	for name, l := range map[string]*load{
		"Tread":  newLoad(t, nc, 16, wire.ReadLen+benchValue, read),
		"Tsread": wholeReads(t, w.attached(t, "vm"), 16, "keys", "bench"),
		"Tstat":  newLoad(t, nc, 16, 9+49+len("benchrootrootadmin"), stat),
	} {
		l.round(t)
		if n := testing.AllocsPerRun(1000, func() { l.round(t) }); n != 0 {
			t.Errorf("%s: %v allocations for 16 requests", name, n)
		}
	}
}
