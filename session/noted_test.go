package session_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/store"
	"meta9/session"
	"meta9/session/wire"
)

// told is a journal in memory, of the store as well.
type told struct {
	mu      sync.Mutex
	epoch   uint64
	size    int // of each session; 0: it is too large
	wholes  []session.State
	changes []session.Change
	change  func(ch *session.Change) // called before one is kept, without mu
}

func (j *told) Epoch() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.epoch
}

func (j *told) set(epoch uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.epoch = epoch
}

func (j *told) Whole(_ uint64, st *session.State, _ int) (int, uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wholes = append(j.wholes, *st)
	return j.size, j.epoch
}

func (j *told) Change(_ uint64, ch *session.Change) {
	j.mu.Lock()
	change := j.change
	j.mu.Unlock()
	if change != nil {
		change(ch)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changes = append(j.changes, *ch)
}

func (*told) Receipt(_, _ uint64, _ *session.Change) {}
func (*told) Gone(uint64)                            {}
func (*told) Begun(uint64, []store.Event)            {}
func (*told) Failed(uint64, []string)                {}

// journalled is a world that has the journal.
func journalled(t *testing.T, j *told) *world {
	return newWorld(t, func(cfg *session.Config) { cfg.Journal = j })
}

// TestNotedStaysSmall: of a session that is too large for the journal, or whose journal
// has failed, nothing is gathered for it.
func TestNotedStaysSmall(t *testing.T) {
	walks := uint32(20_000)
	if testing.Short() {
		walks = 2000
	}
	for _, size := range []int{0, 100} {
		j := &told{epoch: 1, size: size}
		w := journalled(t, j)
		c := w.numbered(wire.EN2, 1, nil)
		if size > 0 {
			j.set(0)
		}
		most := 0
		for i := range walks {
			c.walk(1+i%2, "keys")
			c.clunk(1 + i%2)
			if i%100 == 0 {
				most = max(most, w.server.Noted())
			}
		}
		if most = max(most, w.server.Noted()); most > 8 {
			t.Errorf("%d bytes: %d are gathered", size, most)
		}
	}
}

// TestNotedTogether: a kept reply comes to the journal with the fid that it is about, and
// with an epoch that begins between the replies to changes that have ended together.
func TestNotedTogether(t *testing.T) {
	j := &told{epoch: 1, size: 100}
	w := journalled(t, j)
	for _, name := range []string{"color", "size", "temp"} {
		w.put(name, "x")
	}
	a := w.numbered(wire.LE2, 1, nil)
	a.walk(1, "keys")
	a.walk(3, "keys")
	a.walk(5, "keys", "color")
	a.lopen(5, p9.WriteOnly)
	a.walk(6)

	entered, release := w.engine.Block()
	t.Cleanup(release)
	put := make(chan struct{})
	go func() {
		defer close(put)
		w.store.Do(&store.Intent{Kind: store.Put, Cell: w.store.Cell(vmOne), Name: "x", Data: "y", By: "admin"})
	}()
	<-entered
	for i, fid := range []uint32{1, 3} {
		m := &wire.Msg{Type: wire.Tlcreate, Tag: uint16(10 + i), Fid: fid, Name: []string{"new", "newer"}[i]}
		m.L.Flags = uint32(p9.WriteOnly)
		a.ask(m)
		a.ask(&wire.Msg{Type: wire.Twrite, Tag: uint16(20 + i), Fid: fid, Data: []byte("v"), Count: 1})
	}
	last := a.ask(&wire.Msg{Type: wire.Twrite, Tag: 30, Fid: 5, Data: []byte("red"), Count: 3})
	a.settled()

	// The monitor is held until all three have ended.
	held, let := make(chan struct{}), make(chan struct{})
	var once sync.Once
	j.mu.Lock()
	j.change = func(ch *session.Change) {
		once.Do(func() { close(held); <-let })
		if keeps(ch, 10) {
			j.set(2)
		}
	}
	j.mu.Unlock()
	a.ask(&wire.Msg{Type: wire.Tclunk, Tag: 40, Fid: 6})
	<-held
	release()
	<-put
	w.put("x", "z") // when that is done, the batch before has been answered
	close(let)
	for range 6 { // both creates, three writes and the clunk
		if m := a.receive(); m == nil || m.Type == wire.Rlerror {
			t.Fatalf("%v", m)
		}
	}

	j.mu.Lock()
	defer j.mu.Unlock()
	for _, ch := range j.changes {
		if keeps(&ch, 10) && !slices.ContainsFunc(ch.Fids, func(f session.FidState) bool { return f.Fid == 1 && f.Handle != nil }) {
			t.Errorf("the reply to a create is kept without its fid: %+v", ch)
		}
	}
	if len(j.wholes) != 2 {
		t.Fatalf("%d wholes", len(j.wholes))
	}
	// The reply is not made yet, but what it will say is known by its receipt.
	if st := j.wholes[1]; !slices.ContainsFunc(st.Kept, func(k session.KeptReply) bool { return k.Number == last }) {
		t.Errorf("the write that has ended is not known to the new epoch: %+v", st.Kept)
	}
}

// keeps tells whether the reply under that tag is among what was kept.
func keeps(ch *session.Change, tag uint16) bool {
	return slices.ContainsFunc(ch.Kept, func(k session.KeptReply) bool {
		_, _, has, ok := wire.Split(k.Frame)
		return ok && has == tag
	})
}

// TestTruncationComesAgain: of a truncation by itself, whose clunk was under way at a kill,
// the client is told that the clunk was not done, and sends it again: then the key is empty.
func TestTruncationComesAgain(t *testing.T) {
	for _, d := range withTokens {
		w := journalled(t, &told{epoch: 1, size: 100})
		w.put("color", "blue")
		a := w.numbered(d, 1, nil)
		a.walk(1, "keys", "color")
		if d.IsL() {
			a.lopen(1, p9.WriteOnly|0o1000) // O_TRUNC
		} else {
			a.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1, Mode: wire.OWrite | wire.OTrunc}, wire.Ropen)
		}
		_, release := w.engine.Block()
		t.Cleanup(release)
		clunk := a.ask(&wire.Msg{Type: wire.Tclunk, Tag: 7, Fid: 1})
		a.settled()
		st := moved(t, a.hangUp(w))
		st.Undone = st.Count // as the journal's reader says
		other := openWorld(t, w.disk.Clone(), nil)
		if err := other.server.Restore(st); err != nil {
			t.Fatal(err)
		}
		b, m := other.back(a, a.count, 0, clunk)
		if m.Type != wire.Rresume || string(m.States) != string([]byte{wire.Undone}) {
			t.Fatalf("%s: %v", d, m)
		}
		b.clunk(1)
		if got := other.value("color"); got != "" {
			t.Errorf("%s: color is %q", d, got)
		}
	}
}

// TestNoteWhileStopping: a parked session is not looked at while the server stops, even
// where it was not told of in the journal's epoch.
func TestNoteWhileStopping(t *testing.T) {
	j := &told{epoch: 1, size: 100}
	w := journalled(t, j)
	w.numbered(wire.EN2, 1, nil).hangUp(w)
	j.set(2)
	if left := w.server.Note(); left != 0 || len(j.wholes) != 2 {
		t.Fatalf("%d are left, %d wholes", left, len(j.wholes))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := w.server.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	j.set(3)
	if left := w.server.Note(); left != 1 || len(j.wholes) != 2 {
		t.Errorf("%d are left, %d wholes", left, len(j.wholes))
	}
}

// paused is a journal that holds the committer before the receipts of a batch, once armed, until
// there is the folder: the race detector does not take that for an order.
type paused struct {
	*told
	armed  atomic.Bool
	folder string
}

func (j *paused) Begun(uint64, []store.Event) {
	pause := syscall.NsecToTimespec(int64(time.Millisecond)) // nor a system call, as it may a time.Sleep
	for end := time.Now().Add(patient); j.armed.Load() && time.Now().Before(end); _ = syscall.Nanosleep(&pause, nil) {
		if _, err := os.Lstat(j.folder); err == nil {
			return
		}
	}
}

// TestResumedInReceipt: a session is resumed before the committer says to the journal what a
// change that it has asked for becomes. Only the race detector sees whether that is well.
func TestResumedInReceipt(t *testing.T) {
	for range 5 { // it does not see it each time
		j := &paused{told: &told{epoch: 1, size: 100}, folder: filepath.Join(t.TempDir(), "go")}
		w := newWorld(t, func(cfg *session.Config) { cfg.Journal = j })
		w.put("color", "blue")
		a := w.numbered(wire.EN2, 1, nil)
		a.openForWriting(1, "color")
		j.armed.Store(true)
		a.ask(&wire.Msg{Type: wire.Twrite, Tag: 7, Fid: 1, Data: []byte("red"), Count: 3})
		a.settled()
		a.nc.Close()
		w.numbered(wire.EN2, 1, a)
		if err := os.Mkdir(j.folder, 0o700); err != nil {
			t.Fatal(err)
		}
		w.until("the change", func() bool { return w.value("color") == "rede" })
	}
}
