package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

// TestGroupCommit has 64 writers. While the first one's write is on its way to
// the disk, the others submit theirs: these share one transaction.
func TestGroupCommit(t *testing.T) {
	const writers, rounds = 64, 20
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{})
	cells := make([]*store.Cell, writers)
	for i := range cells {
		cells[i] = create(t, s, fmt.Sprintf(`{"uuid":"00000000-0000-4000-8000-%012d"}`, i))
		put(t, s, cells[i], "k", "")
	}
	before := rec.Applies()
	for round := range rounds {
		write := func(c *store.Cell) <-chan store.Result {
			return submit(s, store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: fmt.Sprintf("%d,", round)})
		}
		entered, release := rec.Block()
		results := make([]<-chan store.Result, writers)
		results[0] = write(cells[0])
		wait(t, entered)
		var wg sync.WaitGroup
		for i := 1; i < writers; i++ {
			wg.Go(func() { results[i] = write(cells[i]) })
		}
		wg.Wait()
		release()
		for _, ch := range results {
			if r := wait(t, ch); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	if n := rec.Applies() - before; n != 2*rounds {
		t.Errorf("%d transactions for %d writes, want %d", n, rounds*writers, 2*rounds)
	}
	for _, c := range cells {
		wantValue(t, c, "k", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,")
	}
}

func TestNothingIsToldBeforeItIsDurable(t *testing.T) {
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	var wg sync.WaitGroup
	var told atomic.Int64
	entered, release := rec.Block()
	for i := range 100 {
		wg.Add(1)
		s.Submit(&store.Intent{
			Kind: store.Put, Cell: c, Name: fmt.Sprint(i),
			Done: func(store.Result) {
				rec.Note("done")
				told.Add(1)
				wg.Done()
			},
		})
	}
	wait(t, entered)
	if n, rev, row := told.Load(), s.Rev(), c.VM().Count(); n != 0 || row != 0 || s.Ring().Last() != rev {
		t.Errorf("%d told, %d keys to see, ring at %d of %d", n, row, s.Ring().Last(), rev)
	}
	release()
	wg.Wait()
	checkOrder(t, rec.Log())
}

// checkOrder sees to it that what is noted stands after the end of an Apply, not
// within one.
func checkOrder(t *testing.T, log []string) {
	t.Helper()
	applying := false
	for i, what := range log {
		switch what {
		case storetest.ApplyStart:
			applying = true
		case storetest.ApplyEnd:
			applying = false
		default:
			if applying {
				t.Fatalf("%q within an Apply, at %d of %q", what, i, log)
			}
		}
	}
}

// TestOrderOfACommit looks at what each one who is told finds.
func TestOrderOfACommit(t *testing.T) {
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{})
	var c *store.Cell
	look := func(who string) {
		rows := storetest.Rows(s)
		rec.Note(fmt.Sprintf("%s: %d keys, %d in the snapshot, ring %v", who, c.VM().Count(), len(rows[0].Entries[vm.Keys]), s.Ring().Last() == s.Rev()))
	}
	s.Observe(func(ch store.Committed) {
		if ch.Before != nil {
			look("observer")
		}
	})
	c = create(t, s, `{"uuid":"`+uuidA+`"}`)
	woken := make(chan struct{})
	_, ready := s.Ring().Wait(s.Ring().Last(), func() { look("waiter"); close(woken) })
	if ready {
		t.Fatal("ready")
	}
	start := len(rec.Log())
	s.Submit(&store.Intent{Kind: store.Put, Cell: c, Name: "k", Done: func(store.Result) { look("done") }})
	wait(t, woken)
	want := []string{
		storetest.ApplyStart, storetest.ApplyEnd,
		"done: 1 keys, 1 in the snapshot, ring true",
		"observer: 1 keys, 1 in the snapshot, ring true",
		"waiter: 1 keys, 1 in the snapshot, ring true",
	}
	if got := rec.Log()[start:]; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestNoChangeNoApply gives what has no effect.
func TestNoChangeNoApply(t *testing.T) {
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`","ram":1}`)
	put(t, s, c, "k", "v")
	before := rec.Applies()
	do(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "k"})
	do(t, s, store.Intent{Kind: store.Splice, Cell: c, Name: "k"})
	do(t, s, store.Intent{Kind: store.Set, Cell: c, Name: "k"})
	do(t, s, store.Intent{Kind: store.FlushHold, Cell: c})
	do(t, s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"ram":1}`})
	do(t, s, store.Intent{Kind: store.Note, Cell: c, Event: store.QMP})
	refused(t, s, store.Intent{Kind: store.Remove, Cell: c, Name: "other"}, errs.NotFound)
	if n := rec.Applies() - before; n != 0 {
		t.Errorf("%d transactions", n)
	}
}

// TestShareOfABatch has one VM with much to write and another with little: the
// little one does not wait for all of the other, and the other's order is kept.
func TestShareOfABatch(t *testing.T) {
	const n = 50
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{BatchBytes: 10 << 10})
	big, small := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
	put(t, s, big, "log", "")
	entered, release := rec.Block()
	first := submit(s, store.Intent{Kind: store.Put, Cell: small, Name: "first"})
	wait(t, entered)
	var all []<-chan store.Result
	for i := range n {
		all = append(all, submit(s, store.Intent{
			Kind: store.Append, Cell: big, Name: "log", Data: fmt.Sprintf("%04d", i) + strings.Repeat(" ", 2<<10),
		}))
	}
	before := rec.Applies()
	little := make(chan int, 1)
	s.Submit(&store.Intent{Kind: store.Put, Cell: small, Name: "k", Data: "v", Done: func(store.Result) {
		little <- len(big.VM().Get(vm.Keys, "log").Value)
	}})
	release()
	wait(t, first)
	if got := wait(t, little); got > 20<<10 {
		t.Errorf("the small write waited for %d bytes of the big ones", got)
	}
	for i, ch := range all {
		if r := wait(t, ch); r.Err != nil || r.N != 4+2<<10 {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	for i := range n {
		if at := i * (4 + 2<<10); value(t, big, "log")[at:at+4] != fmt.Sprintf("%04d", i) {
			t.Fatalf("not in order at %d", i)
		}
	}
	if a := rec.Applies() - before; a < n/5 {
		t.Errorf("%d transactions for %d bytes", a, n*2<<10)
	}
}

// TestLargerThanItsShare is one write that alone is more than a VM's share.
func TestLargerThanItsShare(t *testing.T) {
	s, c := withVM(t, store.Config{BatchBytes: 1000})
	large := strings.Repeat("x", 100000)
	put(t, s, c, "k", large)
	wantValue(t, c, "k", large)
}

// TestManyInOneBatch submits more than a batch takes.
func TestManyInOneBatch(t *testing.T) {
	const n = 5000
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{BatchBytes: 1 << 30})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	put(t, s, c, "k", "")
	entered, release := rec.Block()
	first := submit(s, store.Intent{Kind: store.Put, Cell: c, Name: "first"})
	wait(t, entered)
	before := rec.Applies()
	var order []int
	done := make(chan struct{})
	for i := range n {
		s.Submit(&store.Intent{
			Kind: store.Splice, Cell: c, Name: "k", Off: uint64(i), Data: "x",
			Done: func(store.Result) {
				if order = append(order, i); len(order) == n {
					close(done)
				}
			},
		})
	}
	release()
	wait(t, first)
	wait(t, done)
	wantValue(t, c, "k", strings.Repeat("x", n))
	if !slices.IsSorted(order) {
		t.Error("acknowledged out of order")
	}
	if a := rec.Applies() - before; a < 2 || a > 10 {
		t.Errorf("%d transactions for %d writes", a, n)
	}
}

// TestBatchOfOneVM creates, changes, deletes and creates anew in one batch.
func TestBatchOfOneVM(t *testing.T) {
	disk := storetest.NewDisk()
	rec := &storetest.Recorder{Engine: disk}
	s := open(t, rec, store.Config{})
	var told []string
	s.Observe(func(c store.Committed) {
		told = append(told, fmt.Sprint(c.Cell.UUID()[35:], c.Before != nil, c.After != nil, len(c.Changes)))
	})
	a := create(t, s, `{"uuid":"`+uuidA+`","alias":"web","customer_metadata":{"k":"v","l":"w"}}`)
	entered, release := rec.Block()
	first := submit(s, store.Intent{Kind: store.Put, Cell: a, Name: "z"})
	wait(t, entered)
	var all []<-chan store.Result
	for _, in := range []store.Intent{
		{Kind: store.Put, Cell: a, Name: "m"},
		{Kind: store.DeleteVM, Cell: a},
		{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `","alias":"web"}`},
		{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `","customer_metadata":{"k":"new"}}`},
	} {
		all = append(all, submit(s, in))
	}
	gone := submit(s, store.Intent{Kind: store.Put, Cell: a, Name: "m"})
	before := rec.Applies()
	release()
	wait(t, first)
	for i, ch := range all {
		if r := wait(t, ch); r.Err != nil {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	if r := wait(t, gone); !errors.Is(r.Err, errs.NotFound) {
		t.Error("a write to the deleted VM:", r.Err)
	}
	_ = s.Close()
	if n := rec.Applies() - before; n != 1 {
		t.Errorf("%d transactions", n)
	}
	want := []string{"afalse true 1", "atrue true 1", "atrue false 2", "bfalse true 1", "afalse true 1"}
	if !slices.Equal(told, want) {
		t.Errorf("observers were told %q", told)
	}
	rows := storetest.Rows(s)
	s = open(t, disk, store.Config{})
	if got := storetest.Rows(s); len(got) != 2 || len(rows) != 2 || s.Alias("web").UUID() != uuidB {
		t.Errorf("after reopen: %+v", got)
	}
	if c := s.Cell(uuidA); c.VM().Count() != 1 || value(t, c, "k") != "new" {
		t.Errorf("after reopen: %+v", storetest.RowOf(c.VM()))
	}
}

// TestTakenInTheBatch claims a name twice in one batch.
func TestTakenInTheBatch(t *testing.T) {
	rec := &storetest.Recorder{Engine: storetest.NewDisk()}
	s := open(t, rec, store.Config{})
	entered, release := rec.Block()
	first := submit(s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`})
	wait(t, entered)
	second := submit(s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `","alias":"web"}`})
	third := submit(s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidC + `","alias":"web"}`})
	release()
	if err := errors.Join(wait(t, first).Err, wait(t, second).Err); err != nil {
		t.Error(err)
	}
	if r := wait(t, third); !errors.Is(r.Err, errs.Exists) || r.Cell != nil || s.Cell(uuidC) != nil {
		t.Error(r.Err)
	}
}

// TestNoSpace fills the disk: that batch fails, all of it, and the store goes on.
func TestNoSpace(t *testing.T) {
	disk := storetest.NewDisk()
	rec := &storetest.Recorder{Engine: disk}
	s := open(t, rec, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	put(t, s, c, "k", "v")
	entered, release := rec.Block()
	first := submit(s, store.Intent{Kind: store.Put, Cell: c, Name: "a"})
	wait(t, entered)
	var all []<-chan store.Result
	for _, in := range []store.Intent{
		{Kind: store.Put, Cell: c, Name: "b", Data: strings.Repeat("x", 1000)},
		{Kind: store.Remove, Cell: c, Name: "k"},
		{Kind: store.Remove, Cell: c, Name: "k"}, // refused because of the one before
		{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `","alias":"web"}`},
		{Kind: store.UpdateVM, Cell: c, Data: `{"alias":"web"}`}, // the same
		{Kind: store.Note, Cell: c},
	} {
		all = append(all, submit(s, in))
	}
	disk.Limit(disk.Size() + 200)
	release()
	wait(t, first)
	before := storetest.Rows(s)
	for i, ch := range all {
		if r := wait(t, ch); !errors.Is(r.Err, errs.NoSpace) {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	if s.Err() != nil || s.Cell(uuidB) != nil || s.Alias("web") != nil || c.VM() == nil {
		t.Error("a failed batch left something, or is final:", s.Err())
	}
	if got := storetest.Rows(s); fmt.Sprint(got) != fmt.Sprint(before) || s.Bytes() != c.VM().Bytes() || s.Count() != 1 {
		t.Errorf("rows %+v", got)
	}
	put(t, s, c, "k", "w")
	disk.Limit(0)
	put(t, s, c, "b", strings.Repeat("x", 1000))
	rows := storetest.Rows(s)
	_ = s.Close()
	s = open(t, disk, store.Config{})
	if got := storetest.Rows(s); fmt.Sprint(got) != fmt.Sprint(rows) {
		t.Errorf("after reopen %+v, want %+v", got, rows)
	}
}

// TestFullDiskLog: a guest that chooses which of its writes fit a full disk makes a line
// of each kind a minute, with how many were held back.
func TestFullDiskLog(t *testing.T) {
	var log strings.Builder
	at := time.Unix(1e9, 0)
	disk := storetest.NewDisk()
	s := open(t, disk, store.Config{Log: zerolog.New(&log), Now: func() time.Time { return at }})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	disk.Limit(disk.Size() + 300)
	for range 100 {
		refused(t, s, store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: strings.Repeat("x", 1000)}, errs.NoSpace)
		put(t, s, c, "k", "v")
	}
	at = at.Add(time.Minute)
	refused(t, s, store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: strings.Repeat("x", 1000)}, errs.NoSpace)
	put(t, s, c, "k", "v")
	_ = s.Close()
	var lines []string
	for line := range strings.Lines(log.String()) {
		var l struct {
			Message string
			More    int
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprint(l.Message, " ", l.More))
	}
	want := []string{"no room for a commit 0", "commits find room again 0", "no room for a commit 99", "commits find room again 99"}
	if !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
}

// TestSubmitFromDone goes on from within the committer.
func TestSubmitFromDone(t *testing.T) {
	s, c := withVM(t, store.Config{})
	done := make(chan store.Result, 1)
	var next func(n int) func(store.Result)
	next = func(n int) func(store.Result) {
		return func(r store.Result) {
			if n == 0 || r.Err != nil {
				done <- r
				return
			}
			s.Submit(&store.Intent{Kind: store.Append, Cell: c, Name: "k", Data: "x", Done: next(n - 1)})
		}
	}
	s.Submit(&store.Intent{Kind: store.Create, Cell: c, Name: "k", Done: next(100)})
	if r := wait(t, done); r.Err != nil || len(r.Entry.Value) != 100 {
		t.Errorf("%+v", r)
	}
	s.Submit(&store.Intent{Kind: store.Put, Cell: c, Name: "k"}) // nobody asks
	do(t, s, store.Intent{Kind: store.Create, Cell: c, Name: "k"})
	wantValue(t, c, "k", "")
}

// TestObserversComeLate: observers and recorders may be added while the store looks at
// what it writes to. The race detector is the judge.
func TestObserversComeLate(t *testing.T) {
	e := &looker{Engine: store.NewMemory(), looked: make(chan struct{}, 1)}
	s := open(t, e, store.Config{LookEvery: time.Microsecond})
	for range 200 {
		wait(t, e.looked)
		s.Observe(func(store.Committed) {})
		s.Record(func(store.Committed) {})
	}
}

// looker tells that it was asked to look.
type looker struct {
	store.Engine
	looked chan struct{}
}

func (l *looker) Look() error {
	select {
	case l.looked <- struct{}{}:
	default:
	}
	return nil
}
