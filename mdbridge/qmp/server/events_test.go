package server

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta9/fs/store"
	"meta9/fs/vm"
)

// heard is everything that a client is told, with the milliseconds since the
// start: "12 EVENT data".
func heard(c *client, start time.Time, n int) []string {
	c.t.Helper()
	var all []string
	for range n {
		e := c.event()
		what := fmt.Sprintf("%d %s", time.Since(start).Milliseconds(), e.Event)
		for _, member := range []string{"uuid", "space", "key", "change"} {
			if v, ok := e.Data[member]; ok {
				what += " " + strings.TrimPrefix(fmt.Sprint(v), "550e8400-e29b-41d4-a716-00000000000")
			}
		}
		all = append(all, what)
	}
	return all
}

// expect compares what is told with what should be, and then that there is nothing
// more for a while.
func expect(c *client, start time.Time, want ...string) {
	c.t.Helper()
	if got := heard(c, start, len(want)); strings.Join(got, "\n") != strings.Join(want, "\n") {
		c.t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if text, err := c.in.ReadString('\n'); err == nil {
		c.t.Errorf("told more: %s", text)
	}
	_ = c.conn.SetReadDeadline(time.Time{})
}

// at waits until ms after the start, and does it.
func at(start time.Time, ms int, f func()) {
	time.Sleep(time.Until(start.Add(time.Duration(ms) * time.Millisecond)))
	f()
	synctest.Wait()
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		cell := w.vm(`{"uuid":"` + uuid1 + `"}`)
		c := w.dial()
		start := time.Now()
		put := func() { w.do(store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "v"}) }
		go func() {
			for _, ms := range []int{0, 100, 200, 300, 950, 1100, 1900, 5000} {
				at(start, ms, put)
			}
			at(start, 5500, func() { w.do(store.Intent{Kind: store.Remove, Cell: cell, Name: "k"}) })
		}()
		expect(c, start,
			"0 METADATA_CHANGED 1 keys k set",
			"1000 METADATA_CHANGED 1 keys k set",
			"2000 METADATA_CHANGED 1 keys k set",
			"5000 METADATA_CHANGED 1 keys k set",
			"6000 METADATA_CHANGED 1 keys k removed",
		)
	})
}

// TestSimilar: events are similar that are of one type, VM, space and key.
func TestSimilar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		one, two := w.vm(`{"uuid":"`+uuid1+`"}`), w.vm(`{"uuid":"`+uuid2+`"}`)
		c := w.dial()
		start := time.Now()
		put := func(cell *store.Cell, space vm.Space, key string) {
			w.do(store.Intent{Kind: store.Put, Cell: cell, Space: space, Name: key, Data: "v"})
		}
		update := func(cell *store.Cell, patch string) {
			w.do(store.Intent{Kind: store.UpdateVM, Cell: cell, Data: patch})
		}
		go func() {
			put(one, vm.Keys, "a")
			put(one, vm.Keys, "b")
			put(one, vm.Internal, "a")
			put(two, vm.Keys, "a")
			update(one, `{"ram":1}`)
			update(two, `{"ram":1}`)
			update(one, `{"ram":2}`)
			put(one, vm.Keys, "b")
		}()
		expect(c, start,
			"0 METADATA_CHANGED 1 keys a set", "0 METADATA_CHANGED 1 keys b set", "0 METADATA_CHANGED 1 internal a set",
			"0 METADATA_CHANGED 2 keys a set", "0 VM_CHANGED 1", "0 VM_CHANGED 2",
			"1000 METADATA_CHANGED 1 keys b set", "1000 VM_CHANGED 1",
		)
	})
}

// TestFinalState: what is told last is how it is, also where VMs come and go
// faster than similar events are told.
func TestFinalState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		c := w.dial()
		start := time.Now()
		go func() {
			for range 3 {
				cell := w.vm(`{"uuid":"` + uuid1 + `"}`)
				w.do(store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "1"})
				w.do(store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "2"})
				w.do(store.Intent{Kind: store.DeleteVM, Cell: cell})
			}
		}()
		once := []string{"0 VM_CREATED 1", "0 METADATA_CHANGED 1 keys k set", "0 VM_DELETED 1"}
		expect(c, start, append(append(append([]string{}, once...), once...), once...)...)
	})
}

// TestEventsLost: who reads too slowly learns what he missed, and holds up nobody.
func TestEventsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		cell := w.vm(`{"uuid":"` + uuid1 + `"}`)
		c := w.dial()
		w.do(store.Intent{Kind: store.Put, Cell: cell, Name: "first", Data: "v"})
		synctest.Wait() // the writer is stuck in the first event
		for i := range 200 {
			w.do(store.Intent{Kind: store.Put, Cell: cell, Name: fmt.Sprint(i), Data: "v"})
		}
		if e := c.event(); e.Data["key"] != "first" {
			t.Errorf("%+v", e)
		}
		e := c.event()
		if e.Event != "EVENTS_LOST" || fmt.Sprint(e.Data) != "map[from:3 to:74]" {
			t.Errorf("%+v", e)
		}
		for i := 72; i < 200; i++ {
			if e := c.event(); e.Data["key"] != fmt.Sprint(i) {
				t.Fatalf("%d: %+v", i, e)
			}
		}
	})
}

// TestSessionEvents are those that the sessions note, about a VM or the admin.
func TestSessionEvents(t *testing.T) {
	w := newWorld(t, Config{})
	cell := w.vm(`{"uuid":"` + uuid1 + `"}`)
	c := w.dial()
	w.do(store.Intent{Kind: store.Note, Cell: cell, Event: store.SessionParked, Name: "7", By: uuid1})
	w.do(store.Intent{Kind: store.Note, Event: store.QMP, Name: "STOP"})
	w.do(store.Intent{Kind: store.Note, Event: store.SessionResumed, Name: "8", By: "admin"})
	if e := c.event(); e.Event != "SESSION_PARKED" || fmt.Sprint(e.Data) != "map[session:7 uuid:"+uuid1+" who:"+uuid1+"]" {
		t.Errorf("%+v", e)
	}
	if e := c.event(); e.Event != "SESSION_RESUMED" || fmt.Sprint(e.Data) != "map[session:8 who:admin]" {
		t.Errorf("%+v", e)
	}
}

// TestLimiterIsBounded: past so many kinds nothing is held back.
func TestLimiterIsBounded(t *testing.T) {
	l, now := newLimiter(), time.Now()
	tell := func(i int) string {
		return string(l.add(nil, &store.Event{Type: store.KeySet, VM: uuid1, Key: fmt.Sprint(i)}, now))
	}
	for i := range maxLimited + 10 {
		if tell(i) == "" {
			t.Fatalf("%d is held back", i)
		}
	}
	if len(l.kinds) != maxLimited || tell(0) != "" || tell(maxLimited) == "" {
		t.Errorf("%d kinds", len(l.kinds))
	}
	if got := string(l.flush(nil)); strings.Count(got, "METADATA_CHANGED") != 1 || l.sent.Len() != 0 {
		t.Errorf("flushed %s", got)
	}
}
