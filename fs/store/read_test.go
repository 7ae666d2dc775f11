package store_test

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

func TestCells(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	var want []*store.Cell
	for i := range 50 {
		// The uuids are not in the order of creation.
		c := create(t, s, fmt.Sprintf(`{"uuid":"%02x000000-0000-4000-8000-000000000000"}`, i*37%256))
		if c.ID() < store.FirstID {
			t.Fatalf("ID %d is one of the tree's own", c.ID())
		}
		want = append(want, c)
	}
	cells := func(after uint64, most int) (got []*store.Cell) {
		s.Cells(after, func(c *store.Cell) bool {
			got = append(got, c)
			return len(got) != most
		})
		return got
	}
	for _, c := range []struct {
		name  string
		after uint64
		most  int
		want  []*store.Cell
	}{
		{"all", 0, 0, want},
		{"some", 0, 3, want[:3]},
		{"after one", want[9].ID(), 0, want[10:]},
		{"from one", want[9].ID() - 1, 2, want[9:11]},
		{"after an entry's", want[9].ID() + 5, 2, want[10:12]},
		{"after the last", want[49].ID(), 0, nil},
		{"after all", math.MaxUint64, 0, nil},
	} {
		if got := cells(c.after, c.most); !slices.Equal(got, c.want) {
			t.Errorf("%s: %d cells, want %d", c.name, len(got), len(c.want))
		}
	}
	do(t, s, store.Intent{Kind: store.DeleteVM, Cell: want[20]})
	if got := cells(want[19].ID(), 1); got[0] != want[21] {
		t.Error("a deleted VM is listed")
	}
}

// TestSnapshot has writers change two VMs of which each event is one's: a
// snapshot's rows and revision belong together.
func TestSnapshot(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	cells := []*store.Cell{create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, c := range cells {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.Do(&store.Intent{Kind: store.Put, Cell: c, Name: "k"})
				}
			}
		})
	}
	for range 5000 {
		s.Snapshot(func(rows []*vm.VM, rev uint64) {
			if len(rows) != 2 || max(rows[0].Rev, rows[1].Rev) != rev {
				t.Errorf("rows of %d and %d in a snapshot of %d", rows[0].Rev, rows[1].Rev, rev)
			}
		})
	}
	close(stop)
	wg.Wait()
}

// TestReadsMeanwhile reads without a lock while there are writes of all kinds,
// for the race detector; a row is whole.
func TestReadsMeanwhile(t *testing.T) {
	s := open(t, storetest.NewDisk(), store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`","alias":"web"}`)
	put(t, s, c, "a", "0")
	put(t, s, c, "b", "0")
	id := c.VM().Get(vm.Keys, "a").ID
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					v := s.Alias("web").VM()
					if a, b := v.Get(vm.Keys, "a"), v.Get(vm.Keys, "b"); a.Value != b.Value {
						t.Errorf("half an update: %q, %q", a.Value, b.Value)
					}
					h := s.Hold(c, vm.Keys, id, false)
					h.Drop()
					_, _, _ = s.Count(), s.Bytes(), c.Ring().Last()
				}
			}
		})
	}
	for i := range 300 {
		do(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: fmt.Sprintf(`{"set_customer_metadata":{"a":"%d","b":"%d"}}`, i, i)})
		do(t, s, store.Intent{Kind: store.CreateVM, Data: fmt.Sprintf(`{"uuid":"%s"}`, uuidB)})
		do(t, s, store.Intent{Kind: store.DeleteVM, Cell: s.Cell(uuidB)})
	}
	close(stop)
	wg.Wait()
}

func TestSettings(t *testing.T) {
	if s := open(t, store.NewMemory(), store.Config{}); s.Limits() != vm.DefaultLimits {
		t.Errorf("%+v", s.Limits())
	}
	limits := vm.Limits{Value: 3}
	if s := open(t, store.NewMemory(), store.Config{Limits: limits}); s.Limits() != limits {
		t.Errorf("%+v", s.Limits())
	}
}

// TestFirstRev: revisions are not below the floor that Open is given, nor below those
// that the engine has handed out.
func TestFirstRev(t *testing.T) {
	disk := storetest.NewDisk()
	const floor = 1 << 50
	for _, tt := range []struct{ floor, least uint64 }{{0, 1}, {floor, floor}, {7, floor + 1}, {2 * floor, 2 * floor}} {
		s := open(t, disk, store.Config{FirstRev: tt.floor})
		if c := s.Cell(uuidA); c != nil {
			do(t, s, store.Intent{Kind: store.DeleteVM, Cell: c})
		}
		create(t, s, `{"uuid":"`+uuidA+`"}`)
		if rev := s.Cell(uuidA).VM().Rev; rev < tt.least || s.Ring().Last() != rev {
			t.Errorf("floor %d: revision %d, at least %d; the ring is at %d", tt.floor, rev, tt.least, s.Ring().Last())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
