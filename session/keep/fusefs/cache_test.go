//go:build linux

package fusefs

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/store"
	"meta9/session/keep"
	"meta9/session/wire"
)

// names lists a folder.
func (w *world) names(path ...string) string {
	w.t.Helper()
	id, code := w.look(path...)
	var out fuse.OpenOut
	if code.Ok() {
		code = w.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}}, &out)
	}
	if !code.Ok() {
		w.t.Fatalf("opening %v: %v", path, code)
	}
	defer w.ReleaseDir(&fuse.ReleaseIn{Fh: out.Fh})
	o := w.file(out.Fh)
	b, err := w.entries(keep.Interrupt{}, o, &fuse.ReadIn{Fh: out.Fh, Size: 4096})
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for len(b) > 0 {
		var e p9.Dirent
		if e, b, err = wire.DecodeDirent(b); err != nil {
			w.t.Fatal(err)
		}
		names = append(names, e.Name)
	}
	return strings.Join(names, " ")
}

// TestNothingAsked: what was read once costs nothing at the server, until it changes; and
// what it shows then is the new.
func TestNothingAsked(t *testing.T) {
	for _, aname := range []string{"", "keys", "mode=0644/keys"} {
		t.Run(aname, func(t *testing.T) {
			w := newWorld(t, aname, true)
			var dir []string
			if aname == "" {
				dir = []string{"keys"}
			}
			path := func(name string) []string { return append(append([]string{}, dir...), name) }
			for _, value := range []string{"one", "", "a longer one", strings.Repeat("x", maxKept)} {
				w.host(store.Put, "k", value)
				w.settled()
				for range 2 { // the first knows neither the name nor the value
					if got := w.cat(path("k")...); got != value {
						t.Fatalf("%d bytes, want %d", len(got), len(value))
					}
					w.names(dir...)
					w.look(path("absent")...)
				}
				w.silently("cat, ls and stat of what is known", func() {
					if got := w.cat(path("k")...); got != value {
						t.Errorf("%d bytes, want %d", len(got), len(value))
					}
					if got := w.names(dir...); got != "k" {
						t.Errorf("the folder has %q", got)
					}
					if _, code := w.look(path("absent")...); code != fuse.ENOENT {
						t.Errorf("absent: %v", code)
					}
					id, _ := w.look(path("k")...)
					var out fuse.AttrOut
					if code := w.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: id}}, &out); !code.Ok() || out.Size != uint64(len(value)) {
						t.Errorf("stat: %v, %d bytes", code, out.Size)
					}
				})
			}
			w.host(store.Put, "absent", "here")
			w.host(store.Remove, "k", "")
			w.settled()
			if got := w.names(dir...); got != "absent" {
				t.Errorf("the folder has %q", got)
			}
			if _, code := w.look(path("k")...); code != fuse.ENOENT {
				t.Errorf("k: %v", code)
			}
			if got := w.cat(path("absent")...); got != "here" {
				t.Errorf("absent has %q", got)
			}
		})
	}
}

// TestDerived: nothing is kept of what changes without an event that names it, and without
// the cache nothing at all.
func TestDerived(t *testing.T) {
	w := newWorld(t, "", true)
	for _, path := range [][]string{{"vm.json"}, {"sdc", "uuid"}, {"nocloud", "meta-data"}} {
		w.cat(path...)
		before := w.sent.Load()
		if w.cat(path...); w.sent.Load() == before {
			t.Errorf("%v was not asked for", path)
		}
	}
	without := newWorld(t, "", false)
	without.host(store.Put, "k", "v")
	without.cat("keys", "k")
	before := without.sent.Load()
	if without.cat("keys", "k"); without.sent.Load() == before {
		t.Error("without a cache a key was not asked for")
	}
}

// TestOwnChanges: what this mount changes it sees at once, before any event.
func TestOwnChanges(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "old value")
	w.host(store.Put, "other", "other value")
	w.settled()
	for range 100 {
		w.cat("keys", "k")
		w.cat("keys", "k")
		_, reader := w.open(syscall.O_RDONLY, "keys", "k")
		if got := w.read(reader, 0, 3); got != "old" {
			t.Fatalf("%q", got)
		}
		_, fh := w.open(syscall.O_WRONLY|syscall.O_TRUNC, "keys", "k")
		if got := w.cat("keys", "k"); got != "" {
			t.Fatalf("after a truncation of ours: %q", got)
		}
		w.write(fh, 0, "new and longer")
		if got := w.read(reader, 4, 100); got != "and longer" {
			t.Fatalf("an open file reads %q", got)
		}
		if got := w.cat("keys", "k"); got != "new and longer" {
			t.Fatalf("%q", got)
		}
		w.shut(fh)
		if got := w.cat("keys", "k"); got != "new and longer" {
			t.Fatalf("after close: %q", got)
		}
		id, _ := w.look("keys", "k")
		var out fuse.AttrOut
		s := &fuse.SetAttrIn{}
		s.NodeId, s.Valid, s.Size = id, fuse.FATTR_SIZE, 3
		if code := w.SetAttr(nil, s, &out); !code.Ok() {
			t.Fatal(code)
		}
		if got := w.cat("keys", "k"); got != "new" {
			t.Fatalf("after truncate(2): %q", got)
		}
		dir, _ := w.look("keys")
		w.cat("keys", "other")
		if code := w.Rename(nil, &fuse.RenameIn{InHeader: fuse.InHeader{NodeId: dir}, Newdir: dir}, "other", "k"); !code.Ok() {
			t.Fatal(code)
		}
		if got := w.cat("keys", "k"); got != "other value" {
			t.Fatalf("after a rename: %q", got)
		}
		if got := w.read(reader, 0, 100); got != "new" {
			t.Fatalf("the replaced file, which is open still: %q", got)
		}
		if got := w.names("keys"); got != "k" {
			t.Fatalf("the folder has %q", got)
		}
		if _, code := w.look("keys", "other"); code != fuse.ENOENT {
			t.Fatal(code)
		}
		w.shut(reader)
		if code := w.Unlink(nil, &fuse.InHeader{NodeId: dir}, "k"); !code.Ok() {
			t.Fatal(code)
		}
		if _, code := w.look("keys", "k"); code != fuse.ENOENT {
			t.Fatal(code)
		}
		for name, value := range map[string]string{"k": "old value", "other": "other value"} {
			var made fuse.CreateOut
			in := &fuse.CreateIn{InHeader: fuse.InHeader{NodeId: dir}, Flags: syscall.O_WRONLY | syscall.O_CREAT, Mode: 0o600}
			if code := w.Create(nil, in, name, &made); !code.Ok() {
				t.Fatal(code)
			}
			w.write(made.Fh, 0, value)
			w.shut(made.Fh)
			if got := w.cat("keys", name); got != value {
				t.Fatalf("%s, just made, is %q", name, got)
			}
		}
	}
}

// TestOpenFiles: a file that was opened from what is kept reads as the server's do.
func TestOpenFiles(t *testing.T) {
	w := newWorld(t, "", true)
	begin := func(value string) uint64 {
		w.host(store.Put, "k", value)
		w.settled()
		w.cat("keys", "k")
		_, fh := w.open(syscall.O_RDONLY, "keys", "k")
		if got := w.read(fh, 0, 4); got != value[:4] {
			t.Fatalf("%q", got)
		}
		return fh
	}
	fh := begin("the first value")
	w.host(store.Put, "k", "THE SECOND VALUE, LONGER")
	w.settled()
	if got := w.read(fh, 4, 100); got != "first value" {
		t.Errorf("half of another value: %q", got)
	}
	if got := w.read(fh, 15, 100); got != "" {
		t.Errorf("the end of another value: %q", got)
	}
	if got := w.read(fh, 0, 100); got != "THE SECOND VALUE, LONGER" {
		t.Errorf("from its start: %q", got)
	}
	w.shut(fh)

	fh = begin("appended to")
	w.read(fh, 0, 100)
	w.host(store.Append, "k", ", indeed")
	w.settled()
	if got := w.read(fh, 11, 100); got != ", indeed" {
		t.Errorf("at the end, after an append: %q", got)
	}
	w.shut(fh)

	fh = begin("removed")
	w.host(store.Remove, "k", "")
	w.settled()
	for range 2 {
		if got := w.read(fh, 0, 100); got != "removed" {
			t.Errorf("the removed file: %q", got)
		}
	}
	w.shut(fh)
}

// TestTruncationThatCameToNothing: a truncation that this mount alone sees, and that ends
// without a change and so without an event, is not kept.
func TestTruncationThatCameToNothing(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "value")
	w.settled()
	_, fh := w.open(syscall.O_WRONLY|syscall.O_TRUNC, "keys", "k")
	if got := w.cat("keys", "k"); got != "" {
		t.Errorf("%q", got)
	}
	if _, code := w.Write(nil, &fuse.WriteIn{Fh: fh, Offset: 8 << 20}, []byte("x")); code != fuse.Status(syscall.EFBIG) {
		t.Errorf("a value that is too large: %v", code)
	}
	w.shut(fh)
	w.until("the old value", func() bool { return w.cat("keys", "k") == "value" })
}

// TestBounded: what is kept is bounded, also where files have it open.
func TestBounded(t *testing.T) {
	w := newWorld(t, "", true)
	value := strings.Repeat("v", 60<<10)
	for i := range 100 {
		w.host(store.Put, fmt.Sprint("k", i), value)
	}
	w.settled()
	for i := range 100 {
		name := fmt.Sprint("k", i)
		w.cat("keys", name)
		if i%2 == 0 {
			_, fh := w.open(syscall.O_RDONLY, "keys", name)
			w.read(fh, 0, 10)
			defer w.shut(fh)
		}
	}
	for i := range 2 * maxAbsent {
		w.look("keys", fmt.Sprint("absent", i))
	}
	w.FS.mu.Lock()
	defer w.FS.mu.Unlock()
	if w.bytes > maxAllKept || w.bytes < maxAllKept/2 || len(w.absent) > maxAbsent {
		t.Errorf("%d bytes and %d absent names are kept", w.bytes, len(w.absent))
	}
}

// TestOldVersions: where open files hold all the room with versions that are old by now, what
// is kept stays, though nothing more gets in. With them closed there is room again.
func TestOldVersions(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "small", "kept")
	w.settled()
	w.cat("keys", "small")
	w.cat("keys", "small")
	var open []uint64
	for i := range maxAllKept / maxKept {
		w.host(store.Put, "k", strings.Repeat(string(rune('a'+i%26)), maxKept-1))
		w.settled()
		_, fh := w.open(syscall.O_RDONLY, "keys", "k")
		w.read(fh, 0, 1)
		open = append(open, fh)
	}
	w.host(store.Put, "k", strings.Repeat("A", maxKept))
	w.settled()
	w.cat("keys", "small")
	w.cat("keys", "k")
	w.cat("keys", "k")
	w.silently("cat of what was kept", func() { w.cat("keys", "small") })
	for _, fh := range open {
		w.shut(fh)
	}
	w.cat("keys", "k")
	w.silently("cat, with room", func() { w.cat("keys", "k") })
	w.host(store.Remove, "k", "")
	w.host(store.Remove, "small", "")
	w.settled()
	w.FS.mu.Lock()
	defer w.FS.mu.Unlock()
	if w.bytes != 0 || w.pinned != 0 {
		t.Errorf("%d bytes are counted, %d of them as pinned, and there are none", w.bytes, w.pinned)
	}
}

// TestLost: without a link nothing is shown that was kept; afterwards all is right, in the
// same session.
func TestLost(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "before")
	w.settled()
	w.cat("keys", "k")
	id, _ := w.look("keys", "k")
	w.silently("cat", func() { w.cat("keys", "k") })
	w.cut(true)
	w.until("the loss", func() bool { w.FS.mu.Lock(); defer w.FS.mu.Unlock(); return !w.live() })
	w.until("the kernel forgets", func() bool { _, ok := w.forgot.Load(id); return ok })
	got := make(chan string)
	go func() { got <- w.cat("keys", "k") }()
	select {
	case value := <-got:
		t.Errorf("without a link a read shows %q", value)
	case <-time.After(50 * time.Millisecond):
	}
	w.host(store.Put, "k", "meanwhile")
	w.mu.Lock()
	w.away = false
	w.mu.Unlock()
	if value := <-got; value != "meanwhile" {
		t.Errorf("%q", value)
	}
	w.settled()
	w.cat("keys", "k")
	w.silently("cat", func() { w.cat("keys", "k") })
}

// TestFresh: the host writes a key again and again. Who has read an event through the mount
// never reads an older value than that event's, while others read all the time, so that
// answers are under way when the key changes; also where the link is cut.
func TestFresh(t *testing.T) {
	const readers = 2
	writes := 1000
	if testing.Short() {
		writes = 200
	}
	for name, cuts := range map[string]bool{"quiet": false, "cut": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", true)
			w.host(store.Put, "k", "0")
			_, events := w.open(syscall.O_RDONLY, "events")
			var told atomic.Int64
			var all sync.WaitGroup
			stop := make(chan struct{})
			for range readers {
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						least := told.Load()
						value, err := strconv.ParseInt(w.cat("keys", "k"), 10, 64)
						if err != nil || value < least {
							t.Errorf("%d (%v) was read, after the event of %d", value, err, least)
							return
						}
					}
				})
			}
			if cuts {
				all.Go(func() {
					rng := rand.New(rand.NewPCG(20121217, 1))
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Duration(20+rng.IntN(180)) * time.Millisecond):
							w.cut(false)
						}
					}
				})
			}
			off := uint64(0)
			for n := 1; n <= writes && !t.Failed(); n++ {
				w.host(store.Put, "k", strconv.Itoa(n))
				line := w.read(events, off, 4096)
				if off += uint64(len(line)); !strings.Contains(line, `"key":"k"`) {
					t.Fatalf("the event is %q", line)
				}
				told.Store(int64(n))
				if got := w.cat("keys", "k"); got != strconv.Itoa(n) {
					t.Fatalf("%s is read after the event of %d", got, n)
				}
			}
			close(stop)
			all.Wait()
			if !cuts {
				w.settled()
				w.cat("keys", "k")
				w.silently("cat", func() { w.cat("keys", "k") })
			}
		})
	}
}

// TestForgottenFirst: events are not given before the kernel was told to forget what they are
// about. (With readEvents not waiting for awaitCache, and with told growing before notify in changes,
// this fails always; with the first, so does TestFresh, after some 20 to 50 writes.)
func TestForgottenFirst(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "old")
	w.settled()
	w.cat("keys", "k")
	_, events := w.open(syscall.O_RDONLY, "events")
	w.cat("keys", "k")
	id, _ := w.look("keys", "k")
	stands, goOn := w.sticks("keys", "k")
	w.forgot.Delete(id)
	w.host(store.Put, "k", "new")
	line := make(chan string, 1)
	go func() { line <- w.read(events, 0, 4096) }()
	stands()
	select {
	case got := <-line:
		t.Errorf("%q is told, and the kernel has the old attributes", got)
	case <-time.After(50 * time.Millisecond):
		goOn()
		<-line
	}
	if _, ok := w.forgot.Load(id); !ok {
		t.Error("it is told, and the kernel was not told to forget")
	}
	if got := w.cat("keys", "k"); got != "new" {
		t.Errorf("%q is read", got)
	}
	w.shut(events)
}

// TestBehind: a mount that has not heard of a change in a second drops all, and gives the event:
// who reads it waits for nobody. So does who opens the events after the change, of which he is
// told nothing: he would have the old value for good.
func TestBehind(t *testing.T) {
	for name, early := range map[string]bool{"read": true, "open": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", true)
			w.host(store.Put, "k", "old")
			w.host(store.Put, "other", "")
			w.settled()
			w.cat("keys", "k")
			var events uint64
			if early {
				_, events = w.open(syscall.O_RDONLY, "events")
			}
			w.cat("keys", "k")
			stands, _ := w.sticks("keys", "other")
			w.host(store.Put, "other", "x")
			stands()
			w.host(store.Put, "k", "new")
			if early {
				for off := uint64(0); ; {
					line := w.read(events, off, 4096)
					if off += uint64(len(line)); strings.Contains(line, `"key":"k"`) {
						break
					}
				}
			} else {
				_, events = w.open(syscall.O_RDONLY, "events")
			}
			if got := w.cat("keys", "k"); got != "new" {
				t.Errorf("%q is read", got)
			}
			w.shut(events)
		})
	}
}

// TestLostLine: a reader that is told that events are missing reads the new.
func TestLostLine(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "0")
	w.host(store.Put, "other", "")
	w.settled()
	_, events := w.open(syscall.O_RDONLY, "events")
	w.cat("keys", "k")
	stands, _ := w.sticks("keys", "other")
	w.host(store.Put, "other", "x")
	stands()
	const writes = 3 * ringEvents
	for n := 1; n <= writes; n++ {
		w.host(store.Put, "k", strconv.Itoa(n))
	}
	line := w.read(events, 0, 4096)
	if !strings.HasPrefix(line, `{"type":"lost"`) {
		t.Fatalf("%q", line)
	}
	if got := w.cat("keys", "k"); got != strconv.Itoa(writes) {
		t.Errorf("%q is read", got)
	}
	w.shut(events)
}

// TestAskedBeforeTheEvents: an answer whose question was sent before the events were opened is
// not kept, since no event tells of a change in between.
func TestAskedBeforeTheEvents(t *testing.T) {
	w := newWorld(t, "", false)
	w.host(store.Put, "k", "old")
	w.prepare("root", "")
	id, fh := w.open(syscall.O_RDONLY, "keys", "k")
	n, o := w.node(id), w.file(fh)
	mark := w.mark()
	data, err := w.readFid(keep.Interrupt{}, o, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	w.host(store.Put, "k", "new")
	w.begin(w)
	w.until("the events", func() bool { w.FS.mu.Lock(); defer w.FS.mu.Unlock(); return w.live() })
	w.found(n.at.dir, "k", n.qid, mark)
	w.FS.keep(n, mark, w.hold(data))
	if got := w.cat("keys", "k"); got != "new" {
		t.Errorf("%q is kept", got)
	}
	w.shut(fh)
}

// TestLowerRevisions: in a store that went back, such as one restored from a backup, an event
// is given only when what it tells of was dropped, though its revision was told of before.
func TestLowerRevisions(t *testing.T) {
	w := newWorld(t, "", true)
	for i := range 20 {
		w.host(store.Put, "k", strconv.Itoa(i))
	}
	w.settled()
	w.FS.mu.Lock()
	w.told += 1000
	seq := w.seq
	w.FS.mu.Unlock()
	w.renew()
	w.until("the new session", func() bool { w.FS.mu.Lock(); defer w.FS.mu.Unlock(); return w.live() && w.seq > seq })
	w.FS.mu.Lock()
	told := w.told
	w.FS.mu.Unlock()
	if told > 1000 {
		t.Errorf("%d counts in the new session", told)
	}
	w.host(store.Put, "k", "v")
	w.settled()
}

// TestOldAnswer: an answer that is older than a change does not make a name sure, also where it
// tells of another file than was known by that name.
func TestOldAnswer(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "v")
	w.settled()
	id, _ := w.look("keys", "k")
	mark, n := w.mark(), w.node(id)
	w.host(store.Put, "k", "w")
	w.settled()
	qid := n.qid
	qid.Path++
	if other, _ := w.found(n.at.dir, "k", qid, mark); other.sure {
		t.Error("the name is sure by an old answer")
	}
	if other, _ := w.found(n.at.dir, "k", n.qid, w.mark()); !other.sure {
		t.Error("the name is not sure by a new one")
	}
}

// TestAnotherFile: a key that has taken another one's name between the kernel's Lookup and its
// Open is read, and not kept under that name; to write it is not opened.
func TestAnotherFile(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "one")
	w.host(store.Put, "x", "two")
	w.settled()
	rename := func(from, to string) {
		t.Helper()
		r := w.store.Do(&store.Intent{Kind: store.Set, Cell: w.store.Cell(vmOne), Name: from, NewName: to, By: "admin"})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		w.rev = w.store.Cell(vmOne).Ring().Last()
	}
	node, code := w.look("keys", "k")
	if !code.Ok() {
		t.Fatal(code)
	}
	rename("k", "t")
	rename("x", "k")
	w.settled()
	var out fuse.OpenOut
	open := func(flags uint32) fuse.Status {
		return w.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}, Flags: flags}, &out)
	}
	if code := open(syscall.O_WRONLY); code != fuse.Status(syscall.ESTALE) {
		t.Errorf("another file is opened to write: %v", code)
	}
	if code := open(syscall.O_RDONLY); !code.Ok() {
		t.Fatal(code)
	}
	rename("k", "x")
	rename("t", "k")
	w.settled()
	w.look("keys", "k")
	if got := w.read(out.Fh, 0, 100); got != "two" {
		t.Errorf("the open file reads %q", got)
	}
	if got := w.cat("keys", "k"); got != "one" {
		t.Errorf("the key that has its name again reads %q", got)
	}
	var attr fuse.AttrOut
	set := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE}}
	set.NodeId = node
	w.host(store.Remove, "k", "")
	w.settled()
	if code := w.SetAttr(nil, set, &attr); code.Ok() {
		t.Error("a removed key was truncated by another one's open file")
	}
	if got := w.cat("keys", "x"); got != "two" {
		t.Errorf("the other key reads %q", got)
	}
	w.shut(out.Fh)
}

// TestInterruptedReader: events that the server has given, and whose reader is interrupted while
// they wait for the mount, are given by the next reads, all and once.
func TestInterruptedReader(t *testing.T) {
	w := newWorld(t, "", true)
	_, fh := w.open(syscall.O_RDONLY, "events")
	const events = 200 // several Treads
	for i := range events {
		w.host(store.Put, fmt.Sprint("key", i), "v")
	}
	w.settled()
	w.FS.mu.Lock()
	told := w.told
	w.told = 0 // as if the mount had not followed
	w.FS.mu.Unlock()
	const size = 64 << 10
	interrupted := make(chan struct{})
	code := make(chan fuse.Status)
	go func() {
		_, c := w.Read(interrupted, &fuse.ReadIn{Fh: fh, Size: size}, make([]byte, size))
		code <- c
	}()
	time.Sleep(100 * time.Millisecond) // the read waits by then; if not, the test asks less
	close(interrupted)
	if c := <-code; c != fuse.EINTR {
		t.Fatalf("the interrupted read: %v", c)
	}
	w.FS.mu.Lock()
	w.told = told
	w.FS.mu.Unlock()
	var all string
	for strings.Count(all, "\n") < events {
		all += w.read(fh, uint64(len(all)), 1000)
	}
	for i, line := range strings.SplitAfter(all, "\n")[:events] {
		if !strings.Contains(line, fmt.Sprintf(`"key":"key%d"`, i)) {
			t.Fatalf("event %d is %q", i, line)
		}
	}
	w.host(store.Put, "last", "v")
	if line := w.read(fh, uint64(len(all)), 1000); !strings.Contains(line, `"key":"last"`) {
		t.Errorf("after that: %q", line)
	}
	w.shut(fh)
}

// TestRevIn: revisions are found however a reader cuts the lines.
func TestRevIn(t *testing.T) {
	text := `{"rev":1234567,"type":"key-set"}` + "\n" + `{"rev":89,"key":"{\"rev\":999"}` + "\n"
	for size := 1; size < len(text); size++ {
		var tail []byte
		for from := 0; from < len(text); from += size {
			data := text[from:min(from+size, len(text))]
			rev, lost := revIn(tail, []byte(data))
			tail = append(tail, data...)
			tail = tail[max(0, len(tail)-maxTail):]
			if lost {
				t.Fatal("nothing is lost")
			}
			if at := len(`{"rev":1234567`); from < at && from+len(data) >= at && rev != 1234567 {
				t.Errorf("in pieces of %d: %d", size, rev)
			}
		}
	}
	if _, lost := revIn([]byte(`{"type":"lo`), []byte(`st","from":1}`)); !lost {
		t.Error("a loss was not seen")
	}
}

// nameTime is how long the kernel may keep the last name of a path, and its node.
func (w *world) nameTime(path ...string) (id uint64, keeps time.Duration) {
	w.t.Helper()
	dir, code := w.look(path[:len(path)-1]...)
	var out fuse.EntryOut
	if code.Ok() {
		code = w.Lookup(nil, &fuse.InHeader{NodeId: dir}, path[len(path)-1], &out)
	}
	if !code.Ok() {
		w.t.Fatalf("%v: %v", path, code)
	}
	return out.NodeId, out.EntryTimeout()
}

// TestNameTime: the kernel may keep the name of a key for a moment, as long as events would tell
// where it leads; and none that this mount has just made, or that nothing tells of.
func TestNameTime(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "v")
	w.settled()
	w.cat("keys", "k")
	if _, keeps := w.nameTime("keys", "k"); keeps != nameTime {
		t.Errorf("a name is kept for %v", keeps)
	}
	for _, path := range [][]string{{"sdc", "uuid"}, {"nocloud", "meta-data"}} {
		if _, keeps := w.nameTime(path...); keeps != 0 {
			t.Errorf("%v is kept for %v", path, keeps)
		}
	}
	dir, _ := w.look("keys")
	var made fuse.CreateOut
	if code := w.Create(nil, &fuse.CreateIn{InHeader: fuse.InHeader{NodeId: dir}, Flags: syscall.O_WRONLY, Mode: 0o600}, "new", &made); !code.Ok() {
		t.Fatal(code)
	}
	if keeps := made.EntryTimeout(); keeps != 0 {
		t.Errorf("a name that was just made is kept for %v", keeps)
	}
	w.shut(made.Fh)
	without := newWorld(t, "", false)
	without.host(store.Put, "k", "v")
	if _, keeps := without.nameTime("keys", "k"); keeps != 0 {
		t.Errorf("without a cache a name is kept for %v", keeps)
	}
}

// TestReplacedName: a name that was another key's a moment ago the kernel looks up each time; and an
// open for reading by a node that has lost its name is of what has the name now, not ESTALE.
func TestReplacedName(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "old")
	w.settled()
	w.look("keys", "k")
	old, keeps := w.nameTime("keys", "k")
	if keeps != nameTime {
		t.Errorf("a name is kept for %v", keeps)
	}
	w.host(store.Remove, "k", "")
	w.host(store.Put, "k", "new")
	w.settled()
	id, keeps := w.nameTime("keys", "k")
	if id == old || keeps != 0 {
		t.Errorf("the name leads to %d, before to %d, and is kept for %v", id, old, keeps)
	}
	var out fuse.OpenOut
	if code := w.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: old}}, &out); !code.Ok() {
		t.Fatalf("an open by the old node: %v", code)
	}
	if got := w.read(out.Fh, 0, 100); got != "new" {
		t.Errorf("%q is read", got)
	}
	w.shut(out.Fh)
	w.FS.mu.Lock()
	w.nodes[id].replaced = time.Now().Add(-2 * afterReplace)
	w.FS.mu.Unlock()
	if _, keeps := w.nameTime("keys", "k"); keeps != nameTime {
		t.Errorf("later the name is kept for %v", keeps)
	}
}

// TestAmbiguousName: that a key was replaced, a file of which is open and whose name the kernel may
// have, is told when the kernel asks for the name again: until then stat(2) of the name could
// show the open file. Nobody waits where the key has another value only, or no file is open;
// and to drop all waits as well.
func TestAmbiguousName(t *testing.T) {
	for name, c := range map[string]struct{ open, replaced, drops, waits bool }{
		"replaced and open":                 {open: true, replaced: true, waits: true},
		"replaced and open, all dropped":    {open: true, replaced: true, drops: true, waits: true},
		"replaced":                          {replaced: true},
		"another value of one that is open": {open: true},
	} {
		t.Run(name, func(t *testing.T) {
			// On a machine that does much beside, the kernel may have lost the name before the server
			// has said where it leads: that shows nothing of who waits in vain.
			for end := time.Now().Add(waiting); !ambiguousName(t, c.open, c.replaced, c.drops, c.waits); {
				if time.Now().After(end) {
					t.Fatal("it is always waited for the kernel")
				}
			}
		})
	}
}

// ambiguousName is one try of TestAmbiguousName; false: it was too late to show anything.
func ambiguousName(t *testing.T, open, replaced, drops, waits bool) (ok bool) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "old")
	w.settled()
	_, events := w.open(syscall.O_RDONLY, "events")
	defer w.shut(events)
	w.cat("keys", "k")
	w.cat("keys", "k")
	if open {
		_, fh := w.open(syscall.O_RDONLY, "keys", "k")
		defer w.shut(fh)
	}
	id, _ := w.nameTime("keys", "k")
	w.FS.mu.Lock()
	until := w.nodes[id].nameUntil
	w.FS.mu.Unlock()
	if left := time.Until(until); left > nameEnd || left < -waiting {
		t.Fatalf("the kernel may have the name for %v", left)
	}
	if drops {
		w.host(store.Remove, "k", "")
		if err := w.dropAll(keep.Interrupt{}); err != nil {
			t.Fatal(err)
		}
	} else {
		if replaced {
			w.host(store.Remove, "k", "")
		}
		w.host(store.Put, "k", "new")
		for line, off := "", uint64(0); !strings.Contains(line, fmt.Sprintf(`{"rev":%d,`, w.rev)); off += uint64(len(line)) {
			line = w.read(events, off, 4096)
		}
	}
	now := time.Now()
	w.FS.mu.Lock()
	ambiguous := w.ambiguousUntil
	w.FS.mu.Unlock()
	if waits && now.Before(until) {
		t.Errorf("it is told %v before the kernel has forgotten the name", until.Sub(now))
	}
	if !drops {
		if got := w.cat("keys", "k"); got != "new" {
			t.Errorf("%q is read", got)
		}
	}
	return waits || ambiguous.IsZero()
}

// TestDropSilent: to drop all does not wait for a server that says nothing, also where it must be
// asked where the name of an open file leads.
func TestDropSilent(t *testing.T) {
	w := newWorld(t, "", true)
	w.host(store.Put, "k", "v")
	w.settled()
	w.cat("keys", "k")
	_, fh := w.open(syscall.O_RDONLY, "keys", "k")
	w.nameTime("keys", "k")
	w.hears.Lock()
	begun := w.sent.Load()
	done := make(chan error, 1)
	go func() { done <- w.dropAll(keep.Interrupt{}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(waiting):
		t.Error("it waits for the server")
	}
	if w.sent.Load() == begun {
		t.Log("the name was too old to be asked for")
	}
	w.hears.Unlock()
	w.shut(fh)
}

// TestStaleName: where the kernel's name leads to another file by now, or to none, and no event has
// told of it, a change is ESTALE, and the name that the kernel looks up then is asked of the
// server: so open(2) finds what is there, or makes it.
func TestStaleName(t *testing.T) {
	stale := fuse.Status(syscall.ESTALE)
	for name, do := range map[string]func(w *world, node uint64) fuse.Status{
		"open": func(w *world, node uint64) fuse.Status {
			var out fuse.OpenOut
			code := w.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}, Flags: syscall.O_WRONLY}, &out)
			if code.Ok() {
				w.shut(out.Fh)
			}
			return code
		},
		"chmod": func(w *world, node uint64) fuse.Status {
			set := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o640}}
			set.NodeId = node
			return w.SetAttr(nil, set, &fuse.AttrOut{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", true)
			w.host(store.Put, "k", "old")
			w.host(store.Put, "other", "")
			w.settled()
			w.look("keys", "k")
			node, _ := w.look("keys", "k")
			stands, _ := w.sticks("keys", "other")
			w.host(store.Put, "other", "x")
			stands() // no event comes any more
			w.host(store.Remove, "k", "")
			if code := do(w, node); code != stale {
				t.Errorf("of a removed key: %v", code)
			}
			if _, code := w.look("keys", "k"); code != fuse.ENOENT {
				t.Errorf("its name: %v", code)
			}
			w.host(store.Put, "k", "new")
			if code := do(w, node); code != stale {
				t.Errorf("of a replaced key: %v", code)
			}
			again, code := w.look("keys", "k")
			if !code.Ok() || again == node {
				t.Errorf("its name leads to %d, as before, %v", again, code)
			}
			if code := do(w, again); !code.Ok() {
				t.Errorf("of the new one: %v", code)
			}
		})
	}
}
