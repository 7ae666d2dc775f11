package store_test

import (
	"strings"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

// folder is what a host that was alone has, with these VMs.
func folder(t *testing.T, payloads ...string) store.Engine {
	t.Helper()
	e := storetest.NewDisk()
	s := open(t, e, store.Config{})
	for _, p := range payloads {
		c := create(t, s, p)
		put(t, s, c, "gone", "v")
		put(t, s, c, "k", "of "+c.UUID())
		do(t, s, store.Intent{Kind: store.Remove, Cell: c, Name: "gone"})
	}
	s.Stop()
	return e
}

// imported imports, and gives what was told of each VM.
func imported(t *testing.T, to store.Shared, from store.Engine) map[string]store.Imported {
	t.Helper()
	all := make(map[string]store.Imported)
	if err := store.Import(to, from, func(i store.Imported) { all[i.UUID] = i }); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestImport: two hosts that have each counted IDs from the same number bring their VMs
// into one fleet. The first keeps its IDs, the second gets others and is told so, and what
// the fleet has already is left out.
func TestImport(t *testing.T) {
	const uuidD = "00000000-0000-4000-8000-00000000000d"
	first := folder(t, `{"uuid":"`+uuidA+`","alias":"web"}`, `{"uuid":"`+uuidB+`"}`)
	second := folder(t, `{"uuid":"`+uuidC+`","alias":"db"}`, `{"uuid":"`+uuidA+`"}`, `{"uuid":"`+uuidD+`","alias":"web"}`)
	was := storetest.Rows(open(t, first, store.Config{}))
	f := storetest.NewFleet()

	got := imported(t, f.Host("a"), first)
	if len(got) != 2 || got[uuidA] != (store.Imported{UUID: uuidA, Alias: "web"}) || got[uuidB] != (store.Imported{UUID: uuidB}) {
		t.Errorf("the first: %+v", got)
	}
	a := open(t, f.Host("a"), store.Config{})
	if now := storetest.Rows(a); len(now) != 2 || now[0].ID != was[0].ID || now[0].Rev != was[0].Rev || now[0].Mtime != was[0].Mtime || now[1].Entries[vm.Keys][0] != was[1].Entries[vm.Keys][0] {
		t.Errorf("they have come as others:\n%+v\nwere\n%+v", now, was)
	}
	if e := put(t, a, a.Cell(uuidB), "new", "v"); e.Rev <= was[1].Rev {
		t.Errorf("revision %d after %d", e.Rev, was[1].Rev)
	}

	got = imported(t, f.Host("b"), second)
	if c := got[uuidC]; len(got) != 3 || c.Err != nil || !c.NewIDs {
		t.Errorf("the second: %+v", got)
	}
	for uuid, want := range map[string]string{uuidA: `host a's`, uuidD: `alias: "web" is VM ` + uuidA + "'s"} {
		if err := got[uuid].Err; errs.KindOf(err) != errs.Exists || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", uuid, err)
		}
	}
	b := open(t, f.Host("b"), store.Config{})
	c := b.Cell(uuidC)
	wantValue(t, c, "k", "of "+uuidC)
	seen := map[uint64]bool{}
	for _, s := range []*store.Store{a, b} {
		for _, r := range storetest.Rows(s) {
			ids := []uint64{r.ID}
			for _, e := range r.Entries[vm.Keys] {
				ids = append(ids, e.ID)
			}
			for _, id := range ids {
				if seen[id] {
					t.Errorf("the ID %d is there twice", id)
				}
				seen[id] = true
			}
		}
	}
	if b.Count() != 1 || b.Alias("db") != c {
		t.Errorf("%d VMs", b.Count())
	}
	// Once more: all of it is there.
	for uuid, i := range imported(t, f.Host("c"), second) {
		if errs.KindOf(i.Err) != errs.Exists {
			t.Errorf("again, %s: %v", uuid, i.Err)
		}
	}
}

// TestAliasOfFleet: an alias is one VM's in all the fleet; who gives it up, deletes the VM
// or is refused frees it, and it goes along with its VM.
func TestAliasOfFleet(t *testing.T) {
	f := storetest.NewFleet()
	a, b := open(t, f.Host("a"), store.Config{}), open(t, f.Host("b"), store.Config{})
	ca := create(t, a, `{"uuid":"`+uuidA+`","alias":"web"}`)
	refused := func(r store.Result) {
		t.Helper()
		if errs.KindOf(r.Err) != errs.Exists || !strings.Contains(r.Err.Error(), "alias") || b.Err() != nil {
			t.Errorf("%v, %v", r.Err, b.Err())
		}
	}
	refused(b.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `","alias":"web"}`}))
	cb := create(t, b, `{"uuid":"`+uuidB+`","alias":"db"}`)
	put(t, b, cb, "k", "v")
	want := store.Intent{Kind: store.UpdateVM, Cell: cb, Data: `{"alias":"web"}`}
	// The guest's change of the same batch does not hear of another VM's alias.
	b.Stop()
	b = open(t, f.Host("b"), store.Config{})
	cb = b.Cell(uuidB)
	want.Cell = cb
	waits, free := f.Stick()
	blocker := submit(b, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidC + `"}`})
	wait(t, waits)
	host, guest := submit(b, want), submit(b, store.Intent{Kind: store.Put, Cell: cb, Guest: true, Name: "k", Data: "w"})
	free()
	wait(t, blocker)
	refused(wait(t, host))
	if r := wait(t, guest); errs.KindOf(r.Err) != errs.Again || strings.Contains(r.Err.Error(), "alias") {
		t.Errorf("the guest's change: %v", r.Err)
	}
	if b.Alias("db") != cb || b.Alias("web") != nil {
		t.Error("the refused alias shows")
	}
	// It goes along.
	do(t, a, store.Intent{Kind: store.Yield, Cell: ca, Gift: &store.Gift{To: "b"}})
	refused(b.Do(&want))
	arrival, err := b.Fetch(uuidA)
	if err != nil {
		t.Fatal(err)
	}
	ca = do(t, b, store.Intent{Kind: store.Adopt, Arrival: arrival}).Cell
	do(t, b, store.Intent{Kind: store.UpdateVM, Cell: ca, Data: `{"alias":"old"}`})
	do(t, b, want)
	do(t, b, store.Intent{Kind: store.DeleteVM, Cell: cb})
	create(t, a, `{"uuid":"`+uuidB+`","alias":"web"}`)
}

// TestPatience: what waits behind a change that the cluster does not answer is refused
// when its patience is over, and what is under way is told what becomes of it.
func TestPatience(t *testing.T) {
	f := storetest.NewFleet()
	s := open(t, f.Host("a"), store.Config{Patience: 4 * time.Millisecond})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	hold := s.Hold(c, vm.Keys, put(t, s, c, "h", "kept").ID, false)
	waits, free := f.Stick()
	first := submit(s, store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: "under way"})
	wait(t, waits)
	hold.Drop() // is not refused
	for range 10 {
		r := s.Do(&store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: "behind"})
		if errs.KindOf(r.Err) != errs.IO || !strings.Contains(r.Err.Error(), "nothing was changed") || !strings.Contains(r.Err.Error(), "stands still") {
			t.Fatalf("behind it: %v", r.Err)
		}
	}
	free()
	if r := wait(t, first); r.Err != nil {
		t.Error(r.Err)
	}
	wantValue(t, c, "k", "under way")
	do(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "h", Data: " all"})
	wantValue(t, c, "h", "kept all")
}

// TestInterrupt: a store that must stop does not wait for a cluster that is lost.
func TestInterrupt(t *testing.T) {
	f := storetest.NewFleet()
	s := open(t, f.Host("a"), store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	waits, free := f.Stick()
	defer free()
	first := submit(s, store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: "under way"})
	wait(t, waits)
	second := submit(s, store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: "behind"})
	s.Interrupt()
	if r := s.Do(&store.Intent{Kind: store.Put, Cell: c, Name: "k"}); errs.KindOf(r.Err) != errs.IO {
		t.Errorf("after it: %v", r.Err)
	}
	stopped := make(chan error)
	go func() { stopped <- s.Close() }()
	if err := wait(t, stopped); err != nil {
		t.Error(err)
	}
	for _, r := range []store.Result{wait(t, first), wait(t, second)} {
		if r.Err == nil {
			t.Error("acknowledged without the cluster")
		}
	}
}
