package store_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/store"
	"meta9/fs/vm"
)

func note(t testing.TB, s *store.Store, c *store.Cell, key string) {
	t.Helper()
	do(t, s, store.Intent{Kind: store.Note, Cell: c, Event: store.QMP, Name: key, By: "q"})
}

func keysOf(events []store.Event) (keys []string) {
	for _, ev := range events {
		keys = append(keys, ev.Key)
	}
	return keys
}

func TestEvents(t *testing.T) {
	now := time.Unix(5, 6)
	s := open(t, store.NewMemory(), store.Config{Now: func() time.Time { return now }})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	ring := c.Ring()
	from := ring.Last()
	do(t, s, store.Intent{Kind: store.Put, Cell: c, Space: vm.Internal, Name: "k", By: "me"})
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"ram":1,"set_customer_metadata":{"x":"y"}}`, By: "op"})
	do(t, s, store.Intent{Kind: store.Set, Cell: c, Name: "x", NewName: "z"})
	do(t, s, store.Intent{Kind: store.Remove, Cell: c, Name: "z"})
	note(t, s, c, "STOP")
	note(t, s, nil, "daemon")
	do(t, s, store.Intent{Kind: store.DeleteVM, Cell: c, By: "op"})
	ev := func(i uint64, kind store.EventType, space vm.Space, key, by string) store.Event {
		return store.Event{Rev: from + i, Date: now.UnixNano(), Type: kind, VM: uuidA, Key: key, Space: space, By: by}
	}
	all := []store.Event{
		ev(1, store.KeySet, vm.Internal, "k", "me"),
		ev(2, store.VMChanged, vm.Keys, "", "op"),
		ev(3, store.KeySet, vm.Keys, "x", "op"),
		ev(4, store.KeyRemoved, vm.Keys, "x", ""),
		ev(5, store.KeySet, vm.Keys, "z", ""),
		ev(6, store.KeyRemoved, vm.Keys, "z", ""),
		ev(7, store.QMP, vm.Keys, "STOP", "q"),
		ev(8, store.QMP, vm.Keys, "daemon", "q"),
		ev(9, store.VMDeleted, vm.Keys, "", "op"),
	}
	all[7].VM = ""
	got, lost := s.Ring().After(from, 0, nil)
	if d := cmp.Diff(all, got); d != "" || lost != 0 {
		t.Errorf("root's: lost %d\n%s", lost, d)
	}
	got, lost = ring.After(from, 0, nil)
	if d := cmp.Diff(slices.Delete(all, 7, 8), got); d != "" || lost != 0 {
		t.Errorf("VM's: lost %d\n%s", lost, d)
	}
}

func TestRingLoses(t *testing.T) {
	s, c := withVM(t, store.Config{VMEvents: 4, RootEvents: 6})
	vmRing, root := c.Ring(), s.Ring()
	start := vmRing.Last()
	if start != s.Rev() || root.Last() != start {
		t.Fatalf("rings begin at %d and %d, the store is at %d", start, root.Last(), s.Rev())
	}
	for i := range 10 {
		note(t, s, c, fmt.Sprint(i))
	}
	for _, c := range []struct {
		name string
		ring *store.Ring
		rev  uint64
		max  int
		want []string
		lost uint64
	}{
		{"VM's, all", vmRing, start, 0, []string{"6", "7", "8", "9"}, start + 6},
		{"VM's, some", vmRing, start, 3, []string{"6", "7", "8"}, start + 6},
		{"VM's, just lost one", vmRing, start + 5, 1, []string{"6"}, start + 6},
		{"VM's, just not", vmRing, start + 6, 2, []string{"6", "7"}, 0},
		{"VM's, newest", vmRing, start + 9, 5, []string{"9"}, 0},
		{"VM's, at the end", vmRing, start + 10, 5, nil, 0},
		{"VM's, past the end", vmRing, start + 99, 5, nil, 0},
		{"VM's, from the beginning of time", vmRing, 0, 1, []string{"6"}, start + 6},
		{"root's, all", root, start, 0, []string{"4", "5", "6", "7", "8", "9"}, start + 4},
		{"root's, not lost", root, start + 4, 1, []string{"4"}, 0},
		{"late, all", c.Ring(), start, 0, []string{"6", "7", "8", "9"}, start + 6},
	} {
		events, lost := c.ring.After(c.rev, c.max, nil)
		if !slices.Equal(keysOf(events), c.want) || lost != c.lost {
			t.Errorf("%s: %q, lost %d; want %q, %d", c.name, keysOf(events), lost, c.want, c.lost)
		}
	}
	buf := make([]store.Event, 1, 20)
	if events, _ := vmRing.After(start+8, 0, buf); len(events) != 3 || &events[0] != &buf[0] {
		t.Error("After does not append to its buffer")
	}
}

// TestRingMadeLate is first asked for when there were events: they are lost, and
// a reader who has a position from before is told.
func TestRingMadeLate(t *testing.T) {
	s, c := withVM(t, store.Config{})
	from := s.Rev()
	note(t, s, c, "early")
	if events, lost := c.Ring().After(from, 0, nil); len(events) != 0 || lost != s.Rev() {
		t.Errorf("%q, lost %d", keysOf(events), lost)
	}
	note(t, s, c, "late")
	if events, lost := c.Ring().After(c.Ring().Last()-1, 0, nil); len(events) != 1 || lost != 0 {
		t.Errorf("%q, lost %d", keysOf(events), lost)
	}
}

func TestWait(t *testing.T) {
	s, c := withVM(t, store.Config{})
	ring := c.Ring()
	woken := make(chan string, 10)
	wake := func(who string) func() { return func() { woken <- who } }
	last := ring.Last()
	if cancel, ready := ring.Wait(last-1, wake("never")); !ready {
		t.Error("not ready for what is there")
	} else {
		cancel()
	}
	cancelA, readyA := ring.Wait(last, wake("a"))
	cancelB, readyB := ring.Wait(last, wake("b"))
	if readyA || readyB {
		t.Error("ready for nothing")
	}
	cancelB()
	cancelB()
	note(t, s, nil, "another ring's")
	note(t, s, c, "x")
	if who := wait(t, woken); who != "a" {
		t.Errorf("%s is woken", who)
	}
	note(t, s, c, "y")
	cancelA()
	do(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "k"})
	if len(woken) != 0 {
		t.Errorf("%s is woken, too", <-woken)
	}
}

// TestWaitRaces has readers that wait, cancel and read while events come. None
// may be forgotten, none may be woken twice or after it was told that it is not.
func TestWaitRaces(t *testing.T) {
	const readers, events = 8, 300
	s, c := withVM(t, store.Config{VMEvents: 2 * events})
	ring := c.Ring()
	from := ring.Last()
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			rev, seen := from, 0
			for seen < events {
				woken := make(chan struct{}, 2)
				cancel, ready := ring.Wait(rev, func() { woken <- struct{}{} })
				if i%2 == 0 && !ready && seen%3 == 0 {
					cancel()
					cancel()
					continue
				}
				if !ready {
					<-woken
				}
				cancel()
				got, lost := ring.After(rev, 1+i, nil)
				if lost != 0 || len(got) == 0 || len(woken) != 0 {
					t.Errorf("%d events, lost %d, woken %d times more", len(got), lost, len(woken))
					return
				}
				seen, rev = seen+len(got), got[len(got)-1].Rev
			}
		})
	}
	for i := range events {
		note(t, s, c, fmt.Sprint(i))
	}
	wg.Wait()
}

// TestCancelledIsNotWoken cancels just before an event.
func TestCancelledIsNotWoken(t *testing.T) {
	s, c := withVM(t, store.Config{})
	var cancelled atomic.Bool
	for range 200 {
		cancelled.Store(false)
		cancel, _ := c.Ring().Wait(c.Ring().Last(), func() {
			if cancelled.Load() {
				t.Error("woken after cancel")
			}
		})
		cancel()
		cancelled.Store(true)
		note(t, s, c, "x")
	}
}

// TestRingMadeMeanwhile asks for a ring while events come: none is missed from
// the revision on at which it begins.
func TestRingMadeMeanwhile(t *testing.T) {
	for range 100 {
		s, c := withVM(t, store.Config{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 50 {
				s.Do(&store.Intent{Kind: store.Note, Cell: c})
			}
		})
		ring := c.Ring()
		from := ring.Last()
		wg.Wait()
		note(t, s, c, "end")
		events, lost := ring.After(from, 0, nil)
		// All events are this VM's, and so have each revision after the first.
		if n := uint64(len(events)); lost != 0 || n == 0 || events[0].Rev != from+1 || events[n-1].Rev != from+n || from+n != s.Rev() {
			t.Fatalf("from %d to %d: lost %d, %+v", from, s.Rev(), lost, events)
		}
		_ = s.Close()
	}
}

// TestCrowd has many who wait for the events of one VM: they are woken, but not by the
// committer, which has others to serve.
func TestCrowd(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	const many = 1000
	r := c.Ring()
	goOn, woken := make(chan struct{}), make(chan struct{}, many)
	for range many {
		if _, ready := r.Wait(r.Last(), func() { <-goOn; woken <- struct{}{} }); ready {
			t.Fatal("an event before the first")
		}
	}
	put(t, s, c, "k", "1")
	put(t, s, c, "k", "2") // while the first of them is being woken
	close(goOn)
	for range many {
		wait(t, woken)
	}
}

// TestManyReadersOfAll: commits go on while many readers of all VMs' events are being
// woken, and each of them is woken.
func TestManyReadersOfAll(t *testing.T) {
	s, c := withVM(t, store.Config{})
	const readers = 1000
	var woken sync.WaitGroup
	woken.Add(readers)
	release := make(chan struct{})
	for range readers {
		if _, ready := s.Ring().Wait(s.Rev(), func() { <-release; woken.Done() }); ready {
			t.Fatal("there is an event already")
		}
	}
	for i := range 10 {
		put(t, s, c, "k", fmt.Sprint(i)) // with waking the readers itself, the committer would wait here
	}
	close(release)
	woken.Wait()
}
