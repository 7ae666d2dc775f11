package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/packet"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// handOver begins to hand the server's connections over. next awaits the end and gives
// another world, over what the disk has then, that goes on with them.
func (w *world) handOver() (next func() *world) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	ended := make(chan error, 1)
	go func() { ended <- w.server.HandOver(ctx) }()
	return func() *world {
		w.t.Helper()
		defer cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("hand over: %v", err)
		}
		w.store.Stop()
		w.left = true
		other := openWorld(w.t, w.disk.Clone(), nil)
		for st := range w.server.Parked() {
			if err := other.server.Restore(moved(w.t, st)); err != nil {
				w.t.Error(err)
			}
		}
		readers := make(map[uint64]uint64)
		for _, h := range w.server.Handed() {
			h.Session.Readers(readers)
		}
		if err := w.tree.Tails(readers, other.store.RestoreTail); err != nil {
			w.t.Error(err)
		}
		var all []func()
		for nc, h := range w.server.Handed() {
			h = sent(w.t, h)
			if w.passing != nil {
				w.passing(&h)
			}
			was, isLink := nc.(*packet.Link)
			if isLink {
				nc = packet.Resume(was.NetConn(), *h.Link)
			}
			serve, err := other.server.Adopt(nc, h)
			if err != nil {
				w.t.Error(err)
				continue
			}
			if !isLink {
				all = append(all, func() { serve(nil) })
				continue
			}
			all = append(all, func() {
				nc.(*packet.Link).GoOn(nil, func(l net.Conn) {
					if l == nc {
						serve(nil)
					} else {
						other.server.Serve(l, peers["vm"])
					}
				})
			})
		}
		for _, serve := range all {
			other.served.Go(serve)
		}
		return other
	}
}

// byLink is a client of the world by a link of packets, that does not read yet.
func (w *world) byLink(p session.Peer) *client {
	w.t.Helper()
	server, end := redialtest.Pair(w.t)
	w.served.Go(func() { packet.Serve(server, nil, func(l net.Conn) { w.server.Serve(l, p) }) })
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	l, err := packet.Dial(ctx, end)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.client(l)
}

// meets is a client by a connection or, with by "link", by a link of packets on one.
func (w *world) meets(by string, p session.Peer) *client {
	if by != "link" {
		return w.dial(by, p)
	}
	c := w.byLink(p)
	c.resume()
	return c
}

// sent is h as another process gets it.
func sent(t testing.TB, h session.Handed) (other session.Handed) {
	t.Helper()
	text, err := json.Marshal(h)
	if err == nil {
		err = json.Unmarshal(text, &other)
	}
	if err != nil {
		t.Fatal(err)
	}
	output := cmpopts.IgnoreFields(session.Handed{}, "Output") // some are long
	if diff := cmp.Diff(h, other, cmpopts.EquateEmpty(), output); diff != "" || !bytes.Equal(h.Output, other.Output) {
		t.Errorf("through JSON: %s", diff)
	}
	return other
}

// openFid opens a fid in the client's dialect, to read and write unless it is events.
func (c *client) openFid(fid uint32, names ...string) {
	c.t.Helper()
	events := names[len(names)-1] == "events"
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: fid, Names: names}, wire.Rwalk)
	if c.dialect.IsL() {
		m := &wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: fid}
		if m.L.Flags = uint32(p9.ReadWrite); events {
			m.L.Flags = 0
		}
		c.do(m, wire.Rlopen)
		return
	}
	m := &wire.Msg{Type: wire.Topen, Tag: 1, Fid: fid, Mode: wire.ORdWr}
	if events {
		m.Mode = 0
	}
	c.do(m, wire.Ropen)
}

var dialects = []wire.Dialect{wire.Plain, wire.U, wire.L, wire.E, wire.EN, wire.LE}

// TestHandOver: a client of any dialect, with a session key or without, keeps its
// connection: what was begun is answered, what blocks goes on to block, half a frame is
// completed, its fids are there, and each request is answered once.
func TestHandOver(t *testing.T) {
	for _, by := range []string{"unix", "link"} {
		for _, d := range dialects {
			t.Run(by+", "+d.String(), func(t *testing.T) { handOverUnder(t, by, d) })
		}
	}
}

func handOverUnder(t *testing.T, by string, d wire.Dialect) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	a := w.meets(by, peers["vm"])
	a.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: d.String()}, wire.Rversion)
	if d.Numbered() {
		refusal := wire.Rerror
		if d.IsL() {
			refusal = wire.Rlerror
		}
		a.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, refusal)
	}
	a.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "glenda", NUname: wire.NoUID}, wire.Rattach)
	a.openFid(1, "keys", "color")
	_, release := w.engine.Block()
	a.send(&wire.Msg{Type: wire.Twrite, Tag: 7, Fid: 1, Data: []byte("red"), Count: 3})
	half, err := wire.Append(nil, &wire.Msg{Type: wire.Tread, Tag: 9, Fid: 1, Count: 100}, d)
	if err != nil {
		t.Fatal(err)
	}
	a.do(&wire.Msg{Type: wire.Tflush, Tag: 3, Oldtag: 4}, wire.Rflush)
	a.write(half[:10])
	waits := w.meets(by, peers["vm2"])
	waits.hello(d.String())
	waits.openFid(2, "events")
	waits.send(&wire.Msg{Type: wire.Tread, Tag: 8, Fid: 2, Count: 1000})
	waits.do(&wire.Msg{Type: wire.Tflush, Tag: 3, Oldtag: 4}, wire.Rflush)
	next := w.handOver()
	release()
	b := next()
	if m := a.receive(); m == nil || m.Type != wire.Rwrite || m.Tag != 7 {
		t.Fatalf("%s: got %v for the write", d, m)
	}
	a.write(half[10:])
	if m := a.receive(); m == nil || m.Type != wire.Rread || string(m.Data) != "rede" {
		t.Fatalf("%s: got %v for the read", d, m)
	}
	b.do(&store.Intent{Kind: store.Put, Cell: b.store.Cell(vmTwo), Name: "size", Data: "xl", By: "admin"})
	if m := waits.receive(); m == nil || m.Type != wire.Rread || m.Tag != 8 || !strings.Contains(string(m.Data), `"size"`) {
		t.Fatalf("%s: got %v for the events", d, m)
	}
	a.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 1}, wire.Rclunk)
	if n := b.server.Stats().Conns; n != 2 {
		t.Errorf("%s: %d connections", d, n)
	}
	if !d.Numbered() {
		return
	}
	// attach, walk, open, write, flush, read, clunk
	a.nc.Close()
	b.until("the parked session", func() bool { return b.server.Stats().Parked == 1 })
	back := b.numbered(d, 1, &numbered{client: a, d: d, count: 7})
	back.resume([]uint64{4, 7, 8}, wire.Answered, wire.Answered, wire.Unseen)
	back.expect(wire.Rwrite, 7)
	back.expect(wire.Rclunk, 1)
}

// TestHandOverUnsent: replies that a peer does not take go along, and come once, in
// their order, when it does.
func TestHandOverUnsent(t *testing.T) {
	t.Run("unix", func(t *testing.T) {
		w := newWorld(t, nil)
		server, end := redialtest.Pair(t)
		a := w.client(end)
		w.serve(server, peers["vm"])
		handOverUnsent(t, w, a)
	})
	t.Run("link", func(t *testing.T) {
		w := newWorld(t, nil)
		handOverUnsent(t, w, w.byLink(peers["vm"]))
	})
}

func handOverUnsent(t *testing.T, w *world, a *client) {
	value := strings.Repeat("0123456789abcdef", 1<<16)
	w.put("big", value)
	a.send(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 1 << 20, Version: "9P2000"})
	a.dialect = wire.Plain
	a.send(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "glenda"})
	a.send(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"keys", "big"}})
	a.send(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1})
	const reads = 20
	for i := range reads {
		a.send(&wire.Msg{Type: wire.Tread, Tag: uint16(i), Fid: 1, Count: 1 << 20})
	}
	w.until("replies that do not go out", func() bool { return w.budget.Stats().Used > 1<<20 })
	next := w.handOver()()
	a.resume()
	a.dialect = wire.None
	for _, want := range []wire.Type{wire.Rversion, wire.Rattach, wire.Rwalk, wire.Ropen} {
		if m := a.receive(); m == nil || m.Type != want {
			t.Fatalf("got %v, want %s", m, want)
		}
	}
	for i := range reads {
		m := a.receive()
		if m == nil || m.Type != wire.Rread || m.Tag != uint16(i) || string(m.Data) != value[:len(m.Data)] || len(m.Data) < 1<<19 {
			t.Fatalf("reply %d: %.100v", i, m)
		}
	}
	if n := next.server.Stats().Requests; n > reads {
		t.Errorf("%d requests were handled again", n)
	}
}

// TestHandOverLocks: who waits for a lock gets it when its holder gives it up, on the
// other side, and nobody else in between.
func TestHandOverLocks(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	var clients []*client
	for range 2 {
		c := w.dial("unix", peers["vm"])
		c.hello("9P2000.L")
		c.openFid(1, "keys", "color")
		clients = append(clients, c)
	}
	clients[0].do(tlock(1, p9.WriteLock, 0, 0), wire.Rlock)
	wait := tlock(1, p9.WriteLock, 0, 0)
	wait.Tag, wait.L.Flags = 5, uint32(p9.LockFlagsBlock)
	clients[1].send(wait)
	clients[1].do(&wire.Msg{Type: wire.Tflush, Tag: 3, Oldtag: 4}, wire.Rflush)
	w.handOver()()
	free := tlock(1, p9.Unlock, 0, 0)
	free.L.Flags = uint32(p9.LockFlagsBlock)
	clients[0].do(free, wire.Rlock)
	if m := clients[1].receive(); m == nil || m.Type != wire.Rlock || m.Tag != 5 || m.L.Status != p9.LockStatusOK {
		t.Errorf("who waits gets %v", m)
	}
}

// TestHandOverKinds: one that says nothing yet, one without an attach, one that has
// proved who it is by MUMBLE, one that was asked for its Tresume; a pipe has no
// descriptor and is closed, with its session kept.
func TestHandOverKinds(t *testing.T) {
	w := newWorld(t, nil)
	silent, begun, proved := w.dial("unix", peers["vm"]), w.dial("unix", peers["vm"]), w.dial("unix", peers["tcp"])
	begun.do(version(), wire.Rversion)
	proved.do(version(), wire.Rversion)
	proved.do(&wire.Msg{Type: wire.Tauth, Tag: 1, Afid: 9, Uname: "u"}, wire.Rauth)
	message := auth.Message{Time: uint32(time.Now().Unix()), Node: vmOne}
	message.Key[0] = 7
	data := []byte(message.Sign([]byte(secret)))
	proved.do(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 9, Count: uint32(len(data)), Data: data}, wire.Rwrite)
	proved.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "u"}, wire.Rattach)
	first := w.numbered(wire.EN, 1, nil)
	first.nc.Close()
	w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
	resuming := w.numbered(wire.EN, 1, first)
	pipe := w.dial("pipe", peers["vm2"])
	pipe.do(version(), wire.Rversion)
	pipe.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(2)}, wire.Rerror)
	pipe.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "u"}, wire.Rattach)
	next := w.handOver()()
	if pipe.receive() != nil {
		t.Error("what has no descriptor is not closed")
	}
	if st := next.server.Stats(); st.Conns != 4 || st.Parked != 1 || st.Sessions != 3 {
		t.Errorf("there are %+v", st)
	}
	silent.hello("9P2000.L")
	begun.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "u"}, wire.Rattach)
	proved.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"keys"}}, wire.Rwalk)
	proved.do(version(), wire.Rversion)
	proved.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "u"}, wire.Rattach)
	resuming.resume([]uint64{2}, wire.Unseen)
	resuming.walk(1, "keys")
}

// TestAdoptRefuses: what is no Handed ends its connection, and leaves nothing.
func TestAdoptRefuses(t *testing.T) {
	good := session.Handed{VM: vmOne, Resumes: true, Msize: 8192, Session: session.State{Version: session.StateVersion, VM: vmOne, Dialect: "9P2000", Key: make([]byte, wire.KeyLen)}}
	for what, change := range map[string]func(h *session.Handed){
		"another version":     func(h *session.Handed) { h.Session.Version++ },
		"an unknown dialect":  func(h *session.Handed) { h.Session.Dialect = "9P1066" },
		"a short key":         func(h *session.Handed) { h.Session.Key = nil },
		"an attach of nobody": func(h *session.Handed) { h.Attached, h.Session.VM = true, "" },
		"a fid without one":   func(h *session.Handed) { h.Session.Fids = []session.FidState{{Fid: 1, Node: &fs.NodeState{}}} },
	} {
		w := newWorld(t, nil)
		server, end := redialtest.Pair(t)
		bad := good
		change(&bad)
		if _, err := w.server.Adopt(server, bad); err == nil {
			t.Errorf("%s is taken", what)
		}
		if n, err := end.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: the connection is open", what)
		}
		end.Close()
		if n := w.server.Stats().Conns; n != 0 {
			t.Errorf("%s: %d connections", what, n)
		}
	}
}

// TestHandOverLate: a connection that comes when the others stand still goes after them.
func TestHandOverLate(t *testing.T) {
	w := newWorld(t, nil)
	server, end := redialtest.Pair(t)
	c := w.client(end)
	c.resume()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := w.server.HandOver(ctx); err != nil {
		t.Fatal(err)
	}
	w.server.Serve(server, peers["vm"])
	next := openWorld(t, w.disk.Clone(), nil)
	for nc, h := range w.server.Handed() {
		serve, err := next.server.Adopt(nc, sent(t, h))
		if err != nil {
			t.Fatal(err)
		}
		next.served.Go(func() { serve(nil) })
	}
	w.left = true
	c.hello("9P2000.L")
}

// TestHandOverLongFrame: of a frame that is longer than its type can use, and that was not
// handled yet, the rest is skipped by the process that handles it.
func TestHandOverLongFrame(t *testing.T) {
	w := newWorld(t, nil)
	a := w.dial("unix", peers["vm"])
	a.hello("9P2000")
	a.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1}, wire.Rwalk)
	clunk, err := wire.Append(nil, &wire.Msg{Type: wire.Tclunk, Tag: 2, Fid: 1}, wire.Plain)
	if err != nil {
		t.Fatal(err)
	}
	clunk[0] += 60
	w.passing = func(h *session.Handed) { h.Input = append(h.Input, clunk...) }
	w.handOver()()
	if m := a.receive(); m == nil || m.Type != wire.Rclunk {
		t.Fatalf("%v", m)
	}
	a.write(make([]byte, 60))
	a.do(&wire.Msg{Type: wire.Tstat, Tag: 3}, wire.Rstat)
}

// TestHandOverPutBack: a request that is handled once more is none that came after the
// last Tresume: what the client is still to name stays unseen, and its token good.
func TestHandOverPutBack(t *testing.T) {
	w := newWorld(t, nil)
	a := w.numbered(wire.EN2, 1, nil)
	a.walk(1, "events")
	a.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1}, wire.Ropen)
	read := a.ask(&wire.Msg{Type: wire.Tread, Tag: 8, Fid: 1, Count: 1000})
	a.settled()
	came := a.count
	a.nc.Close()
	b, m := w.back(a, came+3, 0, read, came+1, came+2, came+3) // which never came
	if m.Type != wire.Rresume || m.States[0] != wire.Running {
		t.Fatalf("%v", m)
	}
	next := w.handOver()()
	next.put("size", "xl")
	b.expect(wire.Rread, 8)
	if st := b.hangUp(next); st.Count != came || st.Tokens.Used {
		t.Errorf("%d have come, %d are counted: %+v", came, st.Count, st.Tokens)
	}
}

// TestHandOverAgain: what a process has not begun to handle of what it was handed is handed
// on as it came.
func TestHandOverAgain(t *testing.T) {
	w := newWorld(t, nil)
	a := w.numbered(wire.EN2, 1, nil)
	a.events(1, 8)
	a.settled()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := w.server.HandOver(ctx); err != nil {
		t.Fatal(err)
	}
	w.store.Stop()
	w.left = true
	next := openWorld(t, w.disk.Clone(), nil)
	const skip = 60
	for nc, h := range w.server.Handed() {
		h.Skip = skip
		if len(h.Counted) != 1 || len(h.Input) == 0 {
			t.Errorf("%+v", h)
		}
		readers := make(map[uint64]uint64)
		h.Session.Readers(readers)
		if err := w.tree.Tails(readers, next.store.RestoreTail); err != nil {
			t.Error(err)
		}
		serve, err := next.server.Adopt(nc, sent(t, h))
		if err != nil {
			t.Fatal(err)
		}
		other := next.server.WouldHand()
		if diff := cmp.Diff(h, other, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		next.served.Go(func() { serve(nil) })
	}
	a.write(make([]byte, skip))
	a.settled()
	next.put("size", "xl")
	a.expect(wire.Rread, 8)
}
