package redial

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta9/fs/errs"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Conn in 9P2000.e.n, the Owner that it tells things, which are noted, and the
// servers that it comes to, one after the other. It is for a synctest bubble, in which
// time passes when all wait.
type world struct {
	t    *testing.T
	conn *Conn
	// greet greets the n-th transport, from 0 on; servers gives it then.
	greet   func(n int, p *redialtest.Peer)
	servers chan *redialtest.Peer
	again   bool // what was sent is sent again when the session is lost

	mu      sync.Mutex
	away    bool // nobody can be dialled
	dialled []time.Time
	log     []string
	fails   int                     // this Begin from now on fails
	wrap    func(net.Conn) net.Conn // makes the Conn's ends; nil: nothing
}

// newWorld makes one whose server knows a session from the second transport on.
func newWorld(t *testing.T, change func(w *world, c *Config)) *world {
	t.Helper()
	w := &world{t: t, servers: make(chan *redialtest.Peer, 100)}
	w.greet = func(n int, p *redialtest.Peer) { p.Accept(wire.EN, n > 0) }
	conf := Config{
		Dial: w.dial, Terms: Terms{Offers: []wire.Dialect{wire.EN, wire.Plain}, Msize: 8192},
		Key: [8]byte{1}, Owner: w,
	}
	if change != nil {
		change(w, &conf)
	}
	w.conn = New(conf)
	if err := w.conn.Dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	go w.conn.Run(t.Context())
	return w
}

func (w *world) dial(context.Context) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialled = append(w.dialled, time.Now())
	if w.away {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	p := &redialtest.Peer{T: w.t, NC: ours}
	go func(n int) {
		w.greet(n, p)
		w.servers <- p
	}(len(w.dialled) - 1)
	if w.wrap != nil {
		theirs = w.wrap(theirs)
	}
	return theirs, nil
}

// note notes what the Owner was told.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// told must be what was noted since the last time.
func (w *world) told(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.log, want) {
		w.t.Errorf("told %q, want %q", w.log, want)
	}
	w.log = nil
}

func (w *world) Lost(win *Window) []byte {
	w.note("lost %d", len(win.Sent))
	win.Requeue(func(*Request) bool { return w.again })
	return []byte("lost")
}

func (w *world) Begin(t *Talk, unproven error) error {
	w.note("begin %v", unproven)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fails--; w.fails == 0 {
		return io.EOF
	}
	return nil
}

func (w *world) Reply(r *Request, frame []byte) ([]byte, error) {
	w.note("reply to %d", r.Tag)
	if r.Type == wire.Tstat { // whose answers this Owner cannot bear
		return nil, errs.Protocol
	}
	return nil, nil
}

func (w *world) Pass(frames []byte)         { w.note("pass %s", frames) }
func (w *world) Up(resumed bool)            { w.note("up %v", resumed) }
func (w *world) Down(why error, fresh bool) { w.note("down %v, %v", why, fresh) }
func (w *world) Failed(why error)           { w.note("failed %v", why) }

// start is what is told of the first transport.
var start = []string{"lost 0", "pass lost", "begin <nil>"}

// ask gives requests to the Conn, under tags from first on.
func (w *world) ask(first uint16, types ...wire.Type) (list []*Request) {
	w.conn.Lock()
	defer w.conn.Unlock()
	for i, typ := range types {
		r := &Request{Tag: first + uint16(i), Type: typ, Frame: requestFrame(typ, first+uint16(i))}
		w.conn.Send(r)
		list = append(list, r)
	}
	return list
}

func requestFrame(typ wire.Type, tag uint16) []byte {
	frame, err := wire.Append(nil, &wire.Msg{Type: typ, Tag: tag}, wire.EN)
	if err != nil {
		panic(err)
	}
	return frame
}

// size is what is without an answer.
func (w *world) size() int {
	w.conn.Lock()
	defer w.conn.Unlock()
	return w.conn.Len()
}

// close ends the world: the server says nothing to the end of the session.
func (w *world) close(p *redialtest.Peer) {
	_ = p.NC.SetDeadline(time.Time{})
	go func() { _, _ = io.Copy(io.Discard, p.NC) }()
	w.conn.Close()
	p.NC.Close()
}

func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// TestSilence: a server that does not answer for long is asked whether it is there,
// and given up when it says nothing for 45 s. One that was asked nothing may be silent. What
// becomes of the probe and of the request is told by their numbers.
func TestSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		first := <-w.servers
		w.told(start...)
		time.Sleep(time.Hour) // idle
		sent := time.Now()
		w.ask(3, wire.Tread)
		first.Want(wire.Tread)
		probe := first.Want(wire.Tflush)
		if waited := time.Since(sent); waited != probeTime || probe.Oldtag == probe.Tag {
			t.Fatalf("%v after %v", probe, waited)
		}
		first.Reply(probe)
		heard := time.Now()
		first.Want(wire.Tflush)
		if waited := time.Since(heard); waited != probeTime {
			t.Errorf("probed again after %v", waited)
		}
		second := <-w.servers
		if waited := time.Since(heard); waited != silenceTime {
			t.Errorf("given up after %v", waited)
		}
		m := second.Want(wire.Tresume)
		if len(m.Numbers) != 2 {
			t.Fatal(m)
		}
		second.Send(&wire.Msg{Type: wire.Rresume, Tag: wire.NoTag, States: []uint8{wire.Answered, wire.Unseen}})
		w.told("down the server is silent, true", "up true")
		second.Reply(second.Want(wire.Tflush)) // the probe that never came, then the request once more
		second.Reply(second.Want(wire.Tread))
		w.told("reply to 3")
		w.close(second)
		first.NC.Close()
	})
}

// TestStoodStill: it may be us who stood still. A server gets a probe, and time to answer
// it, before it is given up.
func TestStoodStill(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := <-w.servers
		w.ask(3, wire.Tread)
		p.Want(wire.Tread)
		w.conn.Lock()
		w.conn.up.lastHeard = time.Now().Add(-time.Hour)
		w.conn.Unlock()
		p.Reply(p.Want(wire.Tflush))
		time.Sleep(probeTime - time.Second)
		w.told(start...)
		w.close(p)
	})
}

// TestProbeAtTheLimit: with as many requests without an answer as there may be the probe
// still fits a Tresume.
func TestProbeAtTheLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := <-w.servers
		w.ask(0, slices.Repeat([]wire.Type{wire.Tread}, MaxRequests)...)
		for range MaxRequests {
			p.Want(wire.Tread)
		}
		p.Want(wire.Tflush)
		if n := w.size(); n != MaxRequests {
			t.Errorf("%d requests", n)
		}
		p.NC.Close()
		p = <-w.servers
		m := p.Want(wire.Tresume)
		if len(m.Numbers) != MaxRequests+1 {
			t.Errorf("%d numbers", len(m.Numbers))
		}
		w.close(p)
	})
}

// TestLies: a reply that nobody asked for, or of another type, or that the Owner cannot
// bear, ends the transport, and no request is answered by it.
func TestLies(t *testing.T) {
	for name, lie := range map[string]wire.Msg{
		"no such tag":                   {Type: wire.Rread, Tag: 9},
		"no tag":                        {Type: wire.Rversion, Tag: wire.NoTag, Version: "9P2000"},
		"another type":                  {Type: wire.Rwrite, Tag: 1},
		"a T-message":                   {Type: wire.Tread, Tag: 1},
		"to a request that is queued":   {Type: wire.Rread, Tag: 3},
		"to a Tflush that is queued":    {Type: wire.Rflush, Tag: 4},
		"an error to a queued request":  {Type: wire.Rerror, Tag: 3, Ename: "no"},
		"what the Owner cannot bear":    {Type: wire.Rstat, Tag: 2},
		"a frame larger than msize":     {Type: wire.Rread, Tag: 1, Data: make([]byte, 8192)},
		"to the probe that was not yet": {Type: wire.Rflush, Tag: probeTag},
	} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			p := <-w.servers
			asked := w.ask(1, wire.Tread, wire.Tstat)
			p.Want(wire.Tread)
			p.Want(wire.Tstat)
			w.told(start...)
			w.ask(5, wire.Tread) // which nobody reads, so that what comes after it stays queued
			synctest.Wait()
			w.ask(3, wire.Tread)
			w.conn.Lock()
			w.conn.Flush(&Request{Tag: 4, Type: wire.Tflush, Frame: requestFrame(wire.Tflush, 4), Old: asked[0]})
			w.conn.Unlock()
			frame, _ := wire.Append(nil, &lie, wire.EN)
			_, _ = p.NC.Write(frame) // of which not all may be taken
			second := <-w.servers
			if n := w.size(); n != 5 {
				t.Errorf("%s: %d requests left", name, n)
			}
			if m := second.Want(wire.Tresume); len(m.Numbers) != 2 && len(m.Numbers) != 3 {
				t.Errorf("%s: %v", name, m)
			}
			second.NC.Close()
			p.NC.Close()
			w.conn.Close()
			for len(w.servers) > 0 {
				(<-w.servers).NC.Close()
			}
		})
	}
}

// TestFlush: what has not left is forgotten at once; after Rflush what was flushed is;
// after a refused Tflush its answer is still wanted.
func TestFlush(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := <-w.servers
		flush := func(tag uint16, old *Request) bool {
			w.conn.Lock()
			defer w.conn.Unlock()
			return w.conn.Flush(&Request{Tag: tag, Type: wire.Tflush, Frame: requestFrame(wire.Tflush, tag), Old: old})
		}
		sent := w.ask(1, wire.Tread, wire.Tread)
		p.Want(wire.Tread)
		p.Want(wire.Tread)
		w.told(start...)
		if flush(11, sent[0]) || flush(12, sent[1]) {
			t.Error("a request that was sent is flushed without the server")
		}
		p.Reply(p.Want(wire.Tflush))
		p.Send(&wire.Msg{Type: wire.Rerror, Tag: p.Want(wire.Tflush).Tag, Ename: "not_supported"})
		w.told("reply to 11", "reply to 12")
		if n := w.size(); n != 1 || sent[1].Flushed {
			t.Errorf("%d requests left", n)
		}
		p.Send(&wire.Msg{Type: wire.Rread, Tag: 2})
		w.told("reply to 2")
		w.ask(5, wire.Tread) // which nobody reads
		synctest.Wait()
		if queued := w.ask(6, wire.Tread); !flush(13, queued[0]) || w.size() != 1 {
			t.Error("a queued request is not forgotten")
		}
		w.close(p)
	})
}

// TestPauses: the tries of an outage come at once, then after pauses that grow to 2 s. The
// next outage begins anew when the transport was of use, or lived long; otherwise it is
// the same.
func TestPauses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := <-w.servers
		w.told(start...)
		outage := func(away time.Duration) []time.Duration {
			w.mu.Lock()
			w.away, w.dialled = true, w.dialled[:1]
			w.mu.Unlock()
			begin := time.Now()
			p.NC.Close()
			time.Sleep(away)
			w.mu.Lock()
			w.away, w.log = false, nil
			var at []time.Duration
			for _, when := range w.dialled[1:] {
				at = append(at, when.Sub(begin))
			}
			w.mu.Unlock()
			p = <-w.servers
			return at
		}
		check := func(at []time.Duration, atOnce bool) {
			t.Helper()
			wait := dialAgain.First
			for i, when := range at {
				switch {
				case i == 0 && atOnce != (when == 0):
					t.Errorf("the first try comes after %v", when)
				case i > 0 && atOnce:
					if pause := when - at[i-1]; pause > wait || pause <= wait/2-time.Millisecond {
						t.Errorf("pause %d is %v, at most %v", i, pause, wait)
					}
					wait = min(2*wait, dialAgain.Last)
				}
			}
		}
		resume := func() {
			p.Send(&wire.Msg{Type: wire.Rresume, Tag: wire.NoTag, States: make([]uint8, len(p.Want(wire.Tresume).Numbers))})
			synctest.Wait()
		}
		tries := outage(time.Minute)
		if check(tries, true); len(tries) < 30 || len(tries) > 70 {
			t.Errorf("%d tries in a minute", len(tries))
		}
		resume()
		w.told("up true")
		check(outage(time.Second), false) // nobody got an answer: no try at once
		resume()
		w.ask(1, wire.Tread)
		p.Reply(p.Want(wire.Tread))
		w.told("up true", "reply to 1")
		check(outage(time.Second), true)
		resume()
		background := w.ask(2, wire.Tread)
		w.conn.Lock()
		background[0].Background = true
		w.conn.Unlock()
		p.Reply(p.Want(wire.Tread))
		w.told("up true", "reply to 2")
		check(outage(time.Second), false) // nobody waited for that answer
		resume()
		time.Sleep(usefulAfter + time.Second)
		w.told("up true")
		check(outage(time.Second), true)
		resume()
		p.NC.Close()
		p = <-w.servers
		w.told("up true", "down the server closed it, false")
		w.close(p)
	})
}

// TestEnd: Close ends a session that the server keeps by a second Tversion, which goes
// before what is queued, and waits a little; a server that keeps none is not asked.
func TestEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, answered := range []bool{true, false} {
			w := newWorld(t, nil)
			p := <-w.servers
			w.ask(1, wire.Tread) // which is in the way until it is read
			synctest.Wait()
			w.ask(2, wire.Tread)
			closed := make(chan time.Time, 1)
			go func() { w.conn.Close(); closed <- time.Now() }()
			synctest.Wait()
			p.Want(wire.Tread)
			begin, v := time.Now(), p.Want(wire.Tversion)
			if v.Version != "9P2000.e.n" || v.Msize != 8192 {
				t.Error(v)
			}
			if answered {
				p.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Version: v.Version})
			}
			if waited := (<-closed).Sub(begin); answered && waited != 0 || !answered && waited != endTime {
				t.Errorf("answered %v: waited %v", answered, waited)
			}
			w.told(start...) // and of no loss
			p.NC.Close()
		}
		w := newWorld(t, func(w *world, c *Config) {
			w.greet = func(_ int, p *redialtest.Peer) {
				v := p.Want(wire.Tversion)
				p.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Msize: v.Msize, Version: "9P2000"})
			}
		})
		p := <-w.servers
		w.conn.Close()
		if m := p.Receive(); m != nil {
			t.Error(m)
		}
	})
}

// TestCloseWhileDown: nobody is waited for who is not there, nor one who is being greeted.
func TestCloseWhileDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, dialled := range []bool{false, true} {
			w := newWorld(t, nil)
			p := <-w.servers
			w.mu.Lock()
			w.away = !dialled
			w.mu.Unlock()
			p.NC.Close()
			if dialled { // and waits for Rresume
				p = <-w.servers
			}
			time.Sleep(5 * time.Second)
			begin := time.Now()
			w.conn.Close()
			if waited := time.Since(begin); waited != 0 {
				t.Errorf("waited %v", waited)
			}
			p.NC.Close()
		}
	})
}

// TestRenew: another session, under other terms, takes the place of the one there is;
// nothing of that is left.
func TestRenew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := <-w.servers
		w.ask(1, wire.Tread)
		p.Want(wire.Tread)
		w.told(start...)
		w.greet = func(_ int, p *redialtest.Peer) {
			v := p.Want(wire.Tversion)
			if v.Version != "9P2000" || v.Msize != 4096 {
				t.Error(v)
			}
			p.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Msize: v.Msize, Version: "9P2000"})
		}
		w.conn.Lock()
		w.conn.Renew(Terms{Offers: []wire.Dialect{wire.Plain}, Msize: 4096})
		if !w.conn.Renewing() {
			t.Error("not renewing")
		}
		w.conn.Unlock()
		v := p.Want(wire.Tversion)
		p.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Version: v.Version})
		p = <-w.servers
		w.told("lost 0", "pass lost", "begin <nil>", "up false")
		w.conn.Lock()
		d, msize, lasting := w.conn.Session()
		if d != wire.Plain || msize != 4096 || lasting || w.conn.Renewing() || w.conn.Len() != 0 {
			t.Errorf("%v, msize %d, lasting %v, %d requests", d, msize, lasting, w.conn.Len())
		}
		w.conn.Unlock()
		w.conn.Close()
		p.NC.Close()
	})
}

// TestRenewWhileGreeting: what is being greeted then is not under the new terms, and ends.
func TestRenewWhileGreeting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := <-w.servers
		w.told(start...)
		asked := make(chan struct{})
		w.greet = func(n int, p *redialtest.Peer) {
			if n == 1 {
				<-asked
			}
			p.Accept(wire.EN, n == 1)
		}
		p.NC.Close()
		synctest.Wait()
		w.conn.Lock()
		w.conn.Renew(Terms{Offers: []wire.Dialect{wire.EN}, Msize: 4096})
		w.conn.Unlock()
		close(asked)
		p = <-w.servers
		p.Reply(p.Want(wire.Tresume))
		p.Reply(p.Want(wire.Tversion))
		p = <-w.servers
		w.told("down the server closed it, true", "up true", "lost 0", "pass lost", "begin <nil>", "up false")
		w.conn.Lock()
		if _, msize, _ := w.conn.Session(); msize != 4096 || w.conn.Renewing() {
			t.Errorf("msize %d", msize)
		}
		w.conn.Unlock()
		w.close(p)
	})
}

// TestRenewWithoutWord: the server has not heard of the end of the session, and has it
// still; it is not what was asked for, and ends.
func TestRenewWithoutWord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := <-w.servers
		w.ask(1, wire.Tread)
		p.Want(wire.Tread)
		w.told(start...)
		w.greet = func(_ int, p *redialtest.Peer) {
			p.Accept(wire.EN, true)
			p.Accept(wire.EN, false)
		}
		w.conn.Lock()
		w.conn.Renew(Terms{Offers: []wire.Dialect{wire.EN}, Msize: 8192})
		w.conn.Unlock()
		p.NC.Close()
		p = <-w.servers
		w.told("lost 0", "pass lost", "begin <nil>", "up false")
		if n := w.size(); n != 0 {
			t.Errorf("%d requests left", n)
		}
		w.close(p)
	})
}

// TestLost: a server that has forgotten the session, or has another, gets a new one; what
// was sent is the Owner's to judge, what was not waits.
func TestLost(t *testing.T) {
	for name, greet := range map[string]func(p *redialtest.Peer){
		"forgotten": func(p *redialtest.Peer) { p.Accept(wire.EN, false) },
		"refused": func(p *redialtest.Peer) {
			p.Accept(wire.EN, true)
			p.Send(&wire.Msg{Type: wire.Rerror, Tag: p.Want(wire.Tresume).Tag, Ename: errs.Invalid.Text()})
			p.Accept(wire.EN, false)
		},
		"of another msize": func(p *redialtest.Peer) {
			v := p.Want(wire.Tversion)
			p.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Msize: 4096, Version: v.Version})
			p.Dialect = wire.EN
			p.Reply(p.Want(wire.Tsession))
			p.Accept(wire.EN, false)
		},
	} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nil)
			w.again = true
			p := <-w.servers
			w.ask(1, wire.Tread, wire.Tread)
			p.Want(wire.Tread)
			p.Want(wire.Tread)
			w.greet = func(_ int, p *redialtest.Peer) { greet(p) }
			p.NC.Close()
			p = <-w.servers
			if m := p.Want(wire.Tread); m.Tag != 1 {
				t.Errorf("%s: %v", name, m)
			}
			p.Want(wire.Tread)
			w.told(append(slices.Clone(start), "down the server closed it, true", "lost 2", "pass lost", "begin <nil>", "up false")...)
			w.close(p)
		})
	}
}

// TestSetBack: a client of which the server has had other requests under the same numbers,
// since it was set back and has sent as many, does not go on with that session, nor wait for
// replies that nobody has: it begins another under a key of its own. What is its own goes on.
func TestSetBack(t *testing.T) {
	rclunk, rwrite, rwalk := wire.Msg{Type: wire.Rclunk, Tag: 2}, wire.Msg{Type: wire.Rwrite, Tag: 1}, wire.Msg{Type: wire.Rwalk, Tag: 2}
	for name, c := range map[string]struct {
		states  []uint8
		kept    []wire.Msg
		flushed int // this request
		goesOn  bool
		tries   int
	}{
		"its own":                      {[]uint8{wire.Answered, wire.Answered, wire.Running}, []wire.Msg{rwrite, rclunk}, -1, true, 1},
		"an error":                     {[]uint8{wire.Answered, wire.Answered, wire.Running}, []wire.Msg{{Type: wire.Rerror, Tag: 1}, rclunk}, -1, true, 1},
		"one is flushed, with a reply": {[]uint8{wire.Answered, wire.Answered, wire.Running}, []wire.Msg{rwrite, rclunk}, 0, true, 1},
		"one is flushed, with none":    {[]uint8{wire.Answered, wire.Answered, wire.Running}, []wire.Msg{rclunk}, 0, true, 1},
		"the last is flushed":          {[]uint8{wire.Answered, wire.Answered, wire.Running}, []wire.Msg{rwrite}, 1, true, 1},
		"of another type":              {[]uint8{wire.Answered, wire.Answered, wire.Running}, []wire.Msg{rwrite, rwalk}, -1, false, 1},
		"to another tag":               {[]uint8{wire.Answered, wire.Answered, wire.Running}, []wire.Msg{rclunk, rwrite}, -1, false, 1},
		"none":                         {[]uint8{wire.Answered, wire.Answered, wire.Running}, nil, -1, false, maxMisses},
		"one of two":                   {[]uint8{wire.Answered, wire.Answered, wire.Running}, []wire.Msg{rwrite}, -1, false, maxMisses},
	} {
		bubble(t, func(t *testing.T) {
			tries := 0
			var keys [][wire.KeyLen]byte
			w := newWorld(t, func(w *world, conf *Config) {
				conf.Offers = []wire.Dialect{wire.EN2}
				w.greet = func(n int, p *redialtest.Peer) {
					p.Dialect = wire.None
					v := p.Want(wire.Tversion)
					p.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Msize: v.Msize, Version: "9P2000.e.n.2"})
					p.Dialect = wire.EN2
					s := p.Want(wire.Tsession)
					keys = append(keys, s.Key)
					if n == 0 || s.Key != keys[0] {
						p.Send(&wire.Msg{Type: wire.Rerror, Tag: s.Tag, Ename: errs.CannotResume.Text()})
						return
					}
					tries++
					p.Reply(s)
					m := p.Want(wire.Tresume)
					p.Send(&wire.Msg{Type: wire.Rresume, Tag: m.Tag, Token: 7, States: c.states})
					for i := range c.kept {
						frame, err := wire.Append(nil, &c.kept[i], wire.EN2)
						if err != nil {
							t.Error(err)
						}
						_, _ = p.NC.Write(frame) // who was told enough does not read on
					}
				}
			})
			p := <-w.servers
			list := w.ask(1, wire.Twrite, wire.Tclunk, wire.Twrite)
			for range list {
				p.Receive()
			}
			if c.flushed >= 0 {
				w.conn.Lock()
				list[c.flushed].Flushed = true
				w.conn.Unlock()
			}
			w.told(start...)
			p.NC.Close()
			for range c.tries {
				p = <-w.servers
			}
			if !c.goesOn {
				p = <-w.servers
			}
			synctest.Wait()
			w.mu.Lock()
			last := w.log[len(w.log)-1]
			begun := slices.Contains(w.log, "begin <nil>")
			w.mu.Unlock()
			if tries != c.tries || begun == c.goesOn || c.goesOn && !strings.HasPrefix(last, "reply to") || !c.goesOn && last != "up false" {
				t.Errorf("%s: %d resumes; %q", name, tries, w.log)
			}
			if other := keys[len(keys)-1] != keys[0]; other == c.goesOn {
				t.Errorf("%s: the last key is another: %v", name, other)
			}
			w.close(p)
		})
	}
}

// TestHalfMade: a session that was lost while it was made anew is not what the Owner
// knows: it is ended, and made once more.
func TestHalfMade(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := <-w.servers
		w.told(start...)
		w.mu.Lock()
		w.fails = 1
		w.greet = func(n int, p *redialtest.Peer) {
			p.Accept(wire.EN, n == 2) // the third transport finds what the second has left
			if n == 2 {
				p.Accept(wire.EN, false)
			}
		}
		w.mu.Unlock()
		p.NC.Close()
		(<-w.servers).NC.Close()
		p = <-w.servers
		w.told("down the server closed it, true", "lost 0", "pass lost", "begin <nil>", "failed the server closed it", "lost 0", "pass lost", "begin <nil>", "up false")
		w.close(p)
	})
}

// TestMumble: the message is shown before each new session, and its key is asked for only
// when the server may know it. The Owner hears of a refusal.
func TestMumble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		authenticate := func(p *redialtest.Peer, good bool) {
			p.Dialect = wire.None
			v := p.Want(wire.Tversion)
			p.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Msize: v.Msize, Version: v.Version})
			p.Dialect = wire.EN
			m := p.Want(wire.Tauth)
			if m.Aname != "/" || m.Uname != "me" {
				t.Error(m)
			}
			if !good {
				p.Send(&wire.Msg{Type: wire.Rerror, Tag: m.Tag, Ename: "no"})
				return
			}
			p.Reply(m)
			m = p.Want(wire.Twrite)
			if string(m.Data) != "MUMBLE:x:" {
				t.Error(m)
			}
			p.Reply(m)
			p.Reply(p.Want(wire.Tclunk))
		}
		w := newWorld(t, func(w *world, c *Config) {
			c.Mumble, c.User = "MUMBLE:x:", "me"
			w.greet = func(n int, p *redialtest.Peer) {
				if n == 0 {
					authenticate(p, true)
					return
				}
				p.Accept(wire.EN, true)
			}
		})
		p := <-w.servers
		p.NC.Close()
		p = <-w.servers
		resumed := p.Want(wire.Tresume)
		p.Reply(resumed)
		w.told(append(slices.Clone(start), "down the server closed it, true", "up true")...)
		w.close(p)
		w = newWorld(t, func(w *world, c *Config) {
			c.Mumble, c.User = "MUMBLE:x:", "me"
			w.greet = func(_ int, p *redialtest.Peer) { authenticate(p, false) }
		})
		p = <-w.servers
		w.told("lost 0", "pass lost", "begin no")
		w.conn.Close()
		p.NC.Close()
	})
}

// counted is a transport that notes how much is written at once.
type counted struct {
	net.Conn
	mu     sync.Mutex
	writes []int
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// TestBatches: what has gathered while a write waited goes out in one, up to 64 KiB and
// a frame; a larger frame goes by itself.
func TestBatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var c *counted
		w := newWorld(t, func(w *world, conf *Config) {
			conf.Msize = wire.MaxMsize
			w.wrap = func(nc net.Conn) net.Conn {
				c = &counted{Conn: nc}
				return c
			}
		})
		p := <-w.servers
		w.ask(0, wire.Tread)
		synctest.Wait()
		c.mu.Lock()
		c.writes = nil
		c.mu.Unlock()
		large := &Request{Tag: 50, Type: wire.Twrite}
		large.Frame, _ = wire.Append(nil, &wire.Msg{Type: wire.Twrite, Tag: 50, Data: make([]byte, batchSize+1)}, wire.EN)
		w.ask(1, slices.Repeat([]wire.Type{wire.Tread}, 20)...)
		w.conn.Lock()
		w.conn.Send(large)
		w.conn.Unlock()
		w.ask(21, wire.Tread)
		for range 21 {
			p.Want(wire.Tread)
		}
		p.Want(wire.Twrite)
		p.Want(wire.Tread)
		c.mu.Lock()
		one := len(requestFrame(wire.Tread, 1))
		if want := []int{20 * one, len(large.Frame), one}; !slices.Equal(c.writes, want) {
			t.Errorf("writes of %v bytes, want %v", c.writes, want)
		}
		c.mu.Unlock()
		w.close(p)
	})
}
