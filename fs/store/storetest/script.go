package storetest

import (
	"fmt"
	"strings"
	"testing"

	"meta9/fs/store"
	"meta9/fs/vm"
)

// The VMs of the script.
const (
	uuidA = "00000000-0000-4000-8000-00000000000a"
	uuidB = "00000000-0000-4000-8000-00000000000b"
)

// step is one intent of the script, on a VM by its uuid.
type step struct {
	name string
	vm   string
	in   store.Intent
}

// script does every kind of change once, and some in other ways.
func script() []step {
	three, mode, mtime := uint64(3), uint16(0o640), int64(-5)
	return []step{
		{"create", "", store.Intent{Kind: store.CreateVM, By: "admin", Data: `{"uuid":"` + uuidA + `","alias":"web",
			"customer_metadata":{"a":"1","n":1.50},"internal_metadata":{"ns:x":true},"vsock_cid":7}`}},
		{"create bare", "", store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`}},
		{"first internal key", uuidB, store.Intent{Kind: store.Put, Space: vm.Internal, Name: "i", Data: "v", By: "root"}},
		{"first key", uuidB, store.Intent{Kind: store.Put, Name: "k", Data: "v"}},
		{"put", uuidA, store.Intent{Kind: store.Put, Name: "b/c", Data: "\x00\xff binary"}},
		{"replace", uuidA, store.Intent{Kind: store.Put, Name: "n", Data: strings.Repeat("long ", 1000), By: "me"}},
		{"splice", uuidA, store.Intent{Kind: store.Splice, Name: "a", Off: 5, Data: "end"}},
		{"append", uuidA, store.Intent{Kind: store.Append, Name: "a", Data: "ed"}},
		{"create key", uuidA, store.Intent{Kind: store.Create, Name: "empty"}},
		{"set length", uuidA, store.Intent{Kind: store.Set, Name: "a", Length: &three}},
		{"set mode", uuidA, store.Intent{Kind: store.Set, Name: "a", Mode: &mode}},
		{"set time", uuidA, store.Intent{Kind: store.Set, Name: "a", Mtime: &mtime}},
		{"rename", uuidA, store.Intent{Kind: store.Set, Name: "a", NewName: "z"}},
		{"rename over", uuidA, store.Intent{Kind: store.Set, Name: "z", NewName: "n"}},
		{"all at once", uuidA, store.Intent{Kind: store.Set, Name: "n", NewName: "m", Mode: &mode, Mtime: &mtime, Length: &three}},
		{"remove", uuidA, store.Intent{Kind: store.Remove, Name: "m"}},
		{"update", uuidA, store.Intent{Kind: store.UpdateVM, Data: `{"alias":"db","ram":128,"set_customer_metadata":{"u":"v"},"remove_internal_metadata":["ns:x"]}`}},
		{"update nothing", uuidA, store.Intent{Kind: store.UpdateVM, Data: `{"ram":128}`}},
		{"transaction", uuidA, store.Intent{Kind: store.Txn, Txn: &store.Transaction{
			If: []store.Condition{{Name: "empty"}, {Name: "new", Absent: true}},
			Do: []store.Intent{
				{Kind: store.Put, Name: "new", Data: "v"},
				{Kind: store.Append, Name: "u", Data: "w"},
				{Kind: store.Remove, Name: "empty"},
				{Kind: store.Set, Name: "b/c", NewName: "d"},
				{Kind: store.Put, Space: vm.Internal, Name: "ns:y", Data: "z"},
			},
		}}},
		{"note", uuidA, store.Intent{Kind: store.Note, Event: store.QMP, Name: "STOP"}},
		{"delete", uuidA, store.Intent{Kind: store.DeleteVM}},
		{"create again", "", store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `","alias":"web"}`}},
	}
}

// play does one step and fails the test when it is refused.
func play(t *testing.T, s *store.Store, st step) {
	t.Helper()
	if st.vm != "" {
		st.in.Cell = s.Cell(st.vm)
	}
	if r := s.Do(&st.in); r.Err != nil {
		t.Fatalf("%s: %v", st.name, r.Err)
	}
}

// testScript plays the script and checks what all stores count.
func testScript(t *testing.T, open func(string) store.Engine) {
	s := mustOpen(t, open(t.TempDir()))
	for _, st := range script() {
		play(t, s, st)
		checkCounts(t, s)
	}
	if c := s.Alias("web"); c == nil || c != s.Cell(uuidA) || s.Alias("db") != nil || s.ByCID(7) != nil {
		t.Errorf("names after the script: %v", c)
	}
	mustClose(t, s)
}

func checkCounts(t *testing.T, s *store.Store) {
	t.Helper()
	var bytes int64
	var newest uint64
	rows := Rows(s)
	for _, r := range rows {
		newest = max(newest, r.Rev)
		for _, entries := range r.Entries {
			for _, e := range entries {
				bytes += int64(len(e.Name) + len(e.Value))
			}
		}
	}
	if s.Count() != len(rows) || s.Bytes() != bytes || s.Rev() < newest {
		t.Fatalf("Count %d, Bytes %d, Rev %d; there are %d, %d, %d", s.Count(), s.Bytes(), s.Rev(), len(rows), bytes, newest)
	}
}

// testReopen reopens after each step of the script and finds the same rows, and
// no damage.
func testReopen(t *testing.T, open func(string) store.Engine) {
	dir := t.TempDir()
	s := mustOpen(t, open(dir))
	for _, st := range script() {
		play(t, s, st)
		want := Rows(s)
		mustClose(t, s)
		checkUndamaged(t, open(dir), len(want))
		s = mustOpen(t, open(dir))
		diff(t, "rows after "+st.name, want, Rows(s))
		checkCounts(t, s)
	}
	mustClose(t, s)
}

// checkUndamaged checks what the engine holds, which is that many VMs, and closes it.
func checkUndamaged(t *testing.T, e store.Engine, vms int) {
	t.Helper()
	st, err := store.Check(e, func(d store.Damage) { t.Errorf("Check: %v", d) })
	if err != nil || st.VMs != vms {
		t.Errorf("Check: %+v, %v", st, err)
	}
	mustClose(t, e)
}

// testNumbers sees to it that no revision and no ID comes twice, over reopens,
// also those of what is no longer there and of events alone.
func testNumbers(t *testing.T, open func(string) store.Engine) {
	dir := t.TempDir()
	seen := make(map[string]bool)
	once := func(what string, n uint64) {
		t.Helper()
		if k := fmt.Sprint(what, n); seen[k] || n == 0 {
			t.Fatalf("%s %d is used twice", what, n)
		} else {
			seen[k] = true
		}
	}
	for range 4 {
		s := mustOpen(t, open(dir))
		from := s.Rev()
		for _, st := range []step{
			{"create", "", store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}},
			{"put", uuidA, store.Intent{Kind: store.Put, Name: "k"}},
			{"note", uuidA, store.Intent{Kind: store.Note, Event: store.QMP}},
			{"look", uuidA, store.Intent{Kind: store.Create, Name: "k"}},
			{"delete", uuidA, store.Intent{Kind: store.DeleteVM}},
			{"note", "", store.Intent{Kind: store.Note, Event: store.QMP}},
		} {
			if st.name == "look" {
				once("id", s.Cell(uuidA).ID())
				once("id", s.Cell(uuidA).VM().Get(vm.Keys, "k").ID)
			}
			play(t, s, st)
		}
		events, lost := s.Ring().After(from, 0, nil)
		if len(events) != 5 || lost != 0 {
			t.Fatalf("%d events, lost %d", len(events), lost)
		}
		for _, ev := range events {
			once("rev", ev.Rev)
		}
		mustClose(t, s)
	}
}

// testSameAsMemory plays the script on both engines: the rows are alike but for
// the time.
func testSameAsMemory(t *testing.T, open func(string) store.Engine) {
	a, b := mustOpen(t, open(t.TempDir())), mustOpen(t, store.NewMemory())
	for _, st := range script() {
		play(t, a, st)
		play(t, b, st)
	}
	diff(t, "rows", relative(timeless(Rows(b))), relative(timeless(Rows(a))))
	mustClose(t, a)
	mustClose(t, b)
}

// relative has the IDs count from the first VM's.
func relative(rows []Row) []Row {
	for i := len(rows) - 1; i >= 0; i-- {
		for sp := range rows[i].Entries {
			for j := range rows[i].Entries[sp] {
				rows[i].Entries[sp][j].ID -= rows[0].ID
			}
		}
		rows[i].ID -= rows[0].ID
	}
	return rows
}

func timeless(rows []Row) []Row {
	for i := range rows {
		rows[i].Mtime = 0
		for sp := range rows[i].Entries {
			for j := range rows[i].Entries[sp] {
				rows[i].Entries[sp][j].Mtime = 0
			}
		}
	}
	return rows
}
