package server

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"meta9/fs/store"
	"meta9/fs/vm"
)

// vms are VMs of a store, whose changes are lines.
type vms struct {
	testing.TB
	st    *store.Store
	lines []*line // that were not taken
}

func newVMs(t testing.TB) *vms {
	t.Helper()
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	v := &vms{TB: t, st: st}
	st.Record(func(c store.Committed) {
		v.lines = append(v.lines, newLine(c.Rev(), time.Unix(1, 0), c.Before, c.After))
	})
	t.Cleanup(func() { st.Close() })
	return v
}

func (v *vms) do(in store.Intent) *store.Cell {
	v.Helper()
	r := v.st.Do(&in)
	if r.Err != nil {
		v.Fatal(r.Err)
	}
	return r.Cell
}

func (v *vms) create() *store.Cell {
	v.Helper()
	return v.do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vm.NewUUID() + `"}`})
}

func (v *vms) put(c *store.Cell, name, value string) {
	v.Helper()
	v.do(store.Intent{Kind: store.Put, Cell: c, Name: name, Data: value})
}

// take is the lines of what has changed since it was asked last.
func (v *vms) take() []*line {
	lines := v.lines
	v.lines = nil
	return lines
}

// TestHeld: lines that the feed keeps no longer count while somebody is taking
// them, and past the limit it names who holds them.
func TestHeld(t *testing.T) {
	v := newVMs(t)
	f := newFeed(Limits{Events: 1, Bytes: 40 << 10, Listeners: 9}, 0)
	c := v.create()
	v.put(c, "k", "")
	v.take()
	var all []*listener
	for i := range 5 {
		v.put(c, "k", strings.Repeat(string(rune('a'+i)), 16<<10))
		l := v.take()[0]
		f.add(l)
		li := &listener{entry: l.rev - 1, rev: l.rev - 1}
		f.addListener(li)
		l, _, lost, _ := f.next(li)
		if l == nil || lost {
			t.Fatalf("listener %d got nothing", i)
		}
		if text, made := l.text(true, false); made {
			f.addText(l, len(text))
		}
		all = append(all, li)
	}
	if got := len(f.slow()); got != 4 {
		t.Fatalf("%d listeners hold lines that are gone, want 4", got)
	}
	for _, li := range all {
		f.removeListener(li)
	}
	if f.held != 0 || f.slow() != nil {
		t.Errorf("%d bytes are held by nobody", f.held)
	}
}

// TestShared: all listeners of one access get the same bytes, made once.
func TestShared(t *testing.T) {
	v := newVMs(t)
	v.create()
	l := v.take()[0]
	a, made := l.text(true, false)
	b, again := l.text(true, false)
	if !made || again || &a[0] != &b[0] {
		t.Error("the text was made twice")
	}
	if c, _ := l.text(false, false); &a[0] == &c[0] {
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

// TestListInPieces: the list, which is also what a ready line has, is the same text when
// it is made in pieces, and no piece is of the size of a large VM.
func TestListInPieces(t *testing.T) {
	m := newVMs(t)
	c := m.create()
	for i := range 4 {
		m.put(c, fmt.Sprint("k", i), strings.Repeat("\u2028\"", 200<<10))
	}
	m.create()
	l := &list{access: Access{Internal: true}}
	want := []byte{'['}
	m.st.Snapshot(func(rows []*vm.VM, _ uint64) {
		l.rows = rows
		for i, row := range rows {
			if i > 0 {
				want = append(want, ',')
			}
			want = visible(row, true).AppendJSON(want, false)
		}
	})
	want = append(want, ']')
	var got []byte
	longest := 0
	if err := l.render(renderPiece, func(b []byte) error {
		got, longest = append(got, b...), max(longest, len(b))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes in pieces, %d in one", len(got), len(want))
	}
	if most := 8 * renderPiece; longest > most {
		t.Errorf("a piece has %d bytes, %d at most", longest, most)
	}
	fails := errors.New("gone")
	if err := l.render(renderPiece, func([]byte) error { return fails }); !errors.Is(err, fails) {
		t.Error(err)
	}
}
