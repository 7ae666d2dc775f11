// Package storetest is what every engine must pass, and engines for tests: one
// that is a map, one that fails, one that records the order of what happens.
//
// The test engines may be used from any goroutine.
package storetest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/store"
	"meta9/fs/vm"
)

// Run runs the whole suite on a durable engine. open opens the engine whose data
// is in dir, or makes it; the suite closes it, and opens it again.
func Run(t *testing.T, open func(dir string) store.Engine) { RunUpTo(t, open, 16<<20) }

// RunUpTo is Run for an engine that takes values of so many bytes, and no larger ones.
func RunUpTo(t *testing.T, open func(dir string) store.Engine, value int) {
	for _, c := range []struct {
		name string
		test func(*testing.T, func(string) store.Engine)
	}{
		{"Order", testOrder},
		{"OneApply", testOneApply},
		{"AllOrNone", testAllOrNone},
		{"Groups", testGroups},
		{"Large", func(t *testing.T, open func(string) store.Engine) { testLarge(t, open, value) }},
		{"Many", testMany},
		{"ScanError", testScanError},
		{"Random", testRandom},
		{"Reopen", testReopen},
		{"Numbers", testNumbers},
		{"SameAsMemory", testSameAsMemory},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
	RunVolatile(t, open)
}

// RunVolatile is the part of the suite for an engine that may forget.
func RunVolatile(t *testing.T, open func(dir string) store.Engine) {
	t.Run("Empty", func(t *testing.T) { testEmpty(t, open) })
	t.Run("Script", func(t *testing.T) { testScript(t, open) })
}

// Row is all there is of a VM, in a form that go-cmp compares.
type Row struct {
	UUID    string
	ID, Rev uint64
	Mtime   int64
	Props   string
	Entries [vm.NumSpaces][]vm.Entry
}

// Rows are the VMs of a store by ID.
func Rows(s *store.Store) []Row {
	var all []Row
	s.Snapshot(func(vms []*vm.VM, _ uint64) {
		for _, v := range vms {
			all = append(all, RowOf(v))
		}
	})
	return all
}

// RowOf is the Row of a VM.
func RowOf(v *vm.VM) Row {
	r := Row{UUID: v.UUID, ID: v.ID, Rev: v.Rev, Mtime: v.Mtime, Props: string(v.AppendRecord(nil))}
	for sp := range vm.NumSpaces {
		for e := range v.Entries(sp) {
			r.Entries[sp] = append(r.Entries[sp], *e)
		}
	}
	return r
}

// mustOpen opens a store on the engine; it is closed with the test unless it was
// before.
func mustOpen(t *testing.T, e store.Engine) *store.Store {
	t.Helper()
	s, err := store.Open(e, store.Config{})
	if err != nil {
		_ = e.Close()
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustClose(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}
