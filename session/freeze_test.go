package session_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"meta9/fs/store"
	"meta9/session/wire"
)

// freeze begins to freeze the server and gives a function that awaits the end.
func (w *world) freeze() (frozen func()) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	ended := make(chan error, 1)
	go func() { ended <- w.server.Freeze(ctx) }()
	return func() {
		w.t.Helper()
		defer cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("freeze: %v", err)
		}
	}
}

// restart is another server over what the disk has, with what this one has kept.
func (w *world) restart() *world {
	w.t.Helper()
	other := openWorld(w.t, w.disk.Clone(), nil)
	for st := range w.server.States() {
		if err := other.server.Restore(moved(w.t, st)); err != nil {
			w.t.Error(err)
		}
	}
	return other
}

// events opens the first VM's events as a fid and lets a read of it wait, under a tag.
func (n *numbered) events(fid uint32, tag uint16) (number uint64) {
	n.t.Helper()
	n.walk(fid, "events")
	if n.d.IsL() {
		n.lopen(fid, 0)
	} else {
		n.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: fid}, wire.Ropen)
	}
	return n.ask(&wire.Msg{Type: wire.Tread, Tag: tag, Fid: fid, Count: 1000})
}

// TestFreeze: what was begun is done, and its reply kept for the next process, whether
// its connection is still there or was lost before; what blocks is asked anew.
func TestFreeze(t *testing.T) {
	for _, d := range []wire.Dialect{wire.EN, wire.LE} {
		for _, lost := range []bool{false, true} {
			w := newWorld(t, nil)
			w.put("color", "blue")
			a := w.numbered(d, 1, nil)
			read := a.events(2, 8)
			write, release := a.begin(w)
			if a.settled(); lost {
				a.hangUp(w)
			}
			frozen := w.freeze()
			release()
			frozen()
			b := w.restart().numbered(d, 1, a)
			b.resume([]uint64{read, write, b.count + 1}, wire.Answered, wire.Answered, wire.Unseen)
			b.expect(wire.Rwrite, 7)
			b.settled() // no more than that
			if got := w.value("color"); got != "rede" {
				t.Errorf("%s, lost %v: color is %q", d, lost, got)
			}
		}
	}
}

// TestFreezeKeepsFids: a session without numbers is kept as well, with what it holds.
func TestFreezeKeepsFids(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	a := w.dial("unix", peers["vm"])
	a.do(version(), wire.Rversion)
	a.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rerror)
	a.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, Uname: "glenda"}, wire.Rattach)
	a.do(&wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys", "color"}}, wire.Rwalk)
	a.do(&wire.Msg{Type: wire.Topen, Fid: 1, Mode: wire.OWrite | wire.OTrunc}, wire.Ropen)
	other := w.dial("unix", peers["vm2"]) // it has no key, and so no session to be kept
	other.hello("9P2000.e")
	w.freeze()()
	if a.receive() != nil || other.receive() != nil {
		t.Error("a connection is not closed")
	}
	next := w.restart()
	if n := next.server.Stats().Parked; n != 1 {
		t.Errorf("%d sessions were kept", n)
	}
	b := next.dial("unix", peers["vm"])
	b.do(version(), wire.Rversion)
	b.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rsession)
	b.do(&wire.Msg{Type: wire.Twrite, Fid: 1, Data: []byte("red")}, wire.Rwrite)
	if got := next.value("color"); got != "red" {
		t.Errorf("color is %q", got)
	}
}

// TestFreezeRefusesNobody: who asks for his session while the server freezes must not
// hear that it is lost. He is hung up on, and asks the next process.
func TestFreezeRefusesNobody(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	a := w.dial("unix", peers["vm"])
	a.do(version(), wire.Rversion)
	a.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rerror)
	a.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, Uname: "glenda"}, wire.Rattach)
	a.do(&wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys", "color"}}, wire.Rwalk)
	a.do(&wire.Msg{Type: wire.Topen, Fid: 1, Mode: wire.OWrite}, wire.Ropen)
	_, release := w.engine.Block()
	a.send(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Data: []byte("red")})
	w.until("the write", func() bool { return w.server.Stats().Requests == 6 })
	b := w.dial("unix", peers["vm"])
	b.do(version(), wire.Rversion)
	b.send(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)})
	w.until("the claim", func() bool { return w.server.Claims() == 1 })
	frozen := w.freeze()
	if m := b.receive(); m != nil {
		t.Errorf("told %s", m)
	}
	release()
	frozen()
	if n := len(slices.Collect(w.server.States())); n != 1 {
		t.Errorf("%d sessions were kept", n)
	}
}

// TestTails: an events file that is restored together with its ring's tail goes on
// without a gap and without a line that says so, and wakes for what comes.
func TestTails(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	a := w.numbered(wire.EN, 1, nil)
	a.events(2, 8)
	w.put("color", "red")
	text := string(a.expect(wire.Rread, 8).Data)
	w.put("color", "green")
	w.freeze()()
	w.store.Stop()

	readers := make(map[uint64]uint64)
	for st := range w.server.States() {
		st.Readers(readers)
	}
	other := openWorld(t, w.disk.Clone(), nil)
	tails := 0
	err := w.tree.Tails(readers, func(tail store.Tail) error {
		tails++
		return other.store.RestoreTail(tail)
	})
	if err != nil || tails != 1 {
		t.Fatalf("%d tails, %v", tails, err)
	}
	for st := range w.server.States() {
		if err := other.server.Restore(moved(t, st)); err != nil {
			t.Fatal(err)
		}
	}
	b := other.numbered(wire.EN, 1, a)
	b.resume(nil)
	read := func() { b.ask(&wire.Msg{Type: wire.Tread, Tag: 8, Fid: 2, Offset: uint64(len(text)), Count: 1000}) }
	read()
	text += string(b.expect(wire.Rread, 8).Data)
	read()
	b.settled() // it waits
	other.put("color", "black")
	text += string(b.expect(wire.Rread, 8).Data)
	if lines := strings.Split(text, "\n"); len(lines) != 4 || strings.Contains(text, "lost") || strings.Count(text, `"key-set"`) != 3 {
		t.Errorf("the reader got\n%s", text)
	}
}

// TestComesAtTheEnd: who connects while the server stops is hung up on, and comes again. The
// log has nothing of it: there is nothing to mend.
func TestComesAtTheEnd(t *testing.T) {
	w := newWorld(t, nil)
	w.freeze()()
	if m := w.dial("unix", peers["vm"]).receive(); m != nil {
		t.Errorf("served: %s", m)
	}
	if n := w.server.Stats().Refused; n != 1 {
		t.Errorf("%d are counted as refused", n)
	}
	if log := w.log.String(); log != "" {
		t.Errorf("log: %s", log)
	}
}
