package store_test

import (
	"fmt"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

// held makes a VM with the key k of value old, held.
func held(t *testing.T) (*store.Store, *store.Cell, *vm.Entry, *store.Hold) {
	s, c := withVM(t, store.Config{})
	e := put(t, s, c, "k", "old")
	h := s.Hold(c, vm.Keys, e.ID, false)
	if !h.Active() {
		t.Fatal("not active")
	}
	wantValue(t, c, "k", "old")
	return s, c, e, h
}

func TestHoldEndsWithTheNextCommit(t *testing.T) {
	for _, c := range []struct {
		name, want string
		in         store.Intent
	}{
		{"splice", "\x00\x00X", store.Intent{Kind: store.Splice, Name: "k", Off: 2, Data: "X"}},
		{"append", "X", store.Intent{Kind: store.Append, Name: "k", Data: "X"}},
		{"put", "X", store.Intent{Kind: store.Put, Name: "k", Data: "X"}},
		{"length", "\x00\x00", store.Intent{Kind: store.Set, Name: "k", Length: ptr(uint64(2))}},
		{"length 0", "", store.Intent{Kind: store.Set, Name: "k", Length: ptr(uint64(0))}},
		{"mode", "", store.Intent{Kind: store.Set, Name: "k", Mode: ptr(uint16(0o400))}},
		{"mtime", "", store.Intent{Kind: store.Set, Name: "k", Mtime: ptr(int64(4))}},
		{"update", "X", store.Intent{Kind: store.UpdateVM, Data: `{"set_customer_metadata":{"k":"X"}}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, cell, e, h := held(t)
			other := s.Hold(cell, vm.Keys, e.ID, false)
			c.in.Cell = cell
			do(t, s, c.in)
			wantValue(t, cell, "k", c.want)
			if h.Active() || other.Active() {
				t.Error("still active")
			}
			do(t, s, store.Intent{Kind: store.FlushHold, Cell: cell, Hold: h})
			do(t, s, store.Intent{Kind: store.Append, Cell: cell, Name: "k", Data: "+"})
			wantValue(t, cell, "k", c.want+"+")
		})
	}
}

func TestHoldRename(t *testing.T) {
	s, c, e, h := held(t)
	r := do(t, s, store.Intent{Kind: store.Set, Cell: c, ID: e.ID, NewName: "n"})
	if r.Entry.Value != "" || h.Active() {
		t.Errorf("%+v, active %v", r.Entry, h.Active())
	}
	// Another key takes its place: the hold on it ends with the entry.
	h = s.Hold(c, vm.Keys, e.ID, false)
	put(t, s, c, "other", "v")
	do(t, s, store.Intent{Kind: store.Set, Cell: c, Name: "other", NewName: "n"})
	if h.Active() {
		t.Error("the key is gone, its hold is not")
	}
	wantValue(t, c, "n", "v")
}

func TestHoldEndsWithTheKey(t *testing.T) {
	for _, in := range []store.Intent{
		{Kind: store.Remove, Name: "k"},
		{Kind: store.UpdateVM, Data: `{"remove_customer_metadata":["k"]}`},
		{Kind: store.DeleteVM},
	} {
		s, c, e, h := held(t)
		in.Cell = c
		do(t, s, in)
		if h.Active() || s.Hold(c, vm.Keys, e.ID, false).Active() {
			t.Errorf("kind %d: still active", in.Kind)
		}
		h.Drop()
	}
}

func TestHoldFlush(t *testing.T) {
	s, c, e, h := held(t)
	rev := s.Rev()
	do(t, s, store.Intent{Kind: store.FlushHold, Cell: c, Hold: h, By: "me"})
	if got := c.VM().Get(vm.Keys, "k"); got.Value != "" || got.Muid != "me" || got.ID != e.ID || h.Active() || s.Rev() == rev {
		t.Errorf("%+v", got)
	}
	rev = s.Rev()
	do(t, s, store.Intent{Kind: store.FlushHold, Cell: c, Hold: h})
	if s.Rev() != rev {
		t.Error("a second flush changed something")
	}
}

func TestHoldDrop(t *testing.T) {
	s, c, e, h := held(t)
	other := s.Hold(c, vm.Keys, e.ID, false)
	h.Drop()
	h.Drop()
	if h.Active() || !other.Active() {
		t.Error("Drop ends its own hold alone")
	}
	do(t, s, store.Intent{Kind: store.FlushHold, Cell: c, Hold: h})
	wantValue(t, c, "k", "old")
	other.Drop()
	do(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "+"})
	wantValue(t, c, "k", "old+")
}

// TestHoldDropOrder drops a hold while a write over it is queued: the write still
// finds it. A later one does not.
func TestHoldDropOrder(t *testing.T) {
	for _, full := range []bool{false, true} {
		disk := storetest.NewDisk()
		rec := &storetest.Recorder{Engine: disk}
		s := open(t, rec, store.Config{})
		c := create(t, s, `{"uuid":"`+uuidA+`"}`)
		e := put(t, s, c, "k", "old value")
		h := s.Hold(c, vm.Keys, e.ID, false)
		entered, release := rec.Block()
		first := submit(s, store.Intent{Kind: store.Put, Cell: c, Name: "other"})
		wait(t, entered)
		write := submit(s, store.Intent{Kind: store.Splice, Cell: c, Name: "k", Data: "new"})
		h.Drop()
		if h.Active() {
			t.Error("active after Drop")
		}
		if full {
			disk.Limit(1)
		}
		release()
		wait(t, first)
		want := "new"
		if r := wait(t, write); full {
			if errs.KindOf(r.Err) != errs.NoSpace {
				t.Error(r.Err)
			}
			want = "old value"
		}
		disk.Limit(0)
		wantValue(t, c, "k", want)
		do(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "+"})
		wantValue(t, c, "k", want+"+")
	}
}

// TestHoldStays over what is refused, changes nothing or is about another key.
func TestHoldStays(t *testing.T) {
	s, c, e, h := held(t)
	refused(t, s, store.Intent{Kind: store.Splice, Cell: c, Name: "k", Off: 1 << 40, Data: "x"}, errs.TooLarge)
	refused(t, s, store.Intent{Kind: store.Set, Cell: c, Name: "k", Length: ptr(uint64(1)), NewName: "\x01"}, errs.Invalid)
	refused(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"set_customer_metadata":{"k":"x","":""}}`}, errs.Invalid)
	do(t, s, store.Intent{Kind: store.Splice, Cell: c, Name: "k"})
	do(t, s, store.Intent{Kind: store.Set, Cell: c, Name: "k"})
	do(t, s, store.Intent{Kind: store.Put, Cell: c, Space: vm.Internal, Name: "k", Data: "v"})
	put(t, s, c, "other", "v")
	do(t, s, store.Intent{Kind: store.Note, Cell: c, Event: store.QMP})
	b := create(t, s, `{"uuid":"`+uuidB+`"}`)
	do(t, s, store.Intent{Kind: store.FlushHold, Cell: b, Hold: h})
	if !h.Active() {
		t.Fatal("ended")
	}
	wantValue(t, c, "k", "old")
	do(t, s, store.Intent{Kind: store.Append, Cell: c, ID: e.ID, Data: "new"})
	wantValue(t, c, "k", "new")
}

func TestHoldOfNothing(t *testing.T) {
	s, c := withVM(t, store.Config{})
	for _, h := range []*store.Hold{s.Hold(c, vm.Keys, 0, false), s.Hold(c, vm.Keys, 99, false), s.Hold(c, 7, 1, false)} {
		if h.Active() {
			t.Error("active")
		}
		h.Drop()
		do(t, s, store.Intent{Kind: store.FlushHold, Cell: c, Hold: h})
	}
}

// TestHoldOrder has intents of before and after the hold in one batch: the first
// must not see it, the second applies it, the third works on what that left.
func TestHoldOrder(t *testing.T) {
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	e := put(t, s, c, "k", "old")
	entered, release := rec.Block()
	first := submit(s, store.Intent{Kind: store.Put, Cell: c, Name: "other"})
	wait(t, entered)
	before := submit(s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "+"})
	h := s.Hold(c, vm.Keys, e.ID, false)
	after := submit(s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "a"})
	last := submit(s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "b"})
	release()
	wait(t, first)
	for _, step := range []struct {
		ch   <-chan store.Result
		want string
	}{{before, "old+"}, {after, "a"}, {last, "ab"}} {
		if r := wait(t, step.ch); r.Err != nil || r.Entry.Value != step.want {
			t.Errorf("%+v, want %q", r, step.want)
		}
	}
	if h.Active() {
		t.Error("still active")
	}
}

// TestHoldDuringCommit registers a hold while the commit of an earlier write is
// on its way: that commit must not end it.
func TestHoldDuringCommit(t *testing.T) {
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	e := put(t, s, c, "k", "old")
	early := s.Hold(c, vm.Keys, e.ID, false)
	entered, release := rec.Block()
	write := submit(s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "new"})
	wait(t, entered)
	late := s.Hold(c, vm.Keys, e.ID, false)
	if !early.Active() {
		t.Error("ended before it was durable")
	}
	release()
	wait(t, write)
	if early.Active() || !late.Active() {
		t.Errorf("early %v, late %v", early.Active(), late.Active())
	}
	wantValue(t, c, "k", "new")
	do(t, s, store.Intent{Kind: store.FlushHold, Cell: c, Hold: late})
	wantValue(t, c, "k", "")
}

// TestHoldSurvivesNoSpace fails the batch that would have applied holds.
func TestHoldSurvivesNoSpace(t *testing.T) {
	disk := storetest.NewDisk()
	s := open(t, disk, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	e := put(t, s, c, "k", "old")
	holds := []*store.Hold{s.Hold(c, vm.Keys, e.ID, false), s.Hold(c, vm.Keys, e.ID, false), s.Hold(c, vm.Keys, e.ID, false)}
	disk.Limit(disk.Size())
	refused(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "a longer value than before"}, errs.NoSpace)
	holds[1].Drop()
	if !holds[0].Active() || holds[1].Active() || !holds[2].Active() {
		t.Error("a failed batch ended a hold")
	}
	disk.Limit(0)
	do(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "new"})
	wantValue(t, c, "k", "new")
	if holds[0].Active() || holds[2].Active() {
		t.Error("still active")
	}
}

// TestDropAll drops a great many Holds of two VMs, some of them no longer active: all
// end, and a write that was submitted before still finds its own.
func TestDropAll(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	var all []*store.Hold
	var cells []*store.Cell
	for _, uuid := range []string{uuidA, uuidB} {
		c := create(t, s, `{"uuid":"`+uuid+`"}`)
		cells = append(cells, c)
		for i := range 1500 {
			e := put(t, s, c, fmt.Sprint(i), "old")
			all = append(all, s.Hold(c, 0, e.ID, false))
		}
	}
	all[7].Drop()
	s.Submit(&store.Intent{Kind: store.Append, Cell: cells[1], Name: "3", Data: "new"})
	store.DropAll(all)
	for i, h := range all {
		if h.Active() {
			t.Fatalf("hold %d is active", i)
		}
	}
	for _, c := range cells {
		do(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "4", Data: "new"})
		wantValue(t, c, "4", "oldnew")
	}
	wantValue(t, cells[1], "3", "new")
}

// TestDropKeepsOrder: the host's changes have a line of their own, and its Drops wait in
// that, so that what the host submitted before a Drop finds the truncation. What is
// submitted after a Drop does not find it, also where the Drop waits in a guest's line,
// which comes later.
func TestDropKeepsOrder(t *testing.T) {
	for _, guest := range []bool{false, true} {
		s, c := withVM(t, store.Config{})
		e := put(t, s, c, "k", "old value")
		put(t, s, c, "other", "")
		entered, busy := make(chan struct{}), make(chan struct{})
		s.Submit(&store.Intent{Kind: store.Put, Done: func(store.Result) { close(entered); <-busy }})
		wait(t, entered)
		h := s.Hold(c, vm.Keys, e.ID, guest)
		// The line that the Drop is not in has its turn first.
		waits := []<-chan store.Result{submit(s, store.Intent{Kind: store.Append, Cell: c, Name: "other", Guest: !guest, Data: "x"})}
		want := "old value+"
		if !guest {
			waits, want = append(waits, submit(s, store.Intent{Kind: store.Splice, Cell: c, Name: "k", Data: "new"})), "new+"
		}
		h.Drop()
		waits = append(waits, submit(s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "+"}))
		close(busy)
		for _, ch := range waits {
			if r := wait(t, ch); r.Err != nil {
				t.Error(r.Err)
			}
		}
		wantValue(t, c, "k", want)
	}
}
