package server

import (
	"testing"
	"time"

	"meta9/fs/store"
	"meta9/fs/vm"
)

// lineOf is a line of a VM whose one value has n bytes.
func lineOf(t *testing.T, st *store.Store, n int) *line {
	t.Helper()
	r := st.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vm.NewUUID() + `"}`})
	if r.Err == nil {
		r.Err = st.Do(&store.Intent{Kind: store.Put, Cell: r.Cell, Name: "k", Data: string(make([]byte, n))}).Err
	}
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	m := r.Cell.VM()
	return &line{rev: m.Rev, date: time.Unix(1, 0), to: m}
}

// TestHeld: lines that the feed keeps no longer count while somebody is taking
// them, and past the limit it names who holds them.
func TestHeld(t *testing.T) {
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	f := newFeed(Limits{Events: 1, Bytes: 40 << 10, Listeners: 9}, 0)
	var all []*listener
	for i := range 5 {
		f.add(lineOf(t, st, 16<<10))
		li := &listener{rev: f.dropped}
		f.enter(li)
		if l, lost, _ := f.next(li); l == nil || lost {
			t.Fatalf("listener %d got nothing", i)
		}
		all = append(all, li)
	}
	if got := len(f.slow()); got != 4 {
		t.Fatalf("%d listeners hold lines that are gone, want 4", got)
	}
	for _, li := range all {
		f.leave(li)
	}
	if f.held != 0 || f.slow() != nil {
		t.Errorf("%d bytes are held by nobody", f.held)
	}
}

// TestShared: all listeners of one access get the same bytes, made once.
func TestShared(t *testing.T) {
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	l := lineOf(t, st, 1)
	a, b := l.text(true), l.text(true)
	if &a[0] != &b[0] {
		t.Error("the text was made twice")
	}
	if c := l.text(false); &a[0] == &c[0] {
		t.Error("those who may not see internal metadata got the text of those who may")
	}
}

func TestPretty(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                      "0.000000000s (0ns)",
		7:                      "0.000000007s (7ns)",
		1500:                   "0.000001500s (1.5us)",
		523 * time.Millisecond: "0.523000000s (523ms)",
		1589138001:             "1.589138001s (1.59s)",
		5 * time.Minute:        "300.000000000s (5m)",
		36*time.Hour + 1:       "129600.000000001s (1.5d)",
		-time.Second:           "0.000000000s (0ns)",
	} {
		if got := pretty(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}
