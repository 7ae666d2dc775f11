package residence_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/session"
	"meta9/session/residence"
	"meta9/session/wire"
)

// journal is a journal in a run folder of its own, of a world that it was begun for.
type journal struct {
	*world
	*residence.Journal
	run string
}

func openJournal(t testing.TB, run string) *residence.Journal {
	j, err := residence.OpenJournal(run, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func newJournal(t testing.TB) *journal { return newJournalBy(t, nil) }

// newJournalBy is newJournal where the world knows the journal by what by makes of it.
func newJournalBy(t testing.TB, by func(*residence.Journal) books) *journal {
	return newJournalOf(t, by, nil)
}

// newJournalOf is newJournalBy of a fleet's host, whose VMs stay so.
func newJournalOf(t testing.TB, by func(*residence.Journal) books, stays residence.Stays) *journal {
	run := t.TempDir()
	j := &journal{run: run, Journal: openJournal(t, run)}
	t.Cleanup(func() {
		if err := j.End(true); err != nil {
			t.Error(err)
		}
	})
	known := books(j.Journal)
	if by != nil {
		known = by(j.Journal)
	}
	j.world = newWorldWith(t, known)
	j.stays = stays
	j.numbered = [2]wire.Dialect{wire.EN2, wire.LE2}
	if err := j.Begin(j.place(), j.server, j.tree); err != nil {
		t.Fatal(err)
	}
	return j
}

// place is where the world's journal would be begun now.
func (w *world) place() residence.Place {
	return residence.Place{
		Home: residence.Home{Folder: home.Folder, Number: w.disk.Number("")}, Boot: "boot", Rev: w.store.Rev(),
		Stays: w.stays,
	}
}

// killed is what a kill would leave now: the run folder, and a world on the disk.
func (j *journal) killed() (run string, w *world) {
	j.TB.Helper()
	for try := 0; ; try++ {
		run = j.TB.TempDir()
		err := os.CopyFS(filepath.Join(run, residence.JournalName), os.DirFS(filepath.Join(j.run, residence.JournalName)))
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || try == 100 { // an older segment has just gone
			j.TB.Fatal(err)
		}
	}
	modes(j.TB, run)
	return run, openWorld(j.TB, j.disk.Clone())
}

// modes makes the copy of a journal its owner's alone.
func modes(t testing.TB, run string) {
	if err := filepath.WalkDir(filepath.Join(run, residence.JournalName), func(path string, e os.DirEntry, err error) error {
		mode := os.FileMode(0o600)
		if e.IsDir() {
			mode = 0o700
		}
		if err == nil {
			err = os.Chmod(path, mode)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func restoreJournal(t testing.TB, run string, w *world, p residence.Place) residence.Report {
	t.Helper()
	j := openJournal(t, run)
	defer j.End(false)
	r, err := j.Restore(p, w.server, w.tree)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// journalled is what a journal has of states: no old values, since it is not told of reads.
func journalled(states []session.State) []session.State {
	for _, st := range states {
		for _, f := range st.Fids {
			if f.Handle != nil && f.Handle.Old != nil {
				f.Handle.Old, f.Handle.Rev = nil, 0
			}
		}
	}
	return states
}

// TestJournal: what a kill leaves is what the clients left, and what a stop leaves.
func TestJournal(t *testing.T) {
	j := newJournal(t)
	j.work()
	for path, want := range map[string]os.FileMode{"": 0o700, "000000000001": 0o600, "../journal.lock": 0o600} { // it has keys in it
		if info, err := os.Stat(filepath.Join(j.run, residence.JournalName, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	run, w := j.killed()
	if r := restoreJournal(t, run, w, w.place()); r != (residence.Report{Sessions: 3}) {
		t.Fatalf("%+v", r)
	}
	got := w.states()
	for i := range got {
		if got[i].Undone != got[i].Count {
			t.Errorf("%d requests have come, %d are known", got[i].Count, got[i].Undone)
		}
		got[i].Undone = 0
	}
	j.freeze()
	want := journalled(j.states())
	if d := diff(want, got); d != "" {
		t.Error(d)
	}
	for _, fid := range got[0].Fids {
		if fid.Fid == 3 && fid.Handle.Rev == 0 {
			t.Errorf("the reader of events: %+v", fid.Handle)
		}
	}
}

// TestJournalAnew: a journal that was begun on what was restored has it.
func TestJournalAnew(t *testing.T) {
	j := newJournal(t)
	j.work()
	run, w := j.killed()
	next := openJournal(t, run)
	second := openWorldWith(t, w.disk.Clone(), next)
	if r, err := next.Restore(second.place(), second.server, second.tree); r.Sessions != 3 || err != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := next.Begin(second.place(), second.server, second.tree); err != nil {
		t.Fatal(err)
	}
	want := second.states()
	if err := next.End(false); err != nil {
		t.Fatal(err)
	}
	if r := restoreJournal(t, run, w, w.place()); r != (residence.Report{Sessions: 3}) {
		t.Fatalf("%+v", r)
	}
	if d := diff(want, w.states()); d != "" {
		t.Error(d)
	}
}

// TestJournalThawed: sessions that are frozen, to go to another host, are in the journal until
// they have gone, and when they stay after all; and so are those that come from another host.
func TestJournalThawed(t *testing.T) {
	j := newJournal(t)
	j.work()
	kept := func(when string, want int) {
		t.Helper()
		run, w := j.killed()
		if r := restoreJournal(t, run, w, w.place()); r != (residence.Report{Sessions: want}) {
			t.Errorf("%s: %+v, want %d sessions", when, r, want)
		}
	}
	freeze := func() *session.Frozen {
		t.Helper()
		f, err := j.server.FreezeVM(t.Context(), vmUUID)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := freeze()
	kept("frozen", 3)
	f.Thaw()
	kept("thawed", 3)
	f = freeze()
	came := slices.Collect(f.States())
	f.End()
	kept("gone", 0)
	for _, st := range came {
		if err := j.server.Restore(st); err != nil {
			t.Fatal(err)
		}
	}
	kept("come", 3)
}

// thawing is a journal that stops before the record of a session is removed.
type thawing struct {
	*residence.Journal
	gone func()
}

func (j *thawing) Gone(id uint64) {
	if gone := j.gone; gone != nil {
		j.gone = nil
		gone()
	}
	j.Journal.Gone(id)
}

// TestJournalThawing: a kill when sessions that stay after all are in the journal again, and
// their old records are there still. Each is restored once, as it is, with its locks.
func TestJournalThawing(t *testing.T) {
	h := new(thawing)
	j := newJournalBy(t, func(j *residence.Journal) books { h.Journal = j; return h })
	j.work()
	f, err := j.server.FreezeVM(t.Context(), vmUUID)
	if err != nil {
		t.Fatal(err)
	}
	var run string
	var w *world
	h.gone = func() { run, w = j.killed() }
	f.Thaw()
	if w == nil {
		t.Fatal("no record was removed")
	}
	if r := restoreJournal(t, run, w, w.place()); r != (residence.Report{Sessions: 3}) {
		t.Errorf("%+v", r)
	}
	got := w.states()
	for i := range got {
		got[i].Undone = 0
	}
	if d := diff(journalled(j.states()), got); d != "" {
		t.Error(d)
	}
}

// TestJournalForeign: a journal of another boot, folder, version or time, or that others could
// read or have made, is set aside as it is, and says why. So is it where the sessions are known
// otherwise (Spare), but for one that is only older.
func TestJournalForeign(t *testing.T) {
	j := newJournal(t)
	j.work()
	const first = "000000000001"
	head := func(dir, text string) error {
		f, err := os.OpenFile(filepath.Join(dir, first), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte(text), 0)
		return errors.Join(err, f.Close())
	}
	// elsewhere moves a file or a folder, and leaves a link to it.
	elsewhere := func(path, to string) error { return errors.Join(os.Rename(path, to), os.Symlink(to, path)) }
	for _, c := range []struct {
		why  string
		spot func(p *residence.Place, dir string) error
	}{
		{"another boot", func(p *residence.Place, _ string) error { p.Boot = "other"; return nil }},
		{"another data folder", func(p *residence.Place, _ string) error { p.Folder[0]++; return nil }},
		{"served since", func(p *residence.Place, _ string) error { p.Number++; return nil }},
		{"an older folder was put back", func(p *residence.Place, _ string) error { p.Number -= 2; return nil }},
		{"its format \"2\" is not known", func(_ *residence.Place, dir string) error { return head(dir, "meta9 journal 2\n") }},
		{"is no journal of meta9's", func(_ *residence.Place, dir string) error { return head(dir, "something of mine") }},
		{"is none of its files", func(_ *residence.Place, dir string) error {
			return os.WriteFile(filepath.Join(dir, "x"), nil, 0o600)
		}},
		{"is missing", func(_ *residence.Place, dir string) error {
			return os.WriteFile(filepath.Join(dir, "000000000003"), nil, 0o600)
		}},
		{"others may have read", func(_ *residence.Place, dir string) error { return os.Chmod(filepath.Join(dir, first), 0o640) }},
		{"user 65534 owns it", func(_ *residence.Place, dir string) error { return os.Chown(filepath.Join(dir, first), 65534, 65534) }},
		{"meta9d's alone", func(_ *residence.Place, dir string) error { return os.Chmod(dir, 0o755) }},
		{"is no folder of meta9d's alone", func(_ *residence.Place, dir string) error { return os.Chown(dir, 65534, 65534) }},
		{"is no folder", func(_ *residence.Place, dir string) error { return elsewhere(dir, dir+".x") }},
		{"is no folder of", func(_ *residence.Place, dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
		}},
		{"is a symbolic link", func(_ *residence.Place, dir string) error {
			return elsewhere(filepath.Join(dir, first), dir+".x")
		}},
		{"bytes, not", func(_ *residence.Place, dir string) error { return os.Truncate(filepath.Join(dir, first), 4096) }},
	} {
		for _, spare := range []bool{false, true} {
			run, w := j.killed()
			p, dir := w.place(), filepath.Join(run, residence.JournalName)
			if err := c.spot(&p, dir); errors.Is(err, os.ErrPermission) {
				continue // only root can give it away
			} else if err != nil {
				t.Fatal(err)
			}
			was, err := os.Lstat(dir)
			if err != nil {
				t.Fatal(err)
			}
			var r residence.Report
			if next := openJournal(t, run); spare {
				r, err = next.Spare(p)
				err = errors.Join(err, next.End(false))
			} else {
				r, err = next.Restore(p, w.server, w.tree)
				err = errors.Join(err, next.End(false))
			}
			if err != nil {
				t.Fatal(err)
			}
			at := dir + ".aside"
			if older := p.Number != w.place().Number; older && spare {
				if at = dir; r != (residence.Report{}) {
					t.Errorf("%s, known otherwise: %+v", c.why, r)
				}
			} else if r.Sessions != 0 || !strings.Contains(r.Why, c.why) || r.Aside != at {
				t.Errorf("%s, known otherwise %v: %+v", c.why, spare, r)
			}
			if is, err := os.Lstat(at); err != nil || !os.SameFile(is, was) {
				t.Errorf("%s: it is not at %s: %v", c.why, at, err)
			}
			if _, err := os.Lstat(dir); err == nil && at != dir {
				t.Errorf("%s: it is there still", c.why)
			}
		}
	}
}

// TestJournalUndone: the batch that was under way at a kill is not in the engine. Its
// events are not told.
func TestJournalUndone(t *testing.T) {
	j := newJournal(t)
	j.work()
	before := j.disk.Clone()
	j.put("temp", "high")
	run, _ := j.killed()
	w := openWorld(t, before)
	if r := restoreJournal(t, run, w, w.place()); r != (residence.Report{Sessions: 3}) {
		t.Fatalf("%+v", r)
	}
	tail := w.store.Cell(vmUUID).Ring()
	if events, _ := tail.After(0, 0, nil); len(events) == 0 || events[len(events)-1].Key != "size" {
		t.Errorf("the newest event is of %q, want size", events[len(events)-1].Key)
	}
}

// stays is a fleet's host that has had the VM before.
type stays struct {
	stay, number uint64
	gone         bool
}

func (s stays) Stay(string) uint64 { return s.stay }

func (s stays) Before(vm string, stay uint64) (number uint64, newest bool) {
	return s.number, vm == vmUUID && !s.gone && stay == s.stay
}

// TestJournalStays: at a fleet's host the sessions of a VM are restored if it was nobody else's
// since, and what was under way as the VM's own number says.
func TestJournalStays(t *testing.T) {
	j := newJournalOf(t, nil, stays{stay: 5})
	j.work()
	if m := j.dial(wire.E, 9, "glenda").do(&wire.Msg{Type: wire.Tclunk, Fid: 99}); m.Type != wire.Rerror {
		t.Fatal(m)
	}
	j.put("temp", "high")
	newest := j.disk.Number(vmUUID)
	for name, c := range map[string]struct {
		is       stays
		sessions int
		event    string
		why      string
	}{
		"as it was":        {stays{stay: 5, number: newest}, 4, "temp", ""},
		"not done":         {stays{stay: 5, number: newest - 1}, 4, "size", ""},
		"elsewhere":        {stays{stay: 6, number: newest}, 0, "", "another host's"},
		"another's":        {stays{stay: 5, number: newest, gone: true}, 0, "", "another host's"},
		"it has come anew": {stays{stay: 5, number: newest + 9}, 4, "temp", ""},
	} {
		run, w := j.killed()
		w.stays = c.is
		r := restoreJournal(t, run, w, w.place())
		if r.Sessions != c.sessions || r.Sessions+r.Lost != 4 || !strings.Contains(r.Why, c.why) || r.Aside != "" {
			t.Errorf("%s: %+v", name, r)
		}
		if c.event == "" {
			continue
		}
		if events, _ := w.store.Cell(vmUUID).Ring().After(0, 0, nil); len(events) == 0 || events[len(events)-1].Key != c.event {
			t.Errorf("%s: the newest event is not of %s: %+v", name, c.event, events)
		}
	}
	// What it was alone to fail of was not done, whatever its number is.
	j.Failed(newest, []string{vmUUID})
	run, w := j.killed()
	w.stays = stays{stay: 5, number: newest + 1}
	if r := restoreJournal(t, run, w, w.place()); r.Sessions != 4 {
		t.Errorf("%+v", r)
	}
	if events, _ := w.store.Cell(vmUUID).Ring().After(0, 0, nil); len(events) == 0 || events[len(events)-1].Key != "size" {
		t.Errorf("what has failed is told: %+v", events)
	}
}

// hooked is a fleet's host that stops before it says for a journal since when it has the VM.
type hooked struct {
	stays
	hook *func()
}

func (s hooked) Stay(vm string) uint64 {
	(*s.hook)()
	return s.stays.Stay(vm)
}

// TestJournalStayAlone: a kill when a session was written whole again, and the record of its stay
// was not yet.
func TestJournalStayAlone(t *testing.T) {
	hook := func() {}
	j := newJournalOf(t, nil, hooked{stays{stay: 5}, &hook})
	st := session.State{Version: session.StateVersion, VM: vmUUID, Dialect: wire.E.String(), Key: []byte("12345678")}
	j.Whole(1, &st, 1<<20)
	killed := false
	hook = func() {
		killed = true
		run, w := j.killed()
		w.stays = stays{stay: 5}
		if r := restoreJournal(t, run, w, w.place()); r.Sessions != 1 || r.Lost != 0 {
			t.Errorf("%+v", r)
		}
	}
	j.Whole(1, &st, 1<<20)
	if !killed {
		t.Error("the journal has not asked for the stay")
	}
}

// TestJournalNoteAlone: of a batch that has changed another VM, the VM's events that change
// nothing are true however the VM's own number is: who reads them must not miss any.
func TestJournalNoteAlone(t *testing.T) {
	j := newJournalOf(t, nil, stays{stay: 5})
	const other = "550e8400-e29b-41d4-a716-446655440001"
	j.do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + other + `"}`})
	j.dial(wire.E, 1, "glenda").open(1, wire.ORead, "events")
	j.put("temp", "high")
	own := j.disk.Number(vmUUID)
	together := func(event string) {
		entered, busy, done := make(chan struct{}), make(chan struct{}), make(chan store.Result, 1)
		j.store.Submit(&store.Intent{Kind: store.Note, Done: func(store.Result) { close(entered); <-busy }})
		<-entered
		j.store.Submit(&store.Intent{Kind: store.Note, Cell: j.store.Cell(vmUUID), Event: store.QMP, Name: event, Done: func(store.Result) {}})
		j.store.Submit(&store.Intent{Kind: store.Put, Cell: j.store.Cell(other), Name: "x", Data: event, Done: func(r store.Result) { done <- r }})
		close(busy)
		if r := <-done; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	told := func(want ...string) {
		t.Helper()
		run, w := j.killed()
		w.stays = stays{stay: 5, number: own}
		if r := restoreJournal(t, run, w, w.place()); r.Sessions != 1 || r.Lost != 0 {
			t.Errorf("%+v", r)
		}
		var got []string
		events, _ := w.store.Cell(vmUUID).Ring().After(0, 0, nil)
		for _, ev := range events {
			if ev.Type == store.QMP {
				got = append(got, ev.Key)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	}
	together("STOP")
	told("STOP") // of the newest batch, of which nobody knows whether it was done
	together("RESUME")
	told("STOP", "RESUME")
	if n := j.disk.Number(""); n != own+2 {
		t.Errorf("%d batches after the VM's own, want 2", n-own)
	}
}

// TestJournalStaysNoRoom: a fleet's journal that finds no room ends, and nothing else does.
func TestJournalStaysNoRoom(t *testing.T) {
	residence.SmallSegments(t)
	j := newJournalOf(t, nil, stays{stay: 5})
	if err := os.RemoveAll(filepath.Join(j.run, residence.JournalName)); err != nil { // no segment can be made in it
		t.Fatal(err)
	}
	st := session.State{VM: vmUUID, Fids: make([]session.FidState, 100)} // much larger than what follows it: it is what finds no room
	for id := uint64(1); j.Epoch() != 0; id++ {
		if id == 1000 {
			t.Fatal("the journal has no end")
		}
		j.Whole(id, &st, 1<<20)
	}
}

// held is a journal that stops who tells it of a session's change after a batch has failed.
type held struct {
	*residence.Journal
	failed  atomic.Bool
	entered chan struct{}
	let     chan struct{}
	once    sync.Once
}

func (j *held) Failed(number uint64, vms []string) {
	j.Journal.Failed(number, vms)
	j.failed.Store(true)
}

func (j *held) Change(id uint64, ch *session.Change) {
	if j.failed.Load() {
		j.once.Do(func() { close(j.entered); <-j.let })
	}
	j.Journal.Change(id, ch)
}

// TestJournalFull: a change for which the disk has no room is known not to be done before
// its client is told so, and before the next batch: with the number of that batch it would
// look done.
func TestJournalFull(t *testing.T) {
	h := &held{entered: make(chan struct{}), let: make(chan struct{})}
	j := newJournalBy(t, func(j *residence.Journal) books { h.Journal = j; return h })
	j.do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"550e8400-e29b-41d4-a716-446655440001"}`})
	c := j.dial(wire.EN2, 1, "glenda")
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"keys"}})
	j.disk.Full(vmUUID)
	told := make(chan *wire.Msg)
	go func() {
		told <- c.do(&wire.Msg{Type: wire.Tcreate, Tag: 1, Fid: 1, Name: "new", Perm: 0o600, Mode: wire.ORdWr})
	}()
	<-h.entered
	j.disk.Full("")
	j.put("temp", "high")
	between, w := j.killed()
	close(h.let)
	if m := <-told; m.Type != wire.Rerror {
		t.Errorf("the create is answered %v", m)
	}
	after, w2 := j.killed()
	for when, run := range map[string]struct {
		run  string
		w    *world
		kept wire.Type // to its tag
	}{"before it was told": {between, w, wire.Rwalk}, "after": {after, w2, wire.Rerror}} {
		if r := restoreJournal(t, run.run, run.w, run.w.place()); r != (residence.Report{Sessions: 1}) {
			t.Fatalf("%s: %+v", when, r)
		}
		st := run.w.states()[0]
		if f := st.Fids[1]; f.Handle != nil || len(f.Node.Path) != 1 {
			t.Errorf("%s: fid 1 is %+v", when, f)
		}
		if k := st.Kept[len(st.Kept)-1]; wire.Type(k.Frame[4]) != run.kept {
			t.Errorf("%s: the reply that is kept is %s", when, wire.Type(k.Frame[4]))
		}
		if got := run.w.store.Cell(vmUUID).VM().Get(0, "temp"); got == nil || got.Value != "high" {
			t.Errorf("%s: temp is %v", when, got)
		}
	}
}

// TestJournalEpochs: under load a journal stays within its bound, and has at any moment
// what the client was told.
func TestJournalEpochs(t *testing.T) {
	residence.SmallSegments(t)
	j := newJournal(t)
	c := j.dial(wire.E, 1, "glenda")
	reader := j.dial(wire.E, 2, "glenda")
	reader.open(1, wire.ORead, "events")
	open := make(map[uint32]bool)
	most := int64(0)
	rng := rand.New(rand.NewPCG(1, 2))
	requests := 6000
	if testing.Short() {
		requests = 2000
	}
	for i := range requests {
		if fid := 1 + rng.Uint32N(20); open[fid] {
			c.do(&wire.Msg{Type: wire.Tclunk, Fid: fid})
			delete(open, fid)
		} else {
			c.open(fid, wire.ORead, "keys", []string{"color", "size", "temp"}[fid%3])
			open[fid] = true
		}
		if i%100 == 0 {
			j.put("temp", fmt.Sprint(i))
		}
		_, bytes := j.Stats()
		most = max(most, bytes)
		if i%500 != 499 {
			continue
		}
		run, w := j.killed()
		if r := restoreJournal(t, run, w, w.place()); r != (residence.Report{Sessions: 2}) {
			t.Fatalf("%d: %+v", i, r)
		}
		st := w.states()[0]
		if len(st.Fids) != len(open)+1 {
			t.Fatalf("%d: %d fids, want %d", i, len(st.Fids), len(open)+1)
		}
		for _, fid := range st.Fids[1:] {
			if want := []string{"color", "size", "temp"}[fid.Fid%3]; !open[fid.Fid] || fid.Node.Path[1] != want || fid.Handle == nil {
				t.Fatalf("%d: fid %d is %+v, want %s", i, fid.Fid, fid.Node, want)
			}
		}
		// The reader of events, which has read nothing, would be told of all.
		if events, lost := w.store.Cell(vmUUID).Ring().After(w.states()[1].Fids[1].Handle.Rev, 0, nil); lost != 0 || len(events) != i/100+1 {
			t.Fatalf("%d: %d events, lost up to %d", i, len(events), lost)
		}
	}
	if e := j.Epoch(); e < 5 || most > 16*16<<10 {
		t.Errorf("epoch %d, at most %d bytes", e, most)
	}
	t.Logf("epoch %d, at most %d bytes", j.Epoch(), most)
}

var epochs = flag.Uint64("epochs", 150, "how many epochs TestJournalHour has; 1,100 are an hour")

// TestJournalHour: a journal stays within its bound for as long as there is load. 1,100
// epochs are 9 GB of records in segments of 8 MiB, which is 2.5 MB a second for an hour;
// here the segments are small, and the hour as well. Sessions work, come and go, are
// parked, and one reader of events never reads.
func TestJournalHour(t *testing.T) {
	residence.SmallSegments(t)
	last := *epochs
	if testing.Short() { // more than the segments that it may have
		last = min(last, 40)
	}
	j := newJournal(t)
	slow := j.dial(wire.E, 1, "glenda")
	slow.open(1, wire.ORead, "events")
	clients := make([]*client, 6)
	dialect := []wire.Dialect{wire.E, wire.EN2, wire.LE2}
	var most, mostFiles int64
	begun := time.Now()
	for i := 0; j.Epoch() < last; i++ {
		n := i % len(clients)
		c := clients[n]
		switch {
		case c == nil:
			clients[n] = j.dial(dialect[n%3], byte(10+i%100), "glenda")
			continue
		case i%2000 < len(clients): // it is parked, under a key that may come again
			c.nc.Close()
			clients[n] = nil
			continue
		}
		fid := uint32(1 + i/len(clients)%30)
		names := []string{"keys", []string{"color", "size", "temp"}[fid%3]}
		if r := c.do(&wire.Msg{Type: wire.Twalk, Newfid: fid, Names: names}); r.Type == wire.Rwalk {
			c.do(&wire.Msg{Type: wire.Tswrite, Fid: fid, Data: []byte("x")})
		} else {
			c.do(&wire.Msg{Type: wire.Tclunk, Fid: fid})
		}
		if i%50 == 0 {
			_, bytes := j.Stats()
			most = max(most, bytes)
			files, err := os.ReadDir(filepath.Join(j.run, residence.JournalName))
			if err != nil {
				t.Fatal(err)
			}
			mostFiles = max(mostFiles, int64(len(files)))
		}
		if time.Since(begun) > 5*time.Minute {
			t.Fatalf("after 5 minutes it is in epoch %d", j.Epoch())
		}
	}
	const bound = 16 // segments: of 32, with which it would end
	if most > bound*16<<10 || mostFiles > bound+1 {
		t.Errorf("at most %d bytes, in %d files", most, mostFiles)
	}
	run, w := j.killed()
	r := restoreJournal(t, run, w, w.place())
	if sessions, _ := j.Stats(); r.Lost != 0 || r.Sessions < len(clients) || r.Sessions != sessions {
		t.Errorf("%+v, of %d sessions", r, sessions)
	}
	t.Logf("epoch %d in %v, at most %d bytes in %d files; %d sessions", j.Epoch(), time.Since(begun), most, mostFiles, r.Sessions)
}

// image is the only segment of a journal that clients have worked with.
func image(t testing.TB) ([]byte, *journal) {
	residence.SmallSegments(t)
	j := newJournal(t)
	j.work()
	b, err := os.ReadFile(filepath.Join(j.run, residence.JournalName, "000000000001"))
	if err != nil {
		t.Fatal(err)
	}
	return b, j
}

// TestJournalDamage: of a journal with any bit changed, or with nothing from any place on,
// no session is restored.
func TestJournalDamage(t *testing.T) {
	residence.SmallSegments(t)
	b, j := image(t)
	_, w := j.killed()
	p := w.place()
	if r := residence.JournalImage(b, p, w.server, w.tree); r != (residence.Report{Sessions: 3}) {
		t.Fatalf("%+v", r)
	}
	w.server.DropVM(vmUUID)
	images := 0
	try := func(what string, at int, b []byte) {
		images++
		if r := residence.JournalImage(b, p, w.server, w.tree); r.Sessions != 0 || r.Why == "" {
			t.Fatalf("%s at %d: %+v", what, at, r)
		}
	}
	used := residence.Used(b)
	step := 1
	if testing.Short() { // another bit of each byte
		step = 8
	}
	for at := range used {
		for bit := at % step; bit < 8; bit += step {
			b[at] ^= 1 << bit
			try("a bit", at, b)
			b[at] ^= 1 << bit
		}
		zeros := make([]byte, len(b))
		copy(zeros, b[:at])
		if bytes.Equal(zeros, b) {
			continue // these were zeros
		}
		try("nothing", at, zeros)
		try("the end", at, b[:at])
	}
	if r := residence.JournalImage(residence.SealedSegment(p, 'z', []byte{1}), p, w.server, w.tree); !strings.Contains(r.Why, "not known to this version") {
		t.Errorf("a record of another version: %+v", r)
	}
	t.Logf("%d images", images)
}

// FuzzJournalRecord: a record whose checksums are right may have anything in it.
func FuzzJournalRecord(f *testing.F) {
	residence.SmallSegments(f)
	_, states, disk := save(f)
	for _, st := range states {
		f.Add(byte('w'), append(binary.AppendUvarint(nil, 1), residence.Body(st)...))
	}
	f.Add(byte('c'), []byte("\x01\x02{}"))
	f.Add(byte('b'), []byte(`{"number":9,"events":[{"rev":4,"type":"key-set","vm":"`+vmUUID+`"}]}`))
	f.Add(byte('t'), []byte(`{"vm":"`+vmUUID+`","after":3,"last":5}`))
	f.Add(byte('f'), []byte{9})
	w := openWorld(f, disk.Clone())
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		residence.JournalImage(residence.SealedSegment(w.place(), kind, body), w.place(), w.server, w.tree)
		w.server.DropVM(vmUUID)
	})
}

// TestChangeJSON: a Change is written as encoding/json would.
func TestChangeJSON(t *testing.T) {
	texts := []string{"", "color", "a\"b\\c", "é<&>", "\u2028"}
	rng := rand.New(rand.NewPCG(3, 4))
	changes := 2000
	if testing.Short() {
		changes = 500
	}
	for range changes {
		ch := session.Change{Count: rng.Uint64()}
		for range rng.IntN(4) {
			f := session.FidState{Fid: rng.Uint32(), Node: &fs.NodeState{ID: rng.Uint64(), Top: rng.IntN(3)}}
			for range rng.IntN(4) {
				f.Node.Path = append(f.Node.Path, texts[rng.IntN(len(texts))])
			}
			if rng.IntN(2) == 0 {
				f.Node.As = []byte("\xff\xfeab"[:rng.IntN(5)])
			}
			if rng.IntN(2) == 0 {
				f.Handle = &fs.HandleState{Flags: fs.Flags(rng.Uint32()), Rev: rng.Uint64(), Held: rng.IntN(2) == 0, Refused: rng.IntN(5) == 0}
				if rng.IntN(9) == 0 {
					f.Handle.Old = []byte("before")
				}
			}
			f.Rclose = rng.IntN(9) == 0
			if rng.IntN(9) == 0 {
				f.Listing.Most = 3
			}
			if rng.IntN(9) == 0 {
				f = session.FidState{Fid: 7, Auth: true}
			}
			ch.Fids = append(ch.Fids, f)
		}
		if rng.IntN(2) == 0 {
			ch.Tokens = &session.Tokens{Now: rng.Uint64(), Before: rng.Uint64(), Used: rng.IntN(2) == 0, Sent: rng.Uint64()}
			ch.Doubt = []uint64{rng.Uint64(), 1}
		}
		for range rng.IntN(3) {
			ch.Gone = append(ch.Gone, rng.Uint32())
		}
		var got, want session.Change
		text, err := json.Marshal(ch)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(residence.ChangeJSON(&ch), &got); err != nil {
			t.Fatalf("%v: %s", err, residence.ChangeJSON(&ch))
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("%s: %s", text, d)
		}
	}
}

// TestJournalShares: sessions that would take too much of the journal are not in it, and
// cost nobody else his place.
func TestJournalShares(t *testing.T) {
	j := newJournal(t)
	j.work()
	for k := range 25 {
		c := j.dial(wire.E, byte(10+k), strings.Repeat("x", 200))
		for fid := range uint32(1500) {
			c.do(&wire.Msg{Type: wire.Twalk, Newfid: fid + 1, Names: []string{"keys", "color"}})
		}
	}
	for sessions, _ := j.Stats(); sessions > 3+10; sessions, _ = j.Stats() { // the epoch began with the last few
		time.Sleep(time.Millisecond)
	}
	run, w := j.killed()
	if r := restoreJournal(t, run, w, w.place()); r.Lost != 0 || r.Sessions < 3+4 || r.Sessions > 3+10 {
		t.Fatalf("%+v", r)
	}
	if !slices.ContainsFunc(w.states(), func(st session.State) bool { return st.Key[0] == 1 }) {
		t.Error("the first session is not there")
	}
}

// TestJournalLongBatch: a batch whose events are too long for a segment costs its readers
// these events, of which they are told, and nobody his session.
func TestJournalLongBatch(t *testing.T) {
	residence.SmallSegments(t)
	j := newJournal(t)
	c := j.dial(wire.E, 1, "glenda")
	c.open(1, wire.ORead, "events")
	j.put("temp", "before")
	j.do(&store.Intent{Kind: store.Put, Cell: j.store.Cell(vmUUID), Name: "size", Data: "x", By: strings.Repeat("x", 20<<10)})
	long := j.store.Rev()
	j.put("temp", "after")
	if j.Epoch() == 0 {
		t.Fatal("the journal has ended")
	}
	run, w := j.killed()
	if r := restoreJournal(t, run, w, w.place()); r != (residence.Report{Sessions: 1}) {
		t.Fatalf("%+v", r)
	}
	events, lost := w.store.Cell(vmUUID).Ring().After(w.states()[0].Fids[1].Handle.Rev, 0, nil)
	if lost != long || len(events) != 1 || events[0].Key != "temp" || events[0].Rev <= long {
		t.Errorf("lost up to %d, want %d; then %v", lost, long, events)
	}
}

// TestJournalNoRoom: a change for which the newest batch leaves no room, even in a new
// segment, ends the journal. It would not be true without it.
func TestJournalNoRoom(t *testing.T) {
	j := newJournal(t)
	j.work()
	const id, number = 1 << 40, 1 << 40
	st := session.State{Version: session.StateVersion, VM: vmUUID, Dialect: "9P2000.e", Key: bytes.Repeat([]byte{9}, 8)}
	if size, _ := j.Whole(id, &st, 1<<20); size == 0 {
		t.Fatal("the session is not taken")
	}
	change := func(size int) *session.Change {
		return &session.Change{Fids: []session.FidState{{Fid: 1, Node: &fs.NodeState{}, Handle: &fs.HandleState{Last: make([]byte, size)}}}}
	}
	j.Begun(number, nil)
	for range 10 { // 933 KB of text each
		j.Receipt(number, id, change(700<<10))
		if j.Epoch() == 0 {
			return // it has noticed by a receipt: there is no room for the batch itself
		}
		j.Change(id, change(700<<10))
		if _, bytes := j.Stats(); j.Epoch() != 0 && bytes > 24<<20 {
			t.Fatal("a batch has grown over a segment, and the journal goes on")
		}
	}
	t.Error("the journal goes on")
}

// TestJournalFlood: a session whose changes would fill the journal, while the epoch before
// is there still, loses its own place, until it is told of whole again, and no other's.
func TestJournalFlood(t *testing.T) {
	j := newJournal(t)
	j.work()
	j.HoldSweep()
	const id = 1 << 40
	st := session.State{Version: session.StateVersion, VM: vmUUID, Dialect: "9P2000.e", Key: bytes.Repeat([]byte{9}, 8)}
	whole := func() {
		if size, _ := j.Whole(id, &st, 1<<20); size == 0 {
			t.Fatal("the session is not taken")
		}
	}
	sessions := func() int { n, _ := j.Stats(); return n }
	ch := &session.Change{Fids: []session.FidState{{Fid: 1, Node: &fs.NodeState{}, Handle: &fs.HandleState{Last: make([]byte, 700<<10)}}}}
	whole()
	j.Change(id, ch)
	if n := sessions(); n != 4 {
		t.Fatalf("%d sessions, want 4", n)
	}
	for range 300 {
		j.Change(id, ch)
	}
	if n := sessions(); n != 3 || j.Epoch() == 0 {
		t.Fatalf("%d sessions, want 3; epoch %d", n, j.Epoch())
	}
	whole()
	if n := sessions(); n != 4 {
		t.Errorf("%d sessions, want 4", n)
	}
	if _, bytes := j.Stats(); bytes > 16<<20 {
		t.Errorf("%d bytes", bytes)
	}
}
