package fs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs"
	"meta9/fs/store"
)

// line is an event line without what differs from run to run.
type line struct {
	Type, VM, Key, Space, By string
	From, To                 uint64
	Rev                      uint64
	Date                     string
}

// parseLines makes lines of what was read; a half line is an error.
func parseLines(t testing.TB, text string) []line {
	t.Helper()
	var lines []line
	for l := range strings.Lines(text) {
		var e line
		if err := json.Unmarshal([]byte(l), &e); err != nil || !strings.HasSuffix(l, "\n") {
			t.Fatalf("line %q: %v", l, err)
		}
		lines = append(lines, e)
	}
	return lines
}

// brief is "type key" of every line.
func brief(lines []line) []string {
	var s []string
	for _, l := range lines {
		s = append(s, strings.TrimSpace(l.Type+" "+l.Key))
	}
	return s
}

// stream reads an events file as a client does: at the offset where it is.
type stream struct {
	c   *client
	h   fs.Handle
	off uint64
}

func (c *client) events(f fs.Flags, names ...string) *stream {
	c.w.Helper()
	return &stream{c: c, h: c.open(fs.Read|f, append(names, "events")...)}
}

// next reads once, n bytes at most.
func (s *stream) next(n int) (string, error) {
	text, err := s.c.read(s.h, s.off, n)
	s.off += uint64(len(text))
	return text, err
}

// mustNext reads once.
func (s *stream) mustNext(n int) string {
	s.c.w.Helper()
	text, err := s.next(n)
	if err != nil {
		s.c.w.Fatal(err)
	}
	return text
}

// TestEventLine is the form of a line.
func TestEventLine(t *testing.T) {
	w := worldOn(t, store.NewMemory(), store.Config{
		Now: func() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 5e6, time.UTC) },
	}, nil)
	c := w.admin()
	defer c.view.Close()
	s := c.events(0)
	w.st.Do(&store.Intent{Kind: store.Put, Cell: w.cell(vmA), Name: `q"☃`, Data: "v", By: "admin", As: `say "me"`})
	w.barrier()
	text := s.mustNext(1 << 10)
	want := `{"rev":` + fmt.Sprint(w.st.Rev()) + `,"date":"2026-07-01T12:00:00.005Z","type":"key-set","vm":"` + vmA +
		`","key":"q\"☃","space":"keys","by":"admin","as":"say \"me\""}` + "\n"
	if text != want {
		t.Errorf("got  %s want %s", text, want)
	}
}

// TestEventsAreAByteStream: it starts at the open, and goes on whatever the offset.
func TestEventsAreAByteStream(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	w.put(vmA, "before", "x")
	s := c.events(0)
	if _, err := s.next(100); !errors.Is(err, fs.ErrWait) {
		t.Fatalf("nothing happened yet: %v", err)
	}
	w.put(vmA, "one", "x")
	w.put(vmA, "two", "x")
	whole := s.mustNext(1 << 10)
	if diff := cmp.Diff([]string{"key-set one", "key-set two"}, brief(parseLines(t, whole))); diff != "" {
		t.Error(diff)
	}
	w.put(vmA, "three", "x")
	if got, err := c.read(s.h, 5, 1<<10); err != nil || !strings.Contains(got, "three") {
		t.Errorf("at another offset: %q, %v", got, err)
	}
	// A line that does not fit comes in parts.
	w.put(vmA, "four", "x")
	s.off = 9999
	var parts string
	for !strings.HasSuffix(parts, "\n") {
		parts += s.mustNext(7)
	}
	if diff := cmp.Diff([]string{"key-set four"}, brief(parseLines(t, parts))); diff != "" {
		t.Error(diff)
	}
	if _, err := s.next(7); !errors.Is(err, fs.ErrWait) {
		t.Errorf("after the last: %v", err)
	}
}

// TestEventsRepeat: a read at the previous offset repeats the previous bytes, so
// that a lost reply loses nothing.
func TestEventsRepeat(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	s := c.events(0)
	w.put(vmA, "one", "x")
	first := s.mustNext(1 << 10)
	w.put(vmA, "two", "x")
	for range 2 {
		if got := c.mustRead(s.h, 0, 1<<10); got != first {
			t.Fatalf("again: %q, want %q", got, first)
		}
	}
	// With less room than before: a part of them, and the rest next.
	part := c.mustRead(s.h, 0, 10)
	rest := c.mustRead(s.h, 10, 1<<10)
	if part+rest != first {
		t.Fatalf("%q and %q are not %q", part, rest, first)
	}
	if got := c.mustRead(s.h, 10, 1<<10); got != rest {
		t.Fatalf("the rest again: %q, want %q", got, rest)
	}
	second := c.mustRead(s.h, uint64(len(first)), 1<<10)
	if diff := cmp.Diff([]string{"key-set two"}, brief(parseLines(t, second))); diff != "" {
		t.Error(diff)
	}
	// A read that found nothing does not forget the last bytes.
	if _, err := c.read(s.h, uint64(len(first+second)), 10); !errors.Is(err, fs.ErrWait) {
		t.Fatal(err)
	}
	if got := c.mustRead(s.h, uint64(len(first)), 1<<10); got != second {
		t.Fatalf("again: %q, want %q", got, second)
	}
}

// TestEventsLost: a reader that fell behind is told from where to where, first.
func TestEventsLost(t *testing.T) {
	w := newWorld(t, store.Config{VMEvents: 4})
	c := w.guest(vmA)
	defer c.view.Close()
	s := c.events(0)
	w.put(vmA, "k0", "x")
	last := parseLines(t, s.mustNext(1<<10))[0].Rev
	for i := range 10 {
		w.put(vmA, fmt.Sprint("k", i+1), "x")
	}
	lines := parseLines(t, s.mustNext(8<<10))
	want := []string{"lost", "key-set k7", "key-set k8", "key-set k9", "key-set k10"}
	if diff := cmp.Diff(want, brief(lines)); diff != "" {
		t.Fatal(diff)
	}
	if lines[0].From != last+1 || lines[0].To != lines[1].Rev-1 {
		t.Errorf("lost %d to %d, between %d and %d", lines[0].From, lines[0].To, last, lines[1].Rev)
	}
}

// TestEventsOfAGuest: its own VM's, without what is hidden from it.
func TestEventsOfAGuest(t *testing.T) {
	w := newWorld(t, store.Config{})
	guest, admin := w.guest(vmA), w.admin()
	defer guest.view.Close()
	defer admin.view.Close()
	own, all, one := guest.events(0), admin.events(0), admin.events(0, "vms", vmA)
	put := func(sp, name string) {
		dir := admin.walk("vms", vmA, sp).Node().(fs.Putter)
		if err := admin.await(func(done func(error)) { dir.Put(name, nil, fs.Author{By: "admin"}, done) }); err != nil {
			t.Fatal(err)
		}
	}
	put("keys", "color")
	put("keys", "x_pw")
	put("keys", "ns:x")
	put("internal", "secret")
	put("internal", "root_pw")
	put("internal", "ns:role")
	put("internal", "operator-script")
	w.put(vmB, "color", "x")
	for _, typ := range []store.EventType{store.SessionParked, store.SessionResumed, store.QMP} {
		w.st.Do(&store.Intent{Kind: store.Note, Cell: w.cell(vmA), Event: typ, Name: "about", By: "x"})
	}
	w.st.Do(&store.Intent{Kind: store.UpdateVM, Cell: w.cell(vmA), Data: `{"ram":1}`})
	common := []string{
		"key-set color", "key-set x_pw", "key-set ns:x", "key-set secret", "key-set root_pw",
		"key-set ns:role", "key-set operator-script",
	}
	notes := []string{"session-parked about", "session-resumed about", "qmp about", "vm-changed"}
	for _, tt := range []struct {
		name string
		s    *stream
		want []string
	}{
		{"guest", own, []string{"key-set color", "key-set root_pw", "key-set ns:role", "vm-changed"}},
		{"admin's vm", one, append(append([]string{}, common...), notes...)},
		{"admin's root", all, append(append(append([]string{}, common...), "key-set color"), notes...)},
	} {
		if diff := cmp.Diff(tt.want, brief(parseLines(t, tt.s.mustNext(8<<10)))); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// TestEventsEndWithTheVM: the deletion is the last line, and wakes who waits.
func TestEventsEndWithTheVM(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	s := c.events(0)
	woken := make(chan struct{})
	_, ready := s.h.(fs.Waiter).Wait(func() { close(woken) })
	if ready {
		t.Fatal("ready before anything happened")
	}
	w.st.Do(&store.Intent{Kind: store.DeleteVM, Cell: w.cell(vmA)})
	select {
	case <-woken:
	case <-time.After(wait):
		t.Fatal("not woken")
	}
	if diff := cmp.Diff([]string{"vm-deleted"}, brief(parseLines(t, s.mustNext(1<<10)))); diff != "" {
		t.Error(diff)
	}
	if _, err := s.next(1 << 10); kindName(err) != "Gone" {
		t.Errorf("after the end: %v", err)
	}
	if _, ready := s.h.(fs.Waiter).Wait(func() {}); !ready {
		t.Error("a wait for what never comes")
	}
}

// TestEventsRestore: a stream goes on in another View where it was.
func TestEventsRestore(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	s := c.events(0)
	ref := c.walk("events").State()
	w.put(vmA, "one", "x")
	w.put(vmA, "two", "x")
	first := s.mustNext(20) // in the middle of a line
	b, err := json.Marshal(s.h.State())
	if err != nil {
		t.Fatal(err)
	}
	s.h.Drop()
	c.view.Close()
	w.put(vmA, "three", "x")

	var hs fs.HandleState
	if err := json.Unmarshal(b, &hs); err != nil {
		t.Fatal(err)
	}
	c = w.guest(vmA)
	defer c.view.Close()
	r, err := c.view.Restore(ref)
	if err != nil {
		t.Fatal(err)
	}
	h, err := r.RestoreHandle(hs)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.mustRead(h, 0, 20); got != first {
		t.Errorf("again: %q, want %q", got, first)
	}
	all, off := first, uint64(len(first))
	for {
		text, err := c.read(h, off, 64)
		if err != nil || text == "" {
			break
		}
		all, off = all+text, off+uint64(len(text))
	}
	if diff := cmp.Diff([]string{"key-set one", "key-set two", "key-set three"}, brief(parseLines(t, all))); diff != "" {
		t.Error(diff)
	}
}

// TestEventsRestoreElsewhere: a state from a store with other revisions neither
// hangs nor repeats.
func TestEventsRestoreElsewhere(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	h, err := c.walk("events").RestoreHandle(fs.HandleState{Flags: fs.Read, Rev: 1 << 60, Offset: 7, Last: []byte("x\n")})
	if err != nil {
		t.Fatal(err)
	}
	w.put(vmA, "one", "x")
	if got := c.mustRead(h, 9, 1<<10); !strings.Contains(got, "one") {
		t.Errorf("read %q", got)
	}
}

// TestEventsWait: many readers wait, some give up, none misses an event or is
// woken twice. Meaningful under -race.
func TestEventsWait(t *testing.T) {
	w := newWorld(t, store.Config{VMEvents: 4096})
	const readers, puts = 8, 100
	var wg, opened sync.WaitGroup
	opened.Add(readers)
	for i := range readers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := w.guest(vmA)
			defer c.view.Close()
			started := c.events(0)
			opened.Done()
			seen := 0
			for seen < puts {
				text, err := started.next(300)
				seen += strings.Count(text, "\n")
				if err == nil {
					continue
				}
				woken := make(chan struct{})
				cancel, ready := started.h.(fs.Waiter).Wait(func() { close(woken) })
				if ready {
					continue
				}
				if i%2 == 0 { // an impatient one asks again
					cancel()
					cancel()
					continue
				}
				<-woken
				cancel()
			}
			if seen != puts {
				t.Errorf("reader %d saw %d events", i, seen)
			}
		}()
	}
	opened.Wait()
	for i := range puts {
		w.put(vmA, "k", fmt.Sprint(i))
	}
	wg.Wait()
}
