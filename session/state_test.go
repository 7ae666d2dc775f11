package session_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/session"
	"meta9/session/wire"
)

// parkOne leaves one parked session of the first VM that has a fid of every kind:
// 0 the root, 1 a truncation that is held, 2 a file half read, 3 a folder half
// read, 4 events read once, 5 an auth fid, 6 a file to be removed when clunked, 7
// a key that is not open, 8 and 9 files half read that were replaced: a State has room for
// one of these values.
func parkOne(w *world) session.State {
	w.put("color", "blue")
	w.put("size", "large")
	w.put("temp", "x")
	a := w.dial("unix", peers["vm"])
	a.do(version(), wire.Rversion)
	a.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rerror)
	a.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, Uname: "glenda"}, wire.Rattach)
	walk := func(fid uint32, names ...string) {
		a.do(&wire.Msg{Type: wire.Twalk, Newfid: fid, Names: names}, wire.Rwalk)
	}
	open := func(fid uint32, mode uint8, names ...string) {
		walk(fid, names...)
		a.do(&wire.Msg{Type: wire.Topen, Fid: fid, Mode: mode}, wire.Ropen)
	}
	open(1, wire.OWrite|wire.OTrunc, "keys", "color")
	open(2, wire.ORead, "keys", "size")
	open(3, wire.ORead, "keys")
	open(4, wire.ORead, "events")
	a.do(&wire.Msg{Type: wire.Tauth, Afid: 5}, wire.Rauth)
	open(6, wire.ORead|wire.ORclose, "keys", "temp")
	walk(7, "keys", "size")
	for i, name := range []string{"long", "longer"} {
		w.put(name, strings.Repeat("o", fs.MaxOld*2/3))
		open(uint32(8+i), wire.ORead, "keys", name)
		w.put(name, "new")
	}
	w.put("size", "LARGE")
	for _, m := range []*wire.Msg{
		{Type: wire.Tread, Fid: 2, Count: 2}, {Type: wire.Tread, Fid: 3, Count: 70}, {Type: wire.Tread, Fid: 4, Count: 20},
	} {
		a.do(m, wire.Rread)
	}
	a.nc.Close()
	w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
	return slices.Collect(w.server.States())[0]
}

// TestStateRoundTrip: a parked session goes through JSON to another server over a
// copy of the store, and is the same there.
func TestStateRoundTrip(t *testing.T) {
	w := newWorld(t, nil)
	st := parkOne(w)
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	var moved session.State
	if err := json.Unmarshal(text, &moved); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(st, moved, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("through JSON: %s", diff)
	}
	other := openWorld(t, w.disk.Clone(), nil)
	if err := other.server.Restore(moved); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]session.State{st}, slices.Collect(other.server.States()), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("restored: %s", diff)
	}
	resumeOne(other)
}

// resumeOne goes on with what parkOne has left.
func resumeOne(w *world) {
	w.t.Helper()
	b := w.dial("pipe", peers["vm"])
	b.do(version(), wire.Rversion)
	b.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rsession)
	read := func(fid uint32, off uint64, want string) {
		w.t.Helper()
		if m := b.do(&wire.Msg{Type: wire.Tread, Fid: fid, Offset: off, Count: 1000}, wire.Rread); !strings.Contains(string(m.Data), want) {
			w.t.Errorf("fid %d at %d: %q, want %q", fid, off, m.Data, want)
		}
	}
	if m := b.do(&wire.Msg{Type: wire.Tstat, Fid: 1}, wire.Rstat); m.Dir.Length != 0 || w.value("color") != "blue" {
		w.t.Errorf("the held truncation: length %d, %q outside", m.Dir.Length, w.value("color"))
	}
	read(2, 2, "RGE")
	var read89 []string
	for _, fid := range []uint32{8, 9} {
		read89 = append(read89, string(b.do(&wire.Msg{Type: wire.Tread, Fid: fid, Offset: 1, Count: 2}, wire.Rread).Data))
	}
	if slices.Sort(read89); !slices.Equal(read89, []string{"ew", "oo"}) {
		w.t.Errorf("of two values that were half read there are %q", read89)
	}
	read(3, 67, "@\x00")            // the next record
	read(4, 0, `{"rev":`)           // what was given last, once more
	read(4, 20, `"type":"key-set"`) // the rest of its line
	b.do(&wire.Msg{Type: wire.Twrite, Fid: 1, Data: []byte("red")}, wire.Rwrite)
	b.do(&wire.Msg{Type: wire.Tclunk, Fid: 6}, wire.Rclunk)
	b.do(&wire.Msg{Type: wire.Tclunk, Fid: 5}, wire.Rclunk)
	if m := b.do(&wire.Msg{Type: wire.Tsread, Fid: 7}, wire.Rsread); string(m.Data) != "LARGE" {
		w.t.Errorf("fid 7: %q", m.Data)
	}
	if w.value("color") != "red" || w.value("temp") != "-" {
		w.t.Errorf("color %q temp %q", w.value("color"), w.value("temp"))
	}
}

// TestRestoreGone: what is gone meanwhile is an error on the fids that were there,
// and on no other.
func TestRestoreGone(t *testing.T) {
	w := newWorld(t, nil)
	st := parkOne(w)
	other := openWorld(t, w.disk.Clone(), nil)
	other.do(&store.Intent{Kind: store.Remove, Cell: other.store.Cell(vmOne), Name: "color", By: "admin"})
	if err := other.server.Restore(st); err != nil {
		t.Fatal(err)
	}
	b := other.dial("pipe", peers["vm"])
	b.do(version(), wire.Rversion)
	b.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rsession)
	for _, m := range []*wire.Msg{
		{Type: wire.Twrite, Fid: 1, Data: []byte("red")}, {Type: wire.Tstat, Fid: 1},
	} {
		if r := b.do(m, wire.Rerror); r.Ename != "file has been removed" {
			t.Errorf("%s: %s", m, r)
		}
	}
	b.do(&wire.Msg{Type: wire.Tclunk, Fid: 1}, wire.Rclunk)
	b.do(&wire.Msg{Type: wire.Tread, Fid: 2, Offset: 1, Count: 10}, wire.Rread)
	if got := other.value("color"); got != "-" {
		t.Errorf("color is %q", got)
	}
}

// TestRestoreRefuses: what is no State is an error, and nothing is parked.
func TestRestoreRefuses(t *testing.T) {
	w := newWorld(t, nil)
	st := parkOne(w)
	node := *st.Fids[0].Node
	node.Path = make([]string, 1000)
	locked := func(fid int, l session.LockState) func(s *session.State) {
		return func(s *session.State) {
			s.Fids = append([]session.FidState{}, s.Fids...)
			s.Fids[fid].Locks = []session.LockState{l}
		}
	}
	for name, change := range map[string]func(s *session.State){
		"version":   func(s *session.State) { s.Version++ },
		"nobody":    func(s *session.State) { s.VM = "" },
		"dialect":   func(s *session.State) { s.Dialect = "9P1999" },
		"short key": func(s *session.State) { s.Key = s.Key[:7] },
		"long key":  func(s *session.State) { s.Key = append([]byte{1}, s.Key...) },
		"zero key":  func(s *session.State) { s.Key = make([]byte, 8) },
		"no place":  func(s *session.State) { s.Fids = []session.FidState{{Fid: 1}} },
		"far place": func(s *session.State) { s.Fids = []session.FidState{{Fid: 1, Node: &node}} },
		"many fids": func(s *session.State) { s.Fids = make([]session.FidState, 5000) },
		"no range":  locked(1, session.LockState{From: 2, To: 1}),
		"not open":  locked(7, session.LockState{To: 1}),
		"long name": locked(1, session.LockState{To: 1, Client: []byte(strings.Repeat("h", 256))}),
	} {
		bad := st
		change(&bad)
		if err := w.server.Restore(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if n := w.server.Stats().Parked; n != 1 {
		t.Errorf("%d are parked", n)
	}
	// A session of a VM that is gone is nothing, but no error.
	gone := st
	gone.VM = "550e8400-e29b-41d4-a716-44665544ffff"
	if err := w.server.Restore(gone); err != nil {
		t.Error(err)
	}
	// The same key again: the newest is the one that it leads to.
	if err := w.server.Restore(st); err != nil {
		t.Error(err)
	}
	if n := w.server.Stats().Parked; n != 2 {
		t.Errorf("%d are parked", n)
	}
}

// TestRestoreLeaving: a session that has as many fids as it may is restored with those whose
// clunks were under way, too.
func TestRestoreLeaving(t *testing.T) {
	w := newWorld(t, nil)
	st := parkOne(w)
	limits := session.Limits{Fids: len(st.Fids) - 2, Waiting: 1}
	other := openWorld(t, w.disk.Clone(), func(cfg *session.Config) { cfg.Limits = limits })
	if err := other.server.Restore(st); err != nil {
		t.Error(err)
	}
	limits.Fids--
	other = openWorld(t, w.disk.Clone(), func(cfg *session.Config) { cfg.Limits = limits })
	if err := other.server.Restore(st); err == nil {
		t.Error("one with more fids is taken")
	}
}
