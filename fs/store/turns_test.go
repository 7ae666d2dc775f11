package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta9/fs/cpu"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
)

// TestTurns has one VM with many writes waiting: the few of others, which come
// later, are in the first batch all the same, and so is the host's own to that VM. The
// VM's own keep their order.
func TestTurns(t *testing.T) {
	e := &counting{Engine: storetest.NewDisk()}
	s := open(t, e, store.Config{})
	hostile := create(t, s, `{"uuid":"`+uuidA+`"}`)
	honest := create(t, s, `{"uuid":"`+uuidB+`"}`)
	put(t, s, hostile, "k", "")
	put(t, s, honest, "k", "")
	e.ops = nil
	var intents []store.Intent
	batchOf := make(map[int]int)
	note := func(n int) func(store.Result) {
		return func(r store.Result) {
			if r.Err != nil {
				t.Error(r.Err)
			}
			batchOf[n] = len(e.ops)
		}
	}
	const many = 5000
	entered, busy := make(chan struct{}), make(chan struct{})
	s.Submit(&store.Intent{Kind: store.Put, Done: func(store.Result) { close(entered); <-busy }})
	wait(t, entered)
	for n := range many {
		intents = append(intents, store.Intent{Kind: store.Append, Cell: hostile, Guest: true, Name: "k", Data: string(rune('a' + n%26)), Done: note(n)})
	}
	intents = append(intents,
		store.Intent{Kind: store.Put, Cell: honest, Guest: true, Name: "k", Data: "v", Done: note(many)},
		store.Intent{Kind: store.Put, Cell: hostile, Name: "host", Data: "v", Done: note(many + 1)})
	for i := range intents {
		s.Submit(&intents[i])
	}
	close(busy)
	do(t, s, store.Intent{Kind: store.Note, Cell: hostile, Event: store.QMP}) // after all of the hostile
	if batchOf[many] != 1 {
		t.Errorf("the honest write is in batch %d", batchOf[many])
	}
	if batchOf[many+1] != 1 {
		t.Errorf("the host's write to the hostile VM is in batch %d", batchOf[many+1])
	}
	if n := batchOf[200]; n < 2 {
		t.Errorf("200 writes of one VM are in %d batches, though another waits", n)
	}
	for i, c := range []byte(value(t, hostile, "k")) {
		if c != byte('a'+i%26) {
			t.Fatalf("write %d is %q", i, c)
		}
	}
}

// TestTurnsAmongMany has more VMs than a batch takes intents, each with several
// waiting: all come to their turn before one comes again.
func TestTurnsAmongMany(t *testing.T) {
	const vms, each = 1500, 3
	s := open(t, store.NewMemory(), store.Config{})
	var cells []*store.Cell
	for i := range vms {
		cells = append(cells, create(t, s, fmt.Sprintf(`{"uuid":"%s"}`, uuidOf(i))))
	}
	done := make([]int, vms)
	worst := 0
	var intents []store.Intent
	for range each {
		for i, c := range cells {
			intents = append(intents, store.Intent{Kind: store.Put, Guest: true, Cell: c, Name: "k", Done: func(store.Result) {
				done[i]++
				least := each
				for _, n := range done {
					least = min(least, n)
				}
				worst = max(worst, done[i]-least)
			}})
		}
	}
	entered, busy := make(chan struct{}), make(chan struct{})
	s.Submit(&store.Intent{Kind: store.Put, Done: func(store.Result) { close(entered); <-busy }})
	wait(t, entered)
	for i := range intents {
		s.Submit(&intents[i])
	}
	close(busy)
	for _, c := range cells {
		do(t, s, store.Intent{Kind: store.Note, Cell: c, Event: store.QMP})
	}
	if worst > 1 {
		t.Errorf("one VM had %d turns more than another", worst)
	}
}

// TestTurnsBySize has one VM change the modes of large keys, each of which is stored
// anew, beside many small writes of another: each waits until the VM has saved up for
// it, and the small ones are not held up.
func TestTurnsBySize(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	hostile := create(t, s, `{"uuid":"`+uuidA+`"}`)
	honest := create(t, s, `{"uuid":"`+uuidB+`"}`)
	const large, small = 4, 300
	for n := range large {
		put(t, s, hostile, fmt.Sprint(n), strings.Repeat("x", 1<<20))
	}
	var order []string
	note := func(what string) func(store.Result) {
		return func(r store.Result) {
			if r.Err != nil {
				t.Error(r.Err)
			}
			order = append(order, what)
		}
	}
	entered, busy := make(chan struct{}), make(chan struct{})
	s.Submit(&store.Intent{Kind: store.Put, Done: func(store.Result) { close(entered); <-busy }})
	wait(t, entered)
	mode := uint16(0o644)
	for n := range large {
		s.Submit(&store.Intent{Kind: store.Set, Guest: true, Cell: hostile, Name: fmt.Sprint(n), Mode: &mode, Done: note("large")})
	}
	for range small {
		s.Submit(&store.Intent{Kind: store.Put, Guest: true, Cell: honest, Name: "k", Data: "v", Done: note("small")})
	}
	close(busy)
	for _, c := range []*store.Cell{honest, hostile} {
		do(t, s, store.Intent{Kind: store.Note, Cell: c, Event: store.QMP})
	}
	first := slices.Index(order, "large")
	if len(order) != large+small || first < small {
		t.Errorf("of %d, the first large one came after %d small ones", len(order), first)
	}
}

// slowDisk is an engine that takes long to make something durable.
type slowDisk struct {
	store.Engine
	long time.Duration
}

func (d *slowDisk) Apply(groups []store.Group) []error {
	time.Sleep(d.long)
	return d.Engine.Apply(groups)
}

// TestSlowDisk: who writes rests for what he has others wait, and not for how slow the
// disk is.
func TestSlowDisk(t *testing.T) {
	for _, tt := range []struct{ disk, least, most time.Duration }{
		{0, 0, 0},
		{3 * time.Millisecond, time.Millisecond, 20 * time.Millisecond}, // 0.8 of it, by eight, without a burst of 10 ms
		{80 * time.Millisecond, time.Millisecond, 40 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			disk := &slowDisk{Engine: store.NewMemory()}
			s := open(t, disk, store.Config{})
			writer, other := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
			disk.long = tt.disk
			time.Sleep(time.Second)
			atWork(writer, other)
			do(t, s, store.Intent{Kind: store.Put, Guest: true, Cell: writer, Name: "k", Data: strings.Repeat("x", 64<<10-512)})
			synctest.Wait() // the charge
			if d := writer.CPU().Rest(); d < tt.least || d > tt.most {
				t.Errorf("with a disk that takes %v it rests %v", tt.disk, d)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// atWork has it seen that both VMs are at work.
func atWork(a, b *store.Cell) {
	for _, c := range []*store.Cell{a, b, a} {
		var p cpu.Place
		p.Force(c.CPU())
		p.Give()
	}
}

// TestRestHoldsNobodyUp has one VM rest while another saves its share for a large write:
// that does not wait for the rests.
func TestRestHoldsNobodyUp(t *testing.T) {
	s := open(t, store.NewMemory(), store.Config{})
	resting, other := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
	chargeHour := func() { // resting must rest for half a second from now on, while both are at work
		atWork(resting, other)
		resting.CPU().Charge(time.Hour, 1)
	}
	chargeHour()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				chargeHour()
			case <-stop:
				return
			}
		}
	}()
	entered, busy := make(chan struct{}), make(chan struct{})
	s.Submit(&store.Intent{Kind: store.Put, Done: func(store.Result) { close(entered); <-busy }})
	wait(t, entered)
	little := submit(s, store.Intent{Kind: store.Put, Guest: true, Cell: resting, Name: "k", Data: "v"})
	large := submit(s, store.Intent{Kind: store.Put, Guest: true, Cell: other, Name: "k", Data: strings.Repeat("x", 1<<20)})
	from := time.Now()
	close(busy)
	if r := wait(t, large); r.Err != nil {
		t.Error(r.Err)
	}
	if d := time.Since(from); d > 2*time.Second { // with the rests, eight
		t.Errorf("the large write took %v", d)
	}
	select {
	case <-little:
		t.Error("nobody rested")
	default:
	}
	close(stop)
	<-stopped
	if r := wait(t, little); r.Err != nil {
		t.Error(r.Err)
	}
}

// TestOneVMFails has an engine that takes the groups of one VM and not those of
// another: each gets its own answer, and what was not taken leaves no trace.
func TestOneVMFails(t *testing.T) {
	disk := storetest.NewDisk()
	s := open(t, disk, store.Config{})
	a := create(t, s, `{"uuid":"`+uuidA+`","alias":"a"}`)
	b := create(t, s, `{"uuid":"`+uuidB+`","alias":"b"}`)
	entry := put(t, s, a, "k", "old")
	hold := s.Hold(a, 0, entry.ID, false)
	var told []string
	before := s.Rev()
	disk.Full(uuidA)
	results := together(t, s,
		store.Intent{Kind: store.Append, Cell: a, Name: "k", Data: "new"},
		store.Intent{Kind: store.UpdateVM, Cell: a, Data: `{"alias":"x"}`},
		store.Intent{Kind: store.Put, Cell: b, Name: "k", Data: "new"},
		store.Intent{Kind: store.UpdateVM, Cell: b, Data: `{"alias":"y"}`},
		store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidC + `","alias":"c"}`},
	)
	for i, r := range results {
		if failed := errors.Is(r.Err, errs.NoSpace); failed != (i < 2) || !failed && r.Err != nil {
			t.Errorf("intent %d: %v", i, r.Err)
		}
	}
	wantValue(t, a, "k", "old")
	wantValue(t, b, "k", "new")
	if s.Alias("a") != a || s.Alias("x") != nil || s.Alias("y") != b || s.Alias("b") != nil || s.Cell(uuidC) == nil {
		t.Error("names are not those of what is durable")
	}
	if !hold.Active() || s.Err() != nil || s.Count() != 3 {
		t.Errorf("hold %v, Err %v, %d VMs", hold.Active(), s.Err(), s.Count())
	}
	events, _ := s.Ring().After(before, 0, nil)
	for _, ev := range events {
		told = append(told, ev.VM)
	}
	if strings.Contains(strings.Join(told, " "), uuidA) || len(told) != 3 {
		t.Errorf("events of %q", told)
	}
	disk.Full("")
	do(t, s, store.Intent{Kind: store.Append, Cell: a, Name: "k", Data: "new"})
	wantValue(t, a, "k", "new") // the truncation that was held came first
	want := storetest.Rows(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := storetest.Rows(open(t, disk, store.Config{})); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Error("after reopen the rows differ")
	}
}
