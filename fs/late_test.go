package fs

import (
	"testing"

	"meta9/fs/store"
	"meta9/fs/vm"
)

// The moments between the commit of a value, its observer and a reader cannot be
// had from outside; these tests make them by hand.

// openFileOf is a table with one file open on a key of a VM that is there.
func openFileOf(t *testing.T) (*openFile, *vm.Entry, *store.Store) {
	t.Helper()
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	const payload = `{"uuid":"11111111-1111-4111-8111-111111111111","customer_metadata":{"k":"v"}}`
	r := st.Do(&store.Intent{Kind: store.CreateVM, Data: payload})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	e := r.Cell.VM().Get(vm.Keys, "k")
	o := opens{tables: make(map[*store.Cell]*openTable)}
	return o.open(r.Cell, fileKey{path: e.ID}, vm.Keys, nil), e, st
}

// TestLateReaderOfARemovedKey: who read the VM before the removal, and publishes
// after it was observed, does not bring the value back.
func TestLateReaderOfARemovedKey(t *testing.T) {
	f, e, _ := openFileOf(t)
	if p, _ := f.newest(nil); p == nil || p.content() != e {
		t.Fatal("not the key's entry")
	}
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	f.update(&vm.VM{})
	if f.publish(newVersion(f.table, e)) != nil || f.cur.Load() != nil {
		t.Error("a removed key has a value again")
	}
}

// TestLateReaderOfAnOldValue: who read the VM before a commit gets what the commit
// made, and nobody begins to read what is retired.
func TestLateReaderOfAnOldValue(t *testing.T) {
	f, e, _ := openFileOf(t)
	old, _ := f.newest(nil)
	if !old.acquire() {
		t.Fatal("the newest value is not to be had")
	}
	next := *e
	next.Rev++
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	p := f.publish(newVersion(f.table, &next))
	if f.publish(newVersion(f.table, e)) != p {
		t.Error("an older value became the newest")
	}
	if old.acquire() {
		t.Error("a retired value was acquired")
	}
	if got := f.table.oldBytes.Load(); got != old.cost {
		t.Errorf("old values cost %d, want %d", got, old.cost)
	}
	f.table.trim(0)
	if old.content() != nil || f.table.oldBytes.Load() != 0 {
		t.Error("the value was not dropped")
	}
	old.release() // counts nothing anew
	if got := f.table.oldBytes.Load(); got != 0 {
		t.Errorf("old values cost %d after all", got)
	}
}

// TestLengthsAreForgotten with the VM, also when somebody measures too late.
func TestLengthsAreForgotten(t *testing.T) {
	f, _, st := openFileOf(t)
	cell := f.table.cell
	var l lengths
	k := lengthKey{cell, true}
	calls := 0
	measure := func() int { calls++; return calls }
	for _, rev := range []uint64{1, 1, 2, 2} {
		if got := l.get(k, rev, measure); got != int(rev) {
			t.Errorf("revision %d: measured %d times", rev, got)
		}
	}
	l.forget(cell)
	if len(l.of) != 0 {
		t.Error("not forgotten")
	}
	if r := st.Do(&store.Intent{Kind: store.DeleteVM, Cell: cell}); r.Err != nil {
		t.Fatal(r.Err)
	}
	if l.get(k, 3, measure); len(l.of) != 0 {
		t.Error("remembered after the VM was deleted")
	}
}
