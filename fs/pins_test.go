package fs_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// checkOld checks what the pinned old values cost.
func (w *world) checkOld(values, bytes int) {
	w.Helper()
	w.barrier()
	_, gotBytes, gotCount := w.tree.OpenStats()
	if int(gotCount) != values || int(gotBytes) != bytes+values*fs.PinCost {
		w.Errorf("%d old values of %d bytes, want %d of %d",
			gotCount, int(gotBytes)-int(gotCount)*fs.PinCost, values, bytes)
	}
}

// checkClosed checks that nothing is open any more.
func (w *world) checkClosed() {
	w.Helper()
	if tables, bytes, count := w.tree.OpenStats(); tables != 0 || bytes != 0 || count != 0 {
		w.Errorf("all is closed, and %d tables pin %d values of %d bytes", tables, count, bytes)
	}
}

// wantSecond checks the second byte that each handle reads, which is in the value that it has.
func (c *client) wantSecond(handles []fs.Handle, want string) {
	c.w.Helper()
	for i, h := range handles {
		if got := c.mustRead(h, 1, 1); got != want[i:i+1] {
			c.w.Errorf("handle %d reads %q, want %q", i, got, want[i:i+1])
		}
	}
}

// TestPinsAreCounted: an old value is counted once, however many read it, until
// the last of them lets it go.
func TestPinsAreCounted(t *testing.T) {
	w := newWorld(t, store.Config{})
	a, b := w.guest(vmA), w.guest(vmA)
	w.put(vmA, "k", "0123456789")
	h1, h2, h3 := a.open(fs.Read, "keys", "k"), a.open(fs.Read, "keys", "k"), b.open(fs.Read, "keys", "k")
	w.checkOld(0, 0)
	w.put(vmA, "k", "x")
	w.checkOld(1, 10)
	w.put(vmA, "k", "yy") // nobody has read x
	w.checkOld(1, 10)
	a.mustRead(h1, 0, 1)
	w.put(vmA, "k", "zzz")
	w.checkOld(2, 12)
	h2.Drop()
	w.checkOld(2, 12)
	b.view.Park()
	w.checkOld(2, 12)
	if got := b.mustRead(h3, 2, 1); got != "2" { // whose beginning was read before
		t.Errorf("after parking: %q", got)
	}
	a.view.Close()
	w.checkOld(1, 10)
	b.view.Close()
	w.checkClosed()
}

// TestStateOfAnOldValue: who has read half of a value gets the other half of it in another
// process, too; a value that is too long for a State is the newest there.
func TestStateOfAnOldValue(t *testing.T) {
	w := newWorld(t, store.Config{})
	a, b := w.guest(vmA), w.guest(vmA)
	for _, size := range []int{10, fs.MaxOld, fs.MaxOld + 1} {
		w.put(vmA, "k", strings.Repeat("a", size))
		h := a.open(fs.Read, "keys", "k")
		if st := h.State(); st.Old != nil {
			t.Errorf("%d bytes are in the State while they are the newest", len(st.Old))
		}
		w.put(vmA, "k", "b+")
		state := h.State()
		h.Drop()
		h, err := b.walk("keys", "k").RestoreHandle(state)
		if err != nil {
			t.Fatal(err)
		}
		want, old := "aaa", 1
		if size > fs.MaxOld {
			want, old = "+", 0
		}
		if got := b.mustRead(h, 1, 3); got != want {
			t.Errorf("%d bytes: %q, want %q", size, got, want)
		}
		w.checkOld(old, old*size)
		if again := h.State(); len(again.Old) != old*size || again.Rev != state.Rev {
			t.Errorf("%d bytes: the State of what was restored has %d, of %d not %d", size, len(again.Old), again.Rev, state.Rev)
		}
		w.put(vmA, "k", "c+")
		if got := b.mustRead(h, 0, 3); got != "c+" {
			t.Errorf("from the beginning: %q", got)
		}
		w.checkOld(0, 0)
		h.Drop()
	}
	a.view.Close()
	b.view.Close()
	w.checkClosed()
}

// TestManyStatesOfAnOldValue: readers that have shared one old value have a copy each in another
// process. All copies count, and those past the limit are let go.
func TestManyStatesOfAnOldValue(t *testing.T) {
	const size = 1000
	w := newWorld(t, store.Config{Limits: vm.Limits{Value: 4096, Keys: 20, Bytes: 4 * (size + fs.PinCost)}})
	c := w.guest(vmA)
	w.put(vmA, "k", strings.Repeat("a", size))
	h := c.open(fs.Read, "keys", "k")
	w.put(vmA, "k", strings.Repeat("b", size))
	state := h.State()
	h.Drop()
	var handles []fs.Handle
	for range 5 {
		h, err := c.walk("keys", "k").RestoreHandle(state)
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, h)
	}
	w.checkOld(3, 3*size)
	c.wantSecond(handles, "bbaaa")
	c.view.Close()
	w.checkClosed()
}

// TestPinsOfDerivedFiles are counted too.
func TestPinsOfDerivedFiles(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	h := c.open(fs.Read, "vm.json")
	var st fs.Stat
	if err := h.Stat(&st); err != nil {
		t.Fatal(err)
	}
	w.put(vmA, "k", "x")
	w.checkOld(1, int(st.Length))
	c.mustRead(h, 0, 1)
	w.checkOld(0, 0)
	c.view.Close()
	w.checkClosed()
}

// TestOldestPinGoes: old values count against the VM's bytes; past that the oldest
// goes, and its handle reads the current value.
func TestOldestPinGoes(t *testing.T) {
	const size = 1000
	w := newWorld(t, store.Config{Limits: vm.Limits{Value: 4096, Keys: 20, Bytes: 4 * (size + fs.PinCost)}})
	c := w.guest(vmA)
	defer c.view.Close()
	value := func(b byte) string { return strings.Repeat(string(b), size) }
	var handles []fs.Handle
	for i := range 5 {
		w.put(vmA, "k", value('a'+byte(i)))
		handles = append(handles, c.open(fs.Read, "keys", "k"))
	}
	// The VM itself has one value, so that three old ones of the four have room.
	w.barrier()
	c.wantSecond(handles, "ebcde")
	// A larger VM leaves less room.
	w.put(vmA, "other", value('x'))
	w.barrier()
	c.wantSecond(handles, "eecde")
	// A removed key's value may go as well: then there is nothing to read.
	w.st.Do(&store.Intent{Kind: store.Remove, Cell: w.cell(vmA), Name: "k"})
	for _, k := range []string{"other2", "other3", "other4"} {
		w.put(vmA, k, value('x'))
	}
	w.barrier()
	for i, h := range handles {
		if _, err := c.read(h, 1, 1); kindName(err) != "Gone" {
			t.Errorf("handle %d: %v, want Gone", i, err)
		}
	}
}

// TestManyPins: any number of handles on old values of any number of keys stays
// within the limit, and all is forgotten in the end.
func TestManyPins(t *testing.T) {
	const limit = 64 << 10
	w := newWorld(t, store.Config{Limits: vm.Limits{Value: 4096, Keys: 20, Bytes: limit}})
	c := w.guest(vmA)
	for i := range 3000 {
		w.put(vmA, fmt.Sprint("k", i%5), fmt.Sprint(i))
		c.open(fs.Read, "keys", fmt.Sprint("k", i%5))
		if _, bytes, _ := w.tree.OpenStats(); bytes+w.cell(vmA).VM().Bytes() > limit {
			t.Fatalf("after %d: old values cost %d", i, bytes)
		}
	}
	c.view.Close()
	w.checkClosed()
}

// TestReadersAndCommits: what a handle reads from offset 0 on is one value, while
// others commit and other handles come and go. Meaningful under -race.
func TestReadersAndCommits(t *testing.T) {
	w := newWorld(t, store.Config{})
	const readers, rounds = 6, 300
	w.put(vmA, "k", strings.Repeat("a", 9))
	var wg sync.WaitGroup
	var done atomic.Bool
	for i := range readers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := w.guest(vmA)
			defer c.view.Close()
			h := c.open(fs.Read, "keys", "k")
			for n := 0; !done.Load() || n < 10; n++ {
				s, err := readAll(c, h)
				if value := strings.Trim(s, `"`); err != nil || len(value) < 9 || strings.Trim(value, value[:1]) != "" {
					t.Errorf("reader %d: %s, %v", i, s, err)
					return
				}
				if n%7 == i {
					h.Drop()
					h = c.open(fs.Read, "keys", "k")
				}
				if n%31 == i {
					c.view.Park()
				}
			}
		}()
	}
	for i := range rounds {
		w.put(vmA, "k", strings.Repeat(string(rune('a'+i%26)), 9+i%3))
	}
	done.Store(true)
	wg.Wait()
	w.checkClosed()
}

// TestReadAllocatesNothing, nor does Stat, whatever the offset.
func TestReadAllocatesNothing(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	w.put(vmA, "k", strings.Repeat("x", 100))
	h := c.open(fs.Read|fs.Write, "keys", "k")
	json := c.open(fs.Read, "vm.json")
	esc := c.walk("keys", "a%2Fb")
	ref, dir, sdc := c.walk("keys", "k"), c.walk("keys"), c.walk("sdc", "uuid")
	p := make([]byte, 64)
	var st fs.Stat
	for name, f := range map[string]func() error{
		"read at 0":    func() error { _, err := h.Read(p, 0); return err },
		"read at 64":   func() error { _, err := h.Read(p, 64); return err },
		"read the end": func() error { _, err := h.Read(p, 100); return err },
		"read vm.json": func() error { _, err := json.Read(p, 0); return err },
		"stat":         func() error { return ref.Stat(&st) },
		"stat escaped": func() error { return esc.Stat(&st) },
		"stat dir":     func() error { return dir.Stat(&st) },
		"stat root":    func() error { return c.root.Stat(&st) },
		"stat handle":  func() error { return h.Stat(&st) },
		"stat sdc":     func() error { return sdc.Stat(&st) },
		"qid":          func() error { _ = ref.QID(); return nil },
	} {
		if n := testing.AllocsPerRun(100, func() {
			if err := f(); err != nil {
				t.Fatal(name, err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	w := newWorld(b, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	w.put(vmA, "k", strings.Repeat("x", 100))
	h := c.open(fs.Read, "keys", "k")
	p := make([]byte, 8192)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := h.Read(p, 0); n != 100 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkStat(b *testing.B) {
	w := newWorld(b, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	r := c.walk("keys", "color")
	var st fs.Stat
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Stat(&st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWalkOpenReadClunk(b *testing.B) {
	w := newWorld(b, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	p := make([]byte, 8192)
	b.ReportAllocs()
	for b.Loop() {
		h := c.open(fs.Read, "keys", "color")
		if _, err := h.Read(p, 0); err != nil {
			b.Fatal(err)
		}
		h.Clunk(fs.Author{}, func(error) {})
	}
}
