package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session/wire"
)

// elsewhere is a folder of whose files somebody else knows: every step asks, and waits
// for what the test answers.
type elsewhere struct {
	asked   chan string
	answers chan string
}

func newElsewhere(w *world) *elsewhere {
	e := &elsewhere{asked: make(chan string, 2000), answers: make(chan string)}
	w.tree.GraftRoot("slow", func(_ fs.Principal, v *fs.View) fs.Node { return &slowDir{e, v} })
	w.tree.GraftVM("slow", func(v *fs.View, _ *store.Cell) fs.Node { return &slowDir{e, v} }, false)
	w.t.Cleanup(func() { close(e.answers) })
	return e
}

func (e *elsewhere) ask(v *fs.View, what string) (string, error) {
	return fs.Ask(v, what, func() (string, error) {
		e.asked <- what
		answer, open := <-e.answers
		if !open || answer == "none" {
			return "", errs.NotFound
		}
		return answer, nil
	})
}

type slowDir struct {
	*elsewhere
	v *fs.View
}

func (*slowDir) QID() p9.QID { return p9.QID{Type: p9.TypeDir, Path: 1 << 61} }

func (d *slowDir) Stat(st *fs.Stat) error {
	*st = fs.Stat{QID: d.QID(), Mode: 0o755, Name: "slow"}
	return nil
}

func (d *slowDir) Walk(name string) (fs.Node, error) {
	if _, err := d.ask(d.v, "walk "+name); err != nil {
		return nil, err
	}
	return &slowFile{d, name}, nil
}

func (d *slowDir) List(after uint64, fn func(uint64, *fs.Stat) bool) error {
	name, err := d.ask(d.v, "list")
	f := slowFile{d, name}
	if err == nil && after < 1 {
		st := fs.Stat{QID: f.QID(), Mode: 0o600, Name: name}
		fn(1, &st)
	}
	return err
}

type slowFile struct {
	*slowDir
	name string
}

func (f *slowFile) QID() p9.QID { return p9.QID{Path: 1<<61 + 1} }

func (f *slowFile) Stat(st *fs.Stat) error {
	length, err := f.ask(f.v, "stat "+f.name)
	*st = fs.Stat{QID: f.QID(), Mode: 0o600, Name: f.name, Length: uint64(len(length))}
	return err
}

func (f *slowFile) AppendValue(b []byte, most int) ([]byte, error) {
	value, err := f.ask(f.v, "value "+f.name)
	if len(value) > most {
		return b, errs.Big(len(value), most)
	}
	return append(b, value...), err
}

func (f *slowFile) Open(fs.Flags) (fs.Handle, error) {
	if _, err := f.ask(f.v, "open "+f.name); err != nil {
		return nil, err
	}
	return &slowHandle{f: f}, nil
}

type slowHandle struct {
	fs.Handle
	f *slowFile
}

func (h *slowHandle) Read(p []byte, _ uint64) (int, error) {
	value, err := h.f.ask(h.f.v, "read "+h.f.name)
	return copy(p, value), err
}

func (*slowHandle) Drop() {}

func (*slowHandle) State() fs.HandleState { return fs.HandleState{Flags: fs.Read} }

// TestPending: whatever somebody else has to be asked for, the connection's other
// requests are answered at once, Tflush among them, and the answer comes when it comes.
func TestPending(t *testing.T) {
	for _, version := range []string{"9P2000.e", "9P2000.e.n"} {
		w := newWorld(t, nil)
		e := newElsewhere(w)
		w.put("color", "blue")
		c := w.dial("unix", peers["admin"])
		c.hello(version)
		c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 5, Names: []string{"slow"}}, wire.Rwalk)
		c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 5}, wire.Ropen)
		color := []string{"vms", vmOne, "keys", "color"}
		for _, tt := range []struct {
			m       *wire.Msg
			asks    string
			answers []string
			want    wire.Msg // of the reply
		}{
			{&wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"slow", "f"}}, "walk f", []string{"yes"}, wire.Msg{Type: wire.Rwalk}},
			{&wire.Msg{Type: wire.Twalk, Newfid: 2, Names: []string{"slow", "g"}}, "walk g", []string{"none"}, wire.Msg{Type: wire.Rwalk}},
			{&wire.Msg{Type: wire.Tstat, Fid: 1}, "stat f", []string{"four"}, wire.Msg{Type: wire.Rstat}},
			{&wire.Msg{Type: wire.Topen, Fid: 1}, "open f", []string{"yes"}, wire.Msg{Type: wire.Ropen}},
			{&wire.Msg{Type: wire.Tread, Fid: 1, Count: 100}, "read f", []string{"some"}, wire.Msg{Type: wire.Rread, Data: []byte("some")}},
			{&wire.Msg{Type: wire.Tread, Fid: 1, Count: 100}, "read f", []string{"none"}, wire.Msg{Type: wire.Rerror, Ename: errs.NotFound.Text()}},
			{&wire.Msg{Type: wire.Tread, Fid: 5, Count: 1000}, "list", []string{"f"}, wire.Msg{Type: wire.Rread}},
			{&wire.Msg{Type: wire.Tsread, Names: []string{"slow", "f"}}, "walk f", []string{"yes", "whole"}, wire.Msg{Type: wire.Rsread, Data: []byte("whole")}},
			{&wire.Msg{Type: wire.Tattach, Fid: 8, Afid: wire.NoFid, Aname: "slow/f", NUname: wire.NoUID}, "walk f", []string{"yes"}, wire.Msg{Type: wire.Rerror, Ename: errs.NotDir.Text()}},
		} {
			for _, flushed := range []bool{true, false} {
				tt.m.Tag = 7
				c.send(tt.m)
				if got := <-e.asked; got != tt.asks {
					t.Fatalf("%s: %q is asked, want %q", tt.m, got, tt.asks)
				}
				got := c.do(&wire.Msg{Type: wire.Tsread, Tag: 2, Names: color}, wire.Rsread)
				if string(got.Data) != "blue" {
					t.Fatalf("%s: meanwhile %q", tt.m, got.Data)
				}
				if flushed {
					c.do(&wire.Msg{Type: wire.Tflush, Tag: 3, Oldtag: 7}, wire.Rflush)
					e.answers <- "none"
					continue
				}
				for i, answer := range tt.answers {
					if i > 0 {
						<-e.asked
					}
					e.answers <- answer
				}
				reply := c.receive()
				tt.want.Tag = 7
				if reply.Type != tt.want.Type || reply.Tag != 7 || reply.Ename != tt.want.Ename {
					t.Errorf("%s: %s", tt.m, reply)
				}
				if tt.want.Data != nil && !cmp.Equal(reply.Data, tt.want.Data) {
					t.Errorf("%s: %q", tt.m, reply.Data)
				}
			}
		}
		if len(c.frames) > 0 {
			t.Errorf("%d replies more", len(c.frames))
		}
	}
}

// TestPendingIsCarried: what waits when the transport is lost is answered on the next.
func TestPendingIsCarried(t *testing.T) {
	w := newWorld(t, nil)
	e := newElsewhere(w)
	begin := func(back bool) *client {
		c := w.dial("unix", peers["admin"])
		c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: "9P2000.e.n"}, wire.Rversion)
		session := &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}
		if back {
			c.do(session, wire.Rsession)
			return c
		}
		c.do(session, wire.Rerror)
		c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, NUname: wire.NoUID}, wire.Rattach)
		return c
	}
	c := begin(false)
	c.send(&wire.Msg{Type: wire.Twalk, Tag: 7, Newfid: 1, Names: []string{"slow", "f"}})
	<-e.asked
	c.nc.Close()
	w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
	c = begin(true)
	if r := c.do(&wire.Msg{Type: wire.Tresume, Tag: wire.NoTag, Numbers: []uint64{2}}, wire.Rresume); r.States[0] != wire.Running {
		t.Errorf("state %d", r.States[0])
	}
	e.answers <- "yes"
	if r := c.receive(); r.Type != wire.Rwalk || r.Tag != 7 || len(r.QIDs) != 2 {
		t.Errorf("%s", r)
	}
}

// TestPendingIsBounded: so many steps wait, and no more.
func TestPendingIsBounded(t *testing.T) {
	w := newWorld(t, nil)
	newElsewhere(w)
	c := w.dial("unix", peers["admin"])
	c.hello("9P2000")
	for tag := range uint16(1000) {
		c.send(&wire.Msg{Type: wire.Twalk, Tag: 10 + tag, Newfid: 10 + uint32(tag), Names: []string{"slow", "f"}})
		if tag > 0 && len(c.frames) > 0 {
			break
		}
	}
	if r := c.receive(); r.Type != wire.Rerror || r.Ename != errs.Quota.Text() {
		t.Errorf("%s", r)
	}
}

// TestPendingThenRoom: what somebody else has answered may have no room at once. It waits for
// that, too.
func TestPendingThenRoom(t *testing.T) {
	const share = 8 << 20
	w := shareOf(t, share, time.Minute)
	e := newElsewhere(w)
	c := w.wide("vm", "9P2000.e")
	undo := w.fill(t, share, large/2)
	value := strings.Repeat("v", large)
	c.send(sread(10, "slow", "a"))
	for _, answer := range []string{"there", value} {
		<-e.asked
		e.answers <- answer
	}
	w.until("a reply that waits for room", func() bool { return w.budget.Stats().Waiting == 1 })
	undo()
	if r := c.receive(); r.Type != wire.Rsread || string(r.Data) != value {
		t.Errorf("%s", r.Type)
	}
}
