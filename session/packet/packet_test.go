package packet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta9/session/redial/redialtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patient = 30 * time.Second

// pair is a byte stream with two ends, until the test ends.
func pair(t testing.TB) (a, b net.Conn) {
	a, b = redialtest.Pair(t)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// host serves nc with an echo, and tells of each link.
func host(t testing.TB, nc net.Conn) <-chan net.Conn {
	links, done := make(chan net.Conn, 100), make(chan struct{})
	go func() {
		defer close(done)
		Serve(nc, nil, func(l net.Conn) {
			links <- l
			_, _ = io.Copy(l, l)
			l.Close()
		})
	}()
	t.Cleanup(func() {
		nc.Close()
		<-done
	})
	return links
}

func dial(t testing.TB, nc net.Conn) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	l, err := Dial(ctx, nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// next waits for a link of the host's.
func next(t testing.TB, links <-chan net.Conn) net.Conn {
	t.Helper()
	select {
	case l := <-links:
		return l
	case <-time.After(patient):
		t.Fatal("no link began")
		return nil
	}
}

// echo sends msg and wants it back.
func echo(t testing.TB, l net.Conn, msg []byte) {
	t.Helper()
	wrote := make(chan error, 1)
	go func() {
		_, err := l.Write(msg)
		wrote <- err
	}()
	got := make([]byte, len(msg))
	_ = l.SetReadDeadline(time.Now().Add(patient))
	if _, err := io.ReadFull(l, got); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, msg) {
		t.Fatal("the echo is not what was sent")
	}
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestEcho(t *testing.T) {
	a, b := pair(t)
	links := host(t, a)
	next(t, links)
	l := dial(t, b)
	for _, n := range []int{1, 100, MaxPayload - 1, MaxPayload, MaxPayload + 1, 5 * MaxPayload} {
		echo(t, l, noise(uint64(n), n))
	}
}

// leftovers are what an earlier link may have left in a stream.
func leftovers(t *testing.T) map[string][]byte {
	whole := appendPacket(nil, data, 7, 3, noise(1, 5000))
	said := appendControl(nil, hello, control{link: 7, nonce: 8})
	asked := appendControl(nil, ask, control{nonce: 8})
	large := appendPacket(nil, data, 7, 3, noise(2, MaxPayload))
	return map[string][]byte{
		"nothing":        nil,
		"noise":          noise(3, 10000),
		"a packet":       whole,
		"two":            append(bytes.Clone(whole), whole...),
		"a torn packet":  whole[:3000],
		"a torn header":  whole[:headerLen-2],
		"only its mark":  whole[:4],
		"its end":        whole[2000:],
		"much of it":     large[:MaxPayload/2],
		"a hello":        said,
		"a torn hello":   said[:controlLen-1],
		"marks":          bytes.Repeat(mark, 100),
		"marks and kind": bytes.Repeat(appendControl(nil, hello, control{})[:5], 100),
		"asks, torn":     append(bytes.Clone(asked[:20]), asked[:controlLen-4]...),
		"hellos":         bytes.Repeat(said, 20),
	}
}

// TestLeftovers: whatever stands in the stream, in either direction, a link
// begins behind it, and carries nothing of it.
func TestLeftovers(t *testing.T) {
	for name, left := range leftovers(t) {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			for _, end := range []net.Conn{a, b} {
				if _, err := end.Write(left); err != nil {
					t.Fatal(err)
				}
			}
			links := host(t, a)
			next(t, links)
			echo(t, dial(t, b), noise(4, 3*MaxPayload))
		})
	}
}

// TestLeftoverAsk: the host takes up a link with a guest that is gone, and leaves
// it for the one that is there.
func TestLeftoverAsk(t *testing.T) {
	a, b := pair(t)
	if _, err := b.Write(appendControl(nil, ask, control{nonce: 8})); err != nil {
		t.Fatal(err)
	}
	links := host(t, a)
	next(t, links)
	l := dial(t, b)
	next(t, links)
	echo(t, l, []byte("hello"))
}

// TestGuestAgain: a guest's program goes without a word, in the middle of a
// packet or not, and another comes. The host's stream is the same.
func TestGuestAgain(t *testing.T) {
	a, b := pair(t)
	links := host(t, a)
	next(t, links)
	for i := range 5 {
		dev := &device{Conn: b}
		l := dial(t, dev)
		echo(t, l, noise(uint64(i), 100))
		if i%2 == 0 { // what the host echoes is a leftover for the next
			if _, err := l.Write(noise(9, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		dev.gone = true
		l.Close() // says nothing more
		dev = &device{Conn: b}
		l = dial(t, dev)
		next(t, links)
		echo(t, l, noise(uint64(i), 70000))
		l.Close() // says End
		next(t, links)
	}
}

// device is an end of a stream that outlives those who have it open.
type device struct {
	net.Conn
	gone bool
}

func (d *device) Close() error { return nil }

func (d *device) Write(p []byte) (int, error) {
	if d.gone {
		return 0, net.ErrClosed
	}
	return d.Conn.Write(p)
}

// TestHostAgain: the host's program is another one; a guest in the middle of its
// link hears it.
func TestHostAgain(t *testing.T) {
	a, b := pair(t)
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		Serve(&device{Conn: a}, nil, func(l net.Conn) { _, _ = l.Read(make([]byte, 10)) })
	}()
	l := dial(t, &device{Conn: b})
	if _, err := l.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-quiet
	links := host(t, a)
	next(t, links)
	if _, err := l.Read(make([]byte, 10)); !errors.Is(err, errHost) {
		t.Fatalf("the guest's read ended with %v", err)
	}
	l.Close()
	echo(t, dial(t, b), []byte("hello"))
}

// TestDamage: a packet that is lost, torn, repeated or changed ends the link, and
// nothing wrong is read.
func TestDamage(t *testing.T) {
	const number = 77
	good := func(seq uint32) []byte { return appendPacket(nil, data, number, seq, []byte{byte(seq)}) }
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 0x10
		return b
	}
	for name, bad := range map[string][]byte{
		"lost":            good(3),
		"repeated":        good(1),
		"another link's":  appendPacket(nil, data, number+1, 2, []byte{2}),
		"payload":         flip(good(2), headerLen),
		"mark":            flip(good(2), 0),
		"kind":            flip(good(2), 4),
		"number":          flip(good(2), 6),
		"seq":             flip(good(2), 13),
		"length":          flip(good(2), 18),
		"much too long":   flip(good(2), 20),
		"crc":             flip(good(2), headerLen+1),
		"torn, then more": append(bytes.Clone(good(2)[:10]), good(3)...),
		"an end":          appendPacket(nil, end, number, 2, nil),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			l := &Link{stream: newStream(a), host: name != "an end", number: number, begun: true}
			if _, err := b.Write(append(good(1), bad...)); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Write(good(3)); err != nil {
				t.Fatal(err)
			}
			b.Close()
			got, err := io.ReadAll(l)
			if err == nil || !bytes.Equal(got, []byte{1}) {
				t.Fatalf("read %v, %v", got, err)
			}
			if past := name == "repeated" || name == "another link's"; errors.Is(err, ErrPast) != past {
				t.Errorf("ended with %v", err)
			}
			l.Close()
		})
	}
}

// TestImpatient: a guest that asks twice gets two answers and one link.
func TestImpatient(t *testing.T) {
	a, b := pair(t)
	links := host(t, a)
	next(t, links)
	twice := appendControl(nil, ask, control{nonce: 5})
	if _, err := b.Write(append(twice, twice...)); err != nil {
		t.Fatal(err)
	}
	l := &Link{stream: newStream(b), nonce: 5}
	var c control
	for c.nonce != 5 {
		var err error
		if c, err = find(l.in, hello, l.pays); err != nil {
			t.Fatal(err)
		}
	}
	l.start(c.link)
	defer l.Close()
	echo(t, l, []byte("once"))
}

// TestDialEnds: a host that is not there is waited for as long as was said.
func TestDialEnds(t *testing.T) {
	_, b := pair(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if l, err := Dial(ctx, b); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, %v", l, err)
	}
	if _, err := b.Write([]byte{0}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the transport is still open: %v", err)
	}
}

// TestLateHost: the guest asks until there is a host.
func TestLateHost(t *testing.T) {
	a, b := pair(t)
	asked := make(chan error, 1)
	go func() {
		first := make([]byte, controlLen) // nobody's: QEMU dropped it
		_, err := io.ReadFull(a, first)
		asked <- err
	}()
	got := make(chan net.Conn, 1)
	go func() {
		l, err := Dial(context.Background(), b)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
	next(t, host(t, a))
	l := next(t, got)
	defer l.Close()
	echo(t, l, []byte("late"))
}

// TestStuckWrite: a guest that asks anew while the host is writing to the one before
// it ends that write.
func TestStuckWrite(t *testing.T) {
	a, b := pair(t)
	ended := make(chan error, 9)
	go Serve(a, nil, func(l net.Conn) {
		_, _ = l.Read(make([]byte, 1))
		go func() {
			_, err := l.Write(make([]byte, 64<<20))
			ended <- err
		}()
		_, _ = l.Read(make([]byte, 1)) // until the guest asks anew
		l.Close()
	})
	l := dial(t, &device{Conn: b})
	if _, err := l.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(l, make([]byte, MaxPayload)); err != nil { // now it writes
		t.Fatal(err)
	}
	if _, err := b.Write(appendControl(nil, ask, control{nonce: 99})); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the write succeeded")
		}
	case <-time.After(patient):
		t.Fatal("the write is stuck")
	}
}

// TestUnfinished: a packet that is not finished in time ends the stream, on both
// sides; a link that is idle for an hour does not.
func TestUnfinished(t *testing.T) {
	for _, atHost := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			l := &Link{stream: newStream(a), host: atHost, number: 1, begun: true}
			defer l.Close()
			whole := appendPacket(nil, data, 1, 1, []byte("abc"))
			torn := appendPacket(nil, data, 1, 2, []byte("def"))
			wrote := make(chan time.Time, 1)
			go func() {
				time.Sleep(time.Hour)
				_, _ = b.Write(whole)
				_, _ = b.Write(torn[:len(torn)-1])
				wrote <- time.Now()
			}()
			got, err := io.ReadAll(l)
			if string(got) != "abc" || err == nil {
				t.Errorf("%q, %v", got, err)
			}
			if took := time.Since(<-wrote); took != unfinished {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestCutShort: a long packet breaks off, since its sender's program is another one
// now, which has something to say and waits. The other end does not wait for the
// rest. But one whose payload looks like that, and that pauses just there, is read.
func TestCutShort(t *testing.T) {
	for _, atHost := range []bool{true, false} {
		first := hello
		if atHost {
			first = ask
		}
		other := appendControl(nil, first, control{nonce: 9})
		payload := append(append(noise(1, 100), other...), noise(2, 900)...)
		whole := appendPacket(nil, data, 1, 1, payload)
		in := headerLen + 100 + len(other) // whole's end of what looks like it
		for name, tt := range map[string]struct {
			pause time.Duration // before the rest
			rest  []byte
			want  time.Duration // when the link is over
		}{
			"short pause": {replaced - time.Millisecond, whole[in:], replaced - time.Millisecond},
			"no rest":     {time.Hour, nil, replaced},
			"asked again": {replaced / 2, other, replaced},
			"and dribble": {replaced / 2, whole[in : in+1], unfinished},
		} {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				l := &Link{stream: newStream(a), host: atHost, number: 1, begun: true}
				defer l.Close()
				go func() {
					_, _ = b.Write(whole[:in])
					time.Sleep(tt.pause)
					if _, err := b.Write(tt.rest); len(tt.rest) == len(whole)-in && err == nil {
						b.Close()
					}
				}()
				begin := time.Now()
				got, err := io.ReadAll(l)
				if wanted := tt.want < replaced; err == nil && !wanted || bytes.Equal(got, payload) != wanted {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
				if took := time.Since(begin); took != tt.want {
					t.Errorf("%s: it took %v", name, took)
				}
				b.Close()
				time.Sleep(2 * time.Hour)
			})
		}
	}
}

// TestSilentHost: nothing goes out before a guest has asked.
func TestSilentHost(t *testing.T) {
	a, b := pair(t)
	l := &Link{stream: newStream(a), host: true}
	if _, err := l.Write([]byte("x")); !errors.Is(err, errSilent) {
		t.Errorf("Write: %v", err)
	}
	l.Close()
	if got, err := io.ReadAll(b); len(got) != 0 || err != nil {
		t.Errorf("%x, %v", got, err)
	}
}

// FuzzHandshake: no bytes in front of an Ask keep the host from finding it,
// unless they hold another whole one.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte(nil), uint64(1))
	f.Add(noise(1, 100), uint64(2))
	f.Add(bytes.Repeat(mark, 9), uint64(3))
	f.Add(appendPacket(nil, data, 7, 3, noise(1, 50))[:60], uint64(4))
	f.Add(appendControl(nil, ask, control{nonce: 9}), uint64(5))
	f.Fuzz(func(t *testing.T, left []byte, nonce uint64) {
		asked := appendControl(nil, ask, control{nonce: nonce})
		s := newStream(readOnly{bytes.NewReader(append(left, asked...))})
		for {
			c, err := find(s.in, ask, s.pays)
			if err != nil {
				t.Fatalf("not found: %v", err)
			}
			if c.nonce == nonce {
				return
			}
		}
	})
}

// FuzzLink: whatever follows good packets, only their payload is read.
func FuzzLink(f *testing.F) {
	f.Add([]byte(nil), true)
	f.Add(appendPacket(nil, data, 1, 2, []byte("b")), true)
	f.Add(appendPacket(nil, data, 1, 3, []byte("b")), false)
	f.Add(appendControl(nil, hello, control{link: 1}), false)
	f.Add(appendControl(nil, ask, control{nonce: 1}), true)
	f.Add(appendPacket(nil, end, 1, 2, nil), true)
	f.Fuzz(func(t *testing.T, more []byte, host bool) {
		good := appendPacket(nil, data, 1, 1, []byte("a"))
		l := &Link{stream: newStream(readOnly{bytes.NewReader(append(good, more...))}), host: host, number: 1, begun: true}
		got, _ := io.ReadAll(l)
		l.Close()
		if len(got) == 0 || got[0] != 'a' {
			t.Fatalf("read %q", got)
		}
		if h, err := parseHeader(append(more, make([]byte, headerLen)...)); len(got) > 1 && (err != nil || h.kind != data || h.seq != 2) {
			t.Fatalf("read %q of %x", got, more)
		}
	})
}

// readOnly is a transport on which nothing can be written.
type readOnly struct{ io.Reader }

func (readOnly) Write(p []byte) (int, error)      { return len(p), nil }
func (readOnly) Close() error                     { return nil }
func (readOnly) LocalAddr() net.Addr              { return nil }
func (readOnly) RemoteAddr() net.Addr             { return nil }
func (readOnly) SetDeadline(time.Time) error      { return nil }
func (readOnly) SetReadDeadline(time.Time) error  { return nil }
func (readOnly) SetWriteDeadline(time.Time) error { return nil }

// TestBehind: what an Ask proves of its program.
func TestBehind(t *testing.T) {
	const program = 9
	was := place{program: program, link: 77, heard: 5}
	for name, c := range map[string]struct {
		ask  control
		past bool
	}{
		"as far":               {control{link: 77, seq: 5}, false},
		"some were lost":       {control{link: 77, seq: 9}, false},
		"not so far":           {control{link: 77, seq: 4}, true},
		"another link":         {control{link: 76, seq: 90}, true},
		"an earlier version":   {control{}, false},
		"another program":      {control{link: 77, seq: 4, nonce: 8 << 32}, false},
		"the same, elsewhere ": {control{link: 76, seq: 4, nonce: 8 << 32}, false},
	} {
		if c.ask.nonce == 0 {
			c.ask.nonce = program<<32 | 1
		}
		if got := was.behind(c.ask); got != c.past {
			t.Errorf("%s: %v", name, got)
		}
	}
	unheard := place{program: program, link: 77}
	if unheard.behind(control{link: 76, seq: 3, nonce: program << 32}) {
		t.Error("a guest that has not heard of its new link")
	}
	if new(place).behind(control{link: 76, seq: 3}) {
		t.Error("a host that knows of no link")
	}
}

// TestAwait: a link is awaited without being read, and begins only where it is read. Its guest
// asks again meanwhile, which does no harm.
func TestAwait(t *testing.T) {
	near, far := pair(t)
	var begun atomic.Bool // at the guest's end
	served := make(chan struct{})
	go func() {
		defer close(served)
		Serve(near, nil, func(nc net.Conn) {
			l := nc.(*Link)
			for range 2 { // the second time there is nothing to wait for
				if err := l.Await(); err != nil {
					l.Close() // the guest has closed the stream
					return
				}
			}
			time.Sleep(askAgain + askAgain/2) // until the guest has asked again
			if begun.Load() {
				t.Error("it has begun before it was read")
			}
			_, _ = io.Copy(l, l)
			l.Close()
		})
	}()
	l := dial(t, far)
	begun.Store(true)
	echo(t, l, []byte("after all"))
	l.Close()
	<-served
}

// counting reads a transport, and counts what it is told.
type counting struct {
	net.Conn
	read, took atomic.Int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

func (c *counting) Pay(took time.Duration) { c.took.Add(int64(took)) }

// TestPaid: what comes is read by the Reader, which is told of leftovers that are looked
// through, of links and of packets.
func TestPaid(t *testing.T) {
	a, b := pair(t)
	in := &counting{Conn: a}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Serve(a, in, func(l net.Conn) {
			_, _ = io.Copy(l, l)
			l.Close()
		})
	}()
	junk := bytes.Repeat([]byte{mark[0], 0xff}, 64<<10)
	if _, err := b.Write(junk); err != nil {
		t.Fatal(err)
	}
	l := dial(t, b)
	leftovers := in.took.Load()
	if leftovers < int64(linkTime) || in.read.Load() < int64(len(junk)) {
		t.Errorf("%v for a link, and %d bytes before it", time.Duration(leftovers), in.read.Load())
	}
	for range 2 * payPackets {
		echo(t, l, []byte("x"))
	}
	if took := in.took.Load() - leftovers; took < int64(2*payPackets*packetTime) {
		t.Errorf("%v for %d packets", time.Duration(took), 2*payPackets)
	}
	l.Close()
	<-done
}
