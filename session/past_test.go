package session_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/session/packet"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// port is a guest's end of a device that remembers what was written to it last: what a
// program writes once more after its guest's memory was set back.
type port struct {
	net.Conn
	mu   sync.Mutex
	last []byte
	held *holder // of the port and its snapshots
}

// holder has the program that uses the port: one at a time, as in a guest.
type holder struct{ plug *plug }

// plug is the port as one program has it.
type plug struct {
	*port
	gone    atomic.Bool
	reading sync.Mutex
}

func (g *plug) Read(b []byte) (int, error) {
	g.reading.Lock()
	defer g.reading.Unlock()
	if g.gone.Load() {
		return 0, io.EOF
	}
	n, err := g.port.Read(b)
	if n == 0 && g.gone.Load() {
		err = io.EOF
	}
	return n, err
}

// wait waits until nobody reads.
func (g *plug) wait() {
	g.reading.Lock()
	defer g.reading.Unlock()
}

// open takes the port from whoever has it, who reads nothing of it from then on.
func (p *port) open() *plug {
	if old := p.held.plug; old != nil {
		old.gone.Store(true)
		_ = p.SetReadDeadline(time.Now())
		old.wait()
		_ = p.SetReadDeadline(time.Time{})
	}
	p.held.plug = &plug{port: p}
	return p.held.plug
}

func (p *port) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.last = bytes.Clone(b)
	p.mu.Unlock()
	return p.Conn.Write(b)
}

// snapshot is the port as it is now.
func (p *port) snapshot() *port {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &port{Conn: p.Conn, last: p.last, held: p.held}
}

// again writes once more what was written last.
func (p *port) again(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.Conn.Write(p.last); err != nil {
		t.Fatal(err)
	}
}

// link asks for a link on the port, announces or resumes the session of key 1, and says
// whether it was there.
func (w *world) link(g *packet.Guest, p *port, d wire.Dialect) (n *numbered, found bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	nc, err := g.Dial(ctx, struct{ net.Conn }{p.open()})
	if err != nil {
		w.t.Fatal(err)
	}
	n = &numbered{client: w.client(nc), d: d}
	n.client.resume()
	n.client.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: d.String()}, wire.Rversion)
	n.send(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)})
	return n, n.receive().Type == wire.Rsession
}

// TestPast: a guest is set back to a moment at which its fid 1 was on one key; since then
// it was clunked, and opened on another. What its program sends next tells it: the session
// is ended, in every dialect that has one, so that a write by that fid reaches nothing.
// Before, the session was resumed, and the other key written.
func TestPast(t *testing.T) {
	for _, d := range []wire.Dialect{wire.E, wire.EN, wire.LE, wire.EN2, wire.LE2} {
		for when, c := range map[string]struct{ another, damage, asks bool }{
			"it goes on in its link":               {},
			"it goes on in a link of before":       {another: true},
			"it asks for another link":             {another: true, asks: true},
			"it asks after its link was destroyed": {another: true, damage: true, asks: true},
		} {
			t.Run(d.String()+", "+when, func(t *testing.T) {
				w := newWorld(t, nil)
				w.put("color", "blue")
				w.put("size", "large")
				server, end := redialtest.Pair(t)
				w.served.Go(func() {
					packet.Serve(server, nil, func(l net.Conn) { w.server.Serve(l, peers["vm"]) })
				})
				guest, program := &port{Conn: end, held: new(holder)}, new(packet.Guest)
				a, found := w.link(program, guest, d)
				if found {
					t.Fatal("a new key is known")
				}
				a.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "glenda", NUname: wire.NoUID}, wire.Rattach)
				a.walk(1, "keys", "color")
				then, thenProgram, sent := guest.snapshot(), *program, a.count
				if c.another {
					if a, found = w.link(program, guest, d); !found {
						t.Fatal("the session is not resumed")
					}
					if d.Numbered() {
						a.client.do(&wire.Msg{Type: wire.Tresume, Tag: wire.NoTag, Counted: sent}, wire.Rresume)
						a.count = sent
					}
				}
				a.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 1}, wire.Rclunk)
				a.walk(1, "keys", "size")
				if d.IsL() {
					a.lopen(1, 1)
				} else {
					a.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1, Mode: wire.OWrite}, wire.Ropen)
				}
				if c.damage {
					if _, err := end.Write(make([]byte, 100)); err != nil {
						t.Fatal(err)
					}
					w.until("the lost link", func() bool { return w.server.Stats().Parked == 1 })
				}
				if !c.asks {
					then.again(t)
				}
				b, found := w.link(&thenProgram, guest, d)
				if found {
					t.Error("the session of the future is resumed")
				}
				b.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "glenda", NUname: wire.NoUID}, wire.Rattach)
				b.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("BLUE"), Count: 4}, b.refusal())
				if st := w.server.Stats(); st.Past == 0 || st.Sessions != 1 {
					t.Errorf("counted %d, %d sessions", st.Past, st.Sessions)
				}
				if c, s := w.value("color"), w.value("size"); c != "blue" || s != "large" {
					t.Errorf("color %q, size %q", c, s)
				}
			})
		}
	}
}
