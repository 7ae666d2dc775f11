package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

// counting counts the ops and the bytes of the transactions.
type counting struct {
	store.Engine
	ops   []int
	bytes []int
}

func (c *counting) Apply(groups []store.Group) []error {
	ops, bytes := 0, 0
	for _, g := range groups {
		ops += len(g.Ops)
		for _, op := range g.Ops {
			bytes += len(op.Key) + len(op.Value) + len(op.Tail)
		}
	}
	c.ops, c.bytes = append(c.ops, ops), append(c.bytes, bytes)
	return c.Engine.Apply(groups)
}

// together submits while the committer is busy, so that all is there for the next
// batch, and waits for all.
func together(t *testing.T, s *store.Store, intents ...store.Intent) []store.Result {
	t.Helper()
	entered, busy := make(chan struct{}), make(chan struct{})
	s.Submit(&store.Intent{Kind: store.Put, Done: func(store.Result) {
		close(entered)
		<-busy
	}})
	wait(t, entered)
	var waits []<-chan store.Result
	for _, in := range intents {
		waits = append(waits, submit(s, in))
	}
	close(busy)
	var results []store.Result
	for _, ch := range waits {
		results = append(results, wait(t, ch))
	}
	return results
}

// TestOneOpAKey writes a key many times in one batch: it is stored once.
func TestOneOpAKey(t *testing.T) {
	e := &counting{Engine: storetest.NewDisk()}
	s := open(t, e, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	put(t, s, c, "k", "")
	e.ops, e.bytes = nil, nil
	var all []store.Intent
	for range 100 {
		all = append(all, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "0123456789"})
	}
	together(t, s, all...)
	if len(e.ops) != 1 || e.ops[0] != 1 || e.bytes[0] > 1100 {
		t.Errorf("transactions of %d ops, %d bytes", e.ops, e.bytes)
	}
}

// TestLargeValueOftenChanged changes a large value a little, many times: that is
// not many transactions, since it is stored once in each, nor one that copies it
// without bound.
func TestLargeValueOftenChanged(t *testing.T) {
	e := &counting{Engine: storetest.NewDisk()}
	s := open(t, e, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	put(t, s, c, "k", strings.Repeat("x", 500<<10))
	e.ops = nil
	var all []store.Intent
	for i := range 64 {
		all = append(all, store.Intent{Kind: store.Splice, Cell: c, Name: "k", Off: uint64(i), Data: "y"})
	}
	together(t, s, all...)
	if n := len(e.ops); n < 2 || n > 8 {
		t.Errorf("%d transactions", n)
	}
	if got := value(t, c, "k")[:65]; got != strings.Repeat("y", 64)+"x" {
		t.Error(got)
	}
}

// TestManyLargeValues changes many large values a little: each is stored whole,
// and so counts whole in its VM's share.
func TestManyLargeValues(t *testing.T) {
	e := &counting{Engine: storetest.NewDisk()}
	s := open(t, e, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	var all []store.Intent
	for i := range 12 {
		put(t, s, c, fmt.Sprint(i), strings.Repeat("x", 400<<10))
		all = append(all, store.Intent{Kind: store.Append, Cell: c, Name: fmt.Sprint(i), Data: "y"})
	}
	e.bytes = nil
	together(t, s, all...)
	for _, n := range e.bytes {
		if n > 1<<20 {
			t.Errorf("a transaction of %d bytes", n)
		}
	}
}

// TestRulesInABatch changes what a guest may write, and writes, in one batch.
func TestRulesInABatch(t *testing.T) {
	s, c := withVM(t, store.Config{})
	write := store.Intent{Kind: store.Put, Cell: c, Guest: true, Name: "ns:k"}
	results := together(t, s,
		store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"internal_metadata_namespaces":["ns"]}`},
		write)
	results = append(results, together(t, s,
		store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"internal_metadata_namespaces":[]}`},
		write)...)
	for i, kind := range []errs.Kind{0, errs.NotPermitted, 0, 0} {
		if err := results[i].Err; kind == 0 && err != nil || kind != 0 && !errors.Is(err, kind) {
			t.Errorf("%d: %v, want %v", i, err, kind)
		}
	}
}

// TestRefusedTakesNoRoom has an intent that is refused half way: what it would
// have taken is there for the next one of the batch.
func TestRefusedTakesNoRoom(t *testing.T) {
	s, c := withVM(t, store.Config{TotalBytes: 20})
	put(t, s, c, "k", "")
	results := together(t, s,
		store.Intent{Kind: store.Set, Cell: c, Name: "k", Length: ptr(uint64(15)), NewName: " bad"},
		store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"set_customer_metadata":{"x":"0123456789012345678"}}`},
		store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: "0123456789012345678"},
		store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "x"})
	for i, kind := range []errs.Kind{errs.Invalid, errs.NoSpace, 0, errs.NoSpace} {
		if err := results[i].Err; kind == 0 && err != nil || kind != 0 && !errors.Is(err, kind) {
			t.Errorf("%d: %v, want %v", i, err, kind)
		}
	}
}

// TestCommitted compares what observers are told with the events.
func TestCommitted(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	var told []store.Committed
	s.Observe(func(c store.Committed) { told = append(told, c) })
	s.Observe(func(c store.Committed) {
		if len(told) == 0 || told[len(told)-1].Cell != c.Cell {
			t.Error("the observers are not told in turn")
		}
	})
	a := create(t, s, `{"uuid":"`+uuidA+`"}`)
	b := create(t, s, `{"uuid":"`+uuidB+`"}`)
	before := []*vm.VM{a.VM(), b.VM()}
	results := together(t, s,
		store.Intent{Kind: store.Put, Cell: b, Name: "k", By: "me"},
		store.Intent{Kind: store.Put, Cell: a, Name: "k"},
		store.Intent{Kind: store.Remove, Cell: b, Name: "none", By: "refused"},
		store.Intent{Kind: store.Put, Cell: b, Name: "l", By: "you"},
		store.Intent{Kind: store.DeleteVM, Cell: a},
	)
	do(t, s, store.Intent{Kind: store.FlushHold, Cell: b}) // the observers have been told by now
	if len(results) != 5 || len(told) != 4 {
		t.Fatalf("told %d times", len(told))
	}
	forB, forA := told[2], told[3]
	if forB.Before != before[1] || forB.After != b.VM() || forB.By != "you" || len(forB.Changes) != 2 || forB.Changes[1].Key != "l" {
		t.Errorf("of b: %+v", forB)
	}
	if forA.Before != before[0] || forA.After != nil || len(forA.Changes) != 2 || forA.Changes[1].Type != vm.Deleted {
		t.Errorf("of a: %+v", forA)
	}
}
