package packet

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// handed is the host's end of a stream, which goes from one program to the next.
type handed struct {
	t     *testing.T
	nc    net.Conn
	mu    sync.Mutex
	link  *Link
	links int
	done  chan struct{}
	owes  []byte // of the echo: a program hands over what it owes, as a session does
}

// echo is one program's service of a link. It goes on with what the one before owes.
func (h *handed) echo(nc net.Conn) {
	l := nc.(*Link)
	h.mu.Lock()
	h.link = l
	h.links++
	h.mu.Unlock()
	b := make([]byte, 40<<10)
	for {
		for len(h.owes) > 0 {
			n, err := l.Write(h.owes)
			h.owes = h.owes[n:]
			if err != nil {
				h.close(l, err)
				return
			}
		}
		n, err := l.Read(b)
		h.owes = append([]byte(nil), b[:n]...)
		if err != nil {
			h.close(l, err)
			return
		}
	}
}

func (h *handed) close(l *Link, err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		h.owes = nil
		l.Close()
	}
}

func (h *handed) run(serve func(func(net.Conn))) {
	h.done = make(chan struct{})
	go func() {
		defer close(h.done)
		serve(h.echo)
	}()
}

// next is the next program.
func (h *handed) next() {
	h.t.Helper()
	h.mu.Lock()
	l := h.link
	h.mu.Unlock()
	l.Leave()
	select {
	case <-h.done:
	case <-time.After(patient):
		h.t.Fatal("the link does not stand still")
	}
	text, err := json.Marshal(l.State())
	var st State
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	other := Resume(l.NetConn(), st)
	h.mu.Lock()
	h.link = other
	h.links--
	h.mu.Unlock()
	h.run(func(serve func(net.Conn)) { other.GoOn(nil, serve) })
}

// TestHandOver: a stream goes from program to program at moments that nobody has chosen, in
// the middle of packets in both directions, and its guest reads what it has written, on the
// one link that it began.
func TestHandOver(t *testing.T) {
	a, b := pair(t)
	h := &handed{t: t, nc: a}
	h.run(func(serve func(net.Conn)) { Serve(a, nil, serve) })
	defer func() {
		a.Close()
		<-h.done
	}()
	l := dial(t, b)
	const size = 24 << 20
	sent := noise(1, size)
	ended := make(chan error, 2)
	go func() {
		_, err := l.Write(sent)
		ended <- err
	}()
	got := make([]byte, size)
	go func() {
		_, err := io.ReadFull(l, got)
		ended <- err
	}()
	const most = 300 // so that it gets on where each program has hardly any time
	moves := 0
	for left := 2; left > 0; {
		var next <-chan time.Time
		if moves < most {
			next = time.After(time.Duration(rand.IntN(2000)) * time.Microsecond)
		}
		select {
		case err := <-ended:
			if left--; err != nil {
				t.Fatal(err)
			}
		case <-next:
			h.next()
			moves++
		}
	}
	if string(got) != string(sent) {
		t.Error("the echo is not what was sent")
	}
	a.Close()
	<-h.done
	if h.links != 1 || moves == 0 {
		t.Errorf("%d links over %d programs", h.links, moves)
	}
	t.Logf("%d programs", moves+1)
}

// leftAfter is what a link reads from that is left when n bytes have come.
type leftAfter struct {
	net.Conn
	link *Link
	n    int
}

func (r *leftAfter) Read(p []byte) (int, error) {
	if r.n == 0 {
		r.link.Leave()
	}
	n, err := r.Conn.Read(p[:min(len(p), max(r.n, 1))])
	r.n -= n
	return n, err
}

// TestHandOverUnread: what nobody has read goes from program to program, however many there
// are and whatever they have read of it; a link that was left gives nothing out any more.
func TestHandOverUnread(t *testing.T) {
	a, b := pair(t)
	l := &Link{stream: newStream(a), host: true, number: 77, begun: true}
	l.was = place{program: 3, link: 77}
	sent := noise(2, 30<<10)
	whole := appendPacket(nil, data, 77, 1, sent)
	st := l.State()
	st.Input = whole[:20<<10] // it was torn
	var got []byte
	room := make([]byte, 4<<10)
	for program := range 6 {
		l = Resume(a, st)
		switch program {
		case 1:
			if _, err := l.in.Peek(1); err != nil {
				t.Fatal(err)
			}
		case 2:
			if _, err := b.Write(whole[20<<10:]); err != nil {
				t.Fatal(err)
			}
		case 3, 4:
			n, err := l.Read(room)
			if got = append(got, room[:n]...); err != nil {
				t.Fatal(err)
			}
		}
		l.Leave()
		if program == 0 { // it reads nothing at all
			st = l.State()
			continue
		}
		if n, err := l.Read(room); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("program %d reads %d bytes after it was left: %v", program, n, err)
		}
		if n, err := l.Read(nil); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("program %d: %d, %v", program, n, err)
		}
		st = l.State()
	}
	rest := make([]byte, len(sent)-len(got))
	_, err := io.ReadFull(Resume(a, st), rest)
	if err != nil || string(append(got, rest...)) != string(sent) {
		t.Error("what is read is not what was sent", err)
	}
}

// TestHandOverTorn: each cut of a packet, in either direction, is completed by the next
// program: what came of the guest's, and what went of the host's.
func TestHandOverTorn(t *testing.T) {
	whole := appendPacket(nil, data, 77, 5, []byte("hello"))
	follows := appendPacket(nil, data, 77, 6, []byte("!"))
	for at := range len(whole) + 1 {
		a, b := pair(t)
		l := &Link{stream: newStream(a), host: true, number: 77, heard: 4, begun: true, sent: 9}
		l.was = place{program: 3, link: 77, heard: 4}
		if _, err := b.Write(whole[:at]); err != nil {
			t.Fatal(err)
		}
		l.in = bufio.NewReader(&leftAfter{a, l, at})
		got := make([]byte, 5)
		n, err := l.Read(got)
		if at == len(whole) != (err == nil) {
			t.Fatalf("%d bytes: %v", at, err)
		}
		l.Leave()
		if n, err := l.Write([]byte("answer")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("written: %d, %v", n, err)
		}
		st := l.State()
		st.Output = append(st.Output, appendPacket(nil, data, 77, 10, []byte("late"))[at/2:]...)
		first := appendPacket(nil, data, 77, 10, []byte("late"))[:at/2]
		if _, err := a.Write(first); err == nil {
			t.Fatal("the deadline of Leave is gone")
		}
		_ = a.SetWriteDeadline(time.Time{})
		if _, err := a.Write(first); err != nil {
			t.Fatal(err)
		}
		st.Sent = 10
		other := Resume(a, st)
		done := make(chan struct{})
		go func() {
			defer close(done)
			other.GoOn(nil, func(nc net.Conn) {
				if nc != net.Conn(other) {
					nc.Close()
					return
				}
				if _, err := io.ReadFull(nc, got[n:]); err != nil || string(got) != "hello" {
					t.Errorf("cut at %d: %q, %v", at, got, err)
				}
				_, _ = nc.Write([]byte("more"))
				_, _ = nc.Read(make([]byte, 1))
				nc.Close()
			})
		}()
		if _, err := b.Write(append(whole[at:len(whole):len(whole)], follows...)); err != nil {
			t.Fatal(err)
		}
		guest := &Link{stream: newStream(b), number: 77, heard: 9, begun: true, sent: 6}
		answer := make([]byte, 8)
		_ = b.SetReadDeadline(time.Now().Add(patient))
		if _, err := io.ReadFull(guest, answer); err != nil || string(answer) != "latemore" {
			t.Errorf("cut at %d: the guest reads %q, %v", at, answer, err)
		}
		<-done
		guest.Close()
	}
}

// TestHandOverSilent: a stream on which no guest has asked yet, or one has asked anew, is
// handed over; the guest that asks has its link from the next program.
func TestHandOverSilent(t *testing.T) {
	for _, asked := range []uint64{0, 99} {
		a, b := pair(t)
		first := &Link{stream: newStream(a), host: true}
		first.asked = asked
		first.was = place{program: 5, link: 66, heard: 3}
		first.Leave()
		st := first.State()
		if st.Begun || st.Asked != asked {
			t.Fatalf("%+v", st)
		}
		h := &handed{t: t, nc: a}
		h.run(func(serve func(net.Conn)) { Resume(a, st).GoOn(nil, serve) })
		if asked != 0 {
			c, err := find(newStream(b).in, hello, func(time.Duration) {})
			if err != nil || c.nonce != asked || c.link == 0 {
				t.Errorf("%+v, %v", c, err)
			}
		} else {
			guest := &Guest{program: 5, last: &Link{stream: newStream(b), number: 66, sent: 2}}
			nc, err := guest.Dial(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			echo(t, nc, []byte("hello"))
		}
		b.Close()
		<-h.done
		if asked == 0 && !h.link.Past() {
			t.Error("the next program does not know that the guest went back in time")
		}
	}
}
