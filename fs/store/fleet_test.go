package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

// TestFleetIDs: two hosts of a fleet never give two objects one ID, also where the IDs
// of one request are more than are left of a block.
func TestFleetIDs(t *testing.T) {
	f := storetest.NewFleet()
	seen := make(map[uint64]string)
	once := func(id uint64, what string) {
		t.Helper()
		if seen[id] != "" || id < store.FirstID {
			t.Fatalf("ID %d is of %s and of %s", id, what, seen[id])
		}
		seen[id] = what
	}
	for round := range 3 { // each begins where a process has ended
		for host := range 2 {
			s := open(t, f.Host(fmt.Sprint(host)), store.Config{})
			name := func(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%04x%04x%04x", round, host, i) }
			for i := range 5 {
				c := create(t, s, `{"uuid":"`+name(i)+`","customer_metadata":{`+manyKeys(60*i)+`}}`)
				put(t, s, c, "later", "v")
				for slot := range uint64(vm.IDsPerVM) {
					once(c.ID()+slot, c.UUID())
				}
				for e := range c.VM().Entries(vm.Keys) {
					once(e.ID, c.UUID()+" "+e.Name)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":""`, i)
	}
	return strings.TrimPrefix(b.String(), ",")
}

// TestNoBlock: without a block of IDs what takes one is refused, and nothing else, also
// where a process has begun without any.
func TestNoBlock(t *testing.T) {
	f := storetest.NewFleet()
	s := open(t, f.Host("a"), store.Config{})
	none := errs.New(errs.Again, "no IDs")
	f.NoIDs(none)
	refused(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}, errs.Again)
	f.NoIDs(nil)
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	f.NoIDs(none)
	put(t, s, c, "k", "v") // of the block that there is
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, f.Host("a"), store.Config{})
	c = s.Cell(uuidA)
	id := c.VM().Get(vm.Keys, "k").ID
	for _, in := range []store.Intent{
		{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`},
		{Kind: store.UpdateVM, Cell: c, Data: `{"set_customer_metadata":{"new":"v"}}`},
		{Kind: store.ReplaceVM, Cell: c, Data: `{"uuid":"` + uuidA + `"}`},
		{Kind: store.Put, Cell: c, Name: "new"},
		{Kind: store.Create, Cell: c, Name: "new"},
		{Kind: store.Txn, Cell: c, Txn: &store.Transaction{Do: []store.Intent{{Kind: store.Put, Name: "k"}, {Kind: store.Put, Name: "new"}}}},
	} {
		refused(t, s, in, errs.Again)
	}
	for _, in := range []store.Intent{
		{Kind: store.Append, Cell: c, Name: "k", Data: "w"},
		{Kind: store.Splice, Cell: c, Name: "k", Off: 1, Data: "x"},
		{Kind: store.Create, Cell: c, Name: "k"},
		{Kind: store.Txn, Cell: c, Txn: &store.Transaction{Do: []store.Intent{{Kind: store.Append, Name: "k", Data: "y"}}}},
		{Kind: store.Set, Cell: c, Name: "k", NewName: "n"},
		{Kind: store.Put, Cell: c, Name: "n", Data: "v"},
		{Kind: store.Note, Cell: c, Event: store.QMP, Name: "n"},
	} {
		do(t, s, in)
	}
	do(t, s, store.Intent{Kind: store.FlushHold, Cell: c, Hold: s.Hold(c, vm.Keys, id, false)})
	wantValue(t, c, "n", "")
	put(t, s, c, "n", "old")
	s.Hold(c, vm.Keys, id, false).Drop()
	do(t, s, store.Intent{Kind: store.Append, Cell: c, Name: "n", Data: "er"})
	wantValue(t, c, "n", "older") // the Hold is no longer there
	do(t, s, store.Intent{Kind: store.Remove, Cell: c, Name: "n"})
	do(t, s, store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{To: "a"}})
	a, err := s.Fetch(uuidA)
	if err != nil {
		t.Fatal(err)
	}
	c = do(t, s, store.Intent{Kind: store.Adopt, Arrival: a}).Cell
	f.NoIDs(nil)
	b := create(t, s, `{"uuid":"`+uuidB+`"}`)
	f.NoIDs(none)
	do(t, s, store.Intent{Kind: store.DeleteVM, Cell: c})
	f.Take(uuidB, "b")
	if r := s.Do(&store.Intent{Kind: store.Put, Cell: b, Name: "k"}); errs.KindOf(r.Err) != errs.Moved {
		t.Error(r.Err)
	}
	gone(t, s, uuidB)
}

// gone waits until the store no longer serves the VM.
func gone(t *testing.T, s *store.Store, uuid string) {
	t.Helper()
	for deadline := time.Now().Add(soon); s.Cell(uuid) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a VM of another host's is served here still")
		}
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
}

// TestMove gives a VM to another host and back: all of it goes along, revisions grow,
// no event says that it was deleted, and the host that it has left refuses it.
func TestMove(t *testing.T) {
	f := storetest.NewFleet()
	hosts := [2]*store.Store{}
	names := [2]string{"a", "b"}
	var told [2][]store.Committed
	for i := range hosts {
		hosts[i] = open(t, f.Host(names[i]), store.Config{})
		hosts[i].Observe(func(c store.Committed) { told[i] = append(told[i], c) })
	}
	c := create(t, hosts[0], `{"uuid":"`+uuidA+`","alias":"web","customer_metadata":{"k":"1"}}`)
	id := c.VM().Get(vm.Keys, "k").ID
	rev := c.VM().Rev
	for i := range 6 {
		from, to := hosts[i%2], hosts[1-i%2]
		// What is submitted before the gift is in it.
		value := fmt.Sprint("round ", i)
		last := submit(from, store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: value})
		gift := &store.Gift{To: names[1-i%2], With: []byte(value)}
		do(t, from, store.Intent{Kind: store.Yield, Cell: c, Gift: gift})
		r := wait(t, last)
		if r.Err != nil || r.Entry.Rev <= rev || gift.Mark < r.Entry.Rev {
			t.Fatalf("%v, revision %d after %d, mark %d", r.Err, r.Entry.Rev, rev, gift.Mark)
		}
		rev = r.Entry.Rev
		refused(t, from, store.Intent{Kind: store.Put, Cell: c, Name: "k"}, errs.Moved)
		if c.VM() != nil || from.Cell(uuidA) != nil || from.Alias("web") != nil || from.Count() != 0 || from.Bytes() != 0 {
			t.Error("it is still there")
		}
		if _, err := from.Fetch(uuidA); errs.KindOf(err) != errs.Moved {
			t.Errorf("fetched where it is not: %v", err)
		}
		a, err := to.Fetch(uuidA)
		if err != nil {
			t.Fatal(err)
		}
		if string(f.With(uuidA)) != value {
			t.Errorf("with it came %q", f.With(uuidA))
		}
		c = do(t, to, store.Intent{Kind: store.Adopt, Arrival: a}).Cell
		wantValue(t, c, "k", value)
		if c != to.Cell(uuidA) || c != to.Alias("web") || c.VM().Get(vm.Keys, "k").ID != id || to.Rev() <= gift.Mark {
			t.Errorf("it has come as another: %+v, revision %d after %d", c.VM(), to.Rev(), gift.Mark)
		}
	}
	put(t, hosts[0], c, "k", "end")
	for i, s := range hosts {
		events, _ := s.Ring().After(0, 0, nil)
		var types []string
		for _, ev := range events {
			if ev.Type == store.VMDeleted {
				t.Errorf("%s: %+v", names[i], ev)
			}
			if ev.Type == store.VMArrived || ev.Type == store.VMLeft {
				types = append(types, string(ev.Type))
			}
		}
		if len(types) != 6 {
			t.Errorf("%s: %q", names[i], types)
		}
	}
	for i, s := range hosts {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		came, went := 0, 0
		for _, c := range told[i] {
			if c.Before == nil {
				came++
			}
			if c.After == nil {
				went++
			}
		}
		if came != 4-i || went != 3 {
			t.Errorf("%s was told that it came %d times and went %d times", names[i], came, went)
		}
	}
	// A process that begins again has what its host owns.
	s := open(t, f.Host("a"), store.Config{})
	wantValue(t, s.Cell(uuidA), "k", "end")
	if n := open(t, f.Host("b"), store.Config{}).Count(); n != 0 {
		t.Errorf("b has %d VMs", n)
	}
}

// TestFenced: a host whose VM was taken has its next change refused, and no longer has
// the VM; its others go on.
func TestFenced(t *testing.T) {
	f := storetest.NewFleet()
	s := open(t, f.Host("a"), store.Config{})
	gone := make(chan store.Committed, 1)
	s.Observe(func(c store.Committed) {
		if c.After == nil {
			gone <- c
		}
	})
	a, b := create(t, s, `{"uuid":"`+uuidA+`","alias":"web"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
	put(t, s, a, "k", "v")
	put(t, s, b, "k", "v")
	f.Take(uuidA, "b")
	first := submit(s, store.Intent{Kind: store.Put, Cell: a, Name: "k", Data: "lost"})
	other := submit(s, store.Intent{Kind: store.Put, Cell: b, Name: "k", Data: "kept"})
	if r := wait(t, first); errs.KindOf(r.Err) != errs.Moved {
		t.Errorf("the change of a VM that was taken: %v", r.Err)
	}
	if r := wait(t, other); r.Err != nil {
		t.Error(r.Err)
	}
	told := wait(t, gone)
	if told.Cell != a || len(told.Changes) != 1 || told.Before.Get(vm.Keys, "k").Value != "v" {
		t.Errorf("told of %+v", told)
	}
	refused(t, s, store.Intent{Kind: store.Put, Cell: a, Name: "k"}, errs.Moved)
	if s.Err() != nil || s.Cell(uuidA) != nil || s.Alias("web") != nil || s.Count() != 1 {
		t.Errorf("%v, %d VMs", s.Err(), s.Count())
	}
	wantValue(t, b, "k", "kept")
	// The other host has all that was acknowledged.
	o := open(t, f.Host("b"), store.Config{})
	wantValue(t, o.Cell(uuidA), "k", "v")
}

// TestCreateElsewhere: a VM that another host has cannot be created, and nothing else of
// that moment fails.
func TestCreateElsewhere(t *testing.T) {
	f := storetest.NewFleet()
	a, b := open(t, f.Host("a"), store.Config{}), open(t, f.Host("b"), store.Config{})
	create(t, a, `{"uuid":"`+uuidA+`"}`)
	r := b.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `","alias":"web"}`})
	if errs.KindOf(r.Err) != errs.Exists || b.Err() != nil || b.Cell(uuidA) != nil || b.Count() != 0 || b.Bytes() != 0 {
		t.Errorf("%v, %v, %d VMs", r.Err, b.Err(), b.Count())
	}
	create(t, b, `{"uuid":"`+uuidB+`","alias":"web"}`)
}

// TestGiftRefused: a VM that could not be given away stays, with what was changed before.
func TestGiftRefused(t *testing.T) {
	f := storetest.NewFleet()
	s := open(t, f.Host("a"), store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`","alias":"web"}`)
	f.Full(uuidA)
	refused(t, s, store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{To: "b"}}, errs.NoSpace)
	f.Full("")
	put(t, s, c, "k", "v")
	if s.Cell(uuidA) != c || s.Alias("web") != c {
		t.Error("it has lost its names")
	}
	do(t, s, store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{}})
}

// TestGivenIsHidden: while a VM is given away nobody is shown it, since the new owner may have
// changed it before this host has the answer for all of the batch. One that cannot be given is
// shown again.
func TestGivenIsHidden(t *testing.T) {
	f := storetest.NewFleet()
	e := &steered{Host: f.Host("a")}
	s := open(t, e, store.Config{})
	c, other := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
	rows := func() (n int) {
		s.Snapshot(func(all []*vm.VM, _ uint64) { n = len(all) })
		return n
	}
	for _, full := range []string{uuidA, ""} {
		f.Full(full)
		entered, release := e.hold()
		given := submit(s, store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{To: "b"}})
		wait(t, entered)
		if c.VM() != nil || other.VM() == nil || rows() != 2 {
			t.Errorf("%v, %v: while it is given away; %d rows of one moment", c.VM(), other.VM(), rows())
		}
		release()
		r := wait(t, given)
		if is, want := c.VM() != nil, full != ""; is != want || (r.Err != nil) != want {
			t.Errorf("is it there: %v, %v", is, r.Err)
		}
	}
	if rows() != 1 {
		t.Errorf("%d rows at the end", rows())
	}
}

// TestGivenIsLost: a VM that is found to be another host's while it is given away is not shown again,
// and ends also where that has to be tried again.
func TestGivenIsLost(t *testing.T) {
	f := storetest.NewFleet()
	e := &steered{Host: f.Host("a")}
	s := open(t, e, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`","alias":"web"}`)
	other := create(t, s, `{"uuid":"`+uuidB+`"}`)
	tries := make(chan struct{}, 100)
	e.ownFails(func(uint64) { tries <- struct{}{} }) // the store cannot publish anything
	for len(tries) == 0 {
		s.Do(&store.Intent{Kind: store.Put, Cell: other, Name: "k", Data: "v"})
	}
	shown := make(chan bool, 1)
	s.Submit(&store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{To: "c"}, Done: func(r store.Result) {
		if errs.KindOf(r.Err) != errs.Moved {
			t.Error(r.Err)
		}
		shown <- c.VM() != nil
	}})
	if wait(t, shown) {
		t.Error("what another host may have changed is shown")
	}
	if r := s.Do(&store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{To: "c"}}); errs.KindOf(r.Err) != errs.Moved {
		t.Errorf("given once more: %v", r.Err)
	}
	for range 4 {
		wait(t, tries)
	}
	e.instead.Store(nil)
	gone(t, s, uuidA)
	gone(t, s, uuidB)
	if c.VM() != nil || s.Count() != 0 || s.Bytes() != 0 || s.Alias("web") != nil {
		t.Errorf("%d VMs of %d bytes", s.Count(), s.Bytes())
	}
	refused(t, s, store.Intent{Kind: store.Put, Cell: c, Name: "k"}, errs.Moved)
}

// TestAloneRefuses: a store that is in no fleet has nothing to give or take.
func TestAloneRefuses(t *testing.T) {
	s, c := withVM(t, store.Config{})
	if _, err := s.Fetch(uuidB); errs.KindOf(err) != errs.Unsupported {
		t.Error(err)
	}
	refused(t, s, store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{}}, errs.Unsupported)
	refused(t, s, store.Intent{Kind: store.Adopt, Arrival: &store.Arrival{}}, errs.Unsupported)
}

// TestFleetDamage: a VM of which a record is damaged is named and not served, neither at
// a start nor by Fetch; others are.
func TestFleetDamage(t *testing.T) {
	f := storetest.NewFleet()
	s := open(t, f.Host("a"), store.Config{})
	for _, uuid := range []string{uuidA, uuidB} {
		put(t, s, create(t, s, `{"uuid":"`+uuid+`"}`), "name", "v")
	}
	want := storetest.RowOf(s.Cell(uuidB).VM())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.Harm(uuidA, "name")
	s = open(t, f.Host("a"), store.Config{})
	if d := cmp.Diff([]storetest.Row{want}, storetest.Rows(s)); d != "" {
		t.Error(d)
	}
	if d := s.Salvaged(); len(d) != 1 || d[0].VM != uuidA || d[0].Key != "keys/name" {
		t.Errorf("damage: %v", d)
	}
	_, err := s.Fetch(uuidA)
	if errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), uuidA+", keys/name") {
		t.Errorf("fetched: %v", err)
	}
	if r := s.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}); errs.KindOf(r.Err) != errs.Exists {
		t.Errorf("created in its place: %v", r.Err)
	}
}

// TestCIDOfAnother: a VM that comes from a host where it had a CID that another VM has here is served
// all the same, and does not get the other's CID, also when the host starts anew: who has it then
// is not known, and nobody is taken for the other.
func TestCIDOfAnother(t *testing.T) {
	f := storetest.NewFleet()
	e := &steered{Host: f.Host("b")}
	a, b := open(t, f.Host("a"), store.Config{}), open(t, e, store.Config{})
	c := create(t, a, `{"uuid":"`+uuidA+`","vsock_cid":5}`)
	other := create(t, b, `{"uuid":"`+uuidB+`","vsock_cid":5}`)
	do(t, a, store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{To: "b"}})
	arrival, err := b.Fetch(uuidA)
	if err != nil {
		t.Fatal(err)
	}
	entered, release := e.hold()
	before := submit(b, store.Intent{Kind: store.Put, Cell: other, Name: "k"})
	wait(t, entered)
	failed := submit(b, store.Intent{Kind: store.Put, Cell: other, Name: "k"}) // so that the index of the batch is made twice
	adopted := submit(b, store.Intent{Kind: store.Adopt, Arrival: arrival})
	e.steer(func(groups []store.Group) []error {
		f.Full(uuidB)
		defer f.Full("")
		return e.Host.Apply(groups)
	})
	release()
	if r := wait(t, before); r.Err != nil {
		t.Fatal(r.Err)
	}
	c = wait(t, adopted).Cell
	if r := wait(t, failed); errs.KindOf(r.Err) != errs.NoSpace || b.Err() != nil {
		t.Error(r.Err, b.Err())
	}
	e.instead.Store(nil)
	update := func(c *store.Cell, patch string) { do(t, b, store.Intent{Kind: store.UpdateVM, Cell: c, Data: patch}) }
	update(c, `{"alias":"web"}`)
	if b.ByCID(5) != other || b.Cell(uuidA) != c || b.Alias("web") != c {
		t.Error("the CID is not that of the VM that had it")
	}
	refused(t, b, store.Intent{Kind: store.UpdateVM, Cell: other, Data: `{"alias":"web"}`}, errs.Exists)
	update(c, `{"vsock_cid":6}`)
	if b.ByCID(5) != other || b.ByCID(6) != c {
		t.Error("a CID of its own")
	}
	refused(t, b, store.Intent{Kind: store.UpdateVM, Cell: c, Data: `{"vsock_cid":5}`}, errs.Exists)
	do(t, b, store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{}})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	const uuidD = "00000000-0000-4000-8000-00000000000d"
	for _, uuid := range []string{uuidC, uuidD} {
		create(t, a, `{"uuid":"`+uuid+`","vsock_cid":`+map[string]string{uuidC: "5", uuidD: "7"}[uuid]+`}`)
		f.Take(uuid, "b")
	}
	f.Take(uuidA, "b") // it has 6
	b = open(t, f.Host("b"), store.Config{})
	if n := len(b.Salvaged()); b.Count() != 4 || n > 0 || b.ByCID(5) != nil || b.ByCID(6) != b.Cell(uuidA) || b.ByCID(7) != b.Cell(uuidD) {
		t.Errorf("%d VMs, %d damaged, CID 5 is %v", b.Count(), n, b.ByCID(5))
	}
	update(b.Cell(uuidC), `{"vsock_cid":8}`)
	if b.ByCID(5) != nil || b.ByCID(8) != b.Cell(uuidC) {
		t.Error("one of them has got another")
	}
	do(t, b, store.Intent{Kind: store.DeleteVM, Cell: b.Cell(uuidB)})
	create(t, b, `{"uuid":"`+uuidB+`","vsock_cid":5}`)
	if b.ByCID(5) != b.Cell(uuidB) {
		t.Error("nobody else has it")
	}
}

// TestLostAtOnce: while a VM is found to be lost, other intents of the same moment
// get an answer, and none twice.
func TestLostAtOnce(t *testing.T) {
	f := storetest.NewFleet()
	rec := &heldHost{f.Host("a"), make(chan struct{}), make(chan struct{})}
	s := open(t, rec, store.Config{})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	f.Take(uuidA, "b")
	close(rec.armed)
	var all []<-chan store.Result
	for i := range 200 {
		all = append(all, submit(s, store.Intent{Kind: store.Put, Cell: c, Name: fmt.Sprint(i), Guest: i%2 == 0}))
	}
	close(rec.resume)
	for i, ch := range all {
		if r := wait(t, ch); errs.KindOf(r.Err) != errs.Moved {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	gone(t, s, uuidA)
	create(t, s, `{"uuid":"`+uuidB+`"}`)
}

// heldHost waits in Apply once it is armed.
type heldHost struct {
	*storetest.Host
	armed, resume chan struct{}
}

func (r *heldHost) Apply(groups []store.Group) []error {
	select {
	case <-r.armed:
		<-r.resume
	default:
	}
	return r.Host.Apply(groups)
}

// steered is a host's engine whose Apply a test takes over.
type steered struct {
	*storetest.Host
	instead atomic.Pointer[func(groups []store.Group) []error]
}

func (e *steered) Apply(groups []store.Group) []error {
	if fn := e.instead.Load(); fn != nil {
		return (*fn)(groups)
	}
	return e.Host.Apply(groups)
}

func (e *steered) steer(fn func(groups []store.Group) []error) { e.instead.Store(&fn) }

// hold has the next Apply wait for release, and those after it go on.
func (e *steered) hold() (entered <-chan struct{}, release func()) {
	in, out := make(chan struct{}), make(chan struct{})
	e.steer(func(groups []store.Group) []error {
		e.instead.Store(nil)
		close(in)
		<-out
		return e.Host.Apply(groups)
	})
	return in, sync.OnceFunc(func() { close(out) })
}

// marks is the record of the marks that is durable.
func (e *steered) marks() (value string) {
	_ = e.Scan(func(k, v []byte) error {
		if string(k) == string(store.MarksKey()) {
			value = string(v)
		}
		return nil
	})
	return value
}

// failures counts what a journal is told of.
type failures struct {
	mu     sync.Mutex
	failed []uint64
	whole  int // of these nothing was published
}

func (*failures) Begun(uint64, []store.Event) {}

func (j *failures) Failed(number uint64, vms []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failed = append(j.failed, number)
	if vms == nil {
		j.whole++
	}
}

// ownFails makes each Apply fail that has a group of the store's own, and one of a VM's
// with an error of another kind.
func (e *steered) ownFails(then func(number uint64)) {
	e.steer(func(groups []store.Group) []error {
		if groups[0].VM != "" {
			return e.Host.Apply(groups)
		}
		then(groups[0].Number)
		failed := store.AllFailed(groups, store.Unchanged(errs.New(errs.Moved, "another host's")))
		failed[0] = errs.New(errs.NoSpace, "no room")
		return failed
	})
}

// untilMarks changes the VM until the store writes its marks anew, which fails, and gives
// the Number of that batch, and the marks that are durable then.
func untilMarks(t *testing.T, s *store.Store, e *steered, c *store.Cell) (number uint64, marks string) {
	t.Helper()
	e.ownFails(func(n uint64) {
		number, marks = n, e.marks()
		e.instead.Store(nil)
	})
	for range 1 << 18 {
		r := s.Do(&store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: "v"})
		if e.instead.Load() == nil {
			if errs.KindOf(r.Err) != errs.Moved {
				t.Errorf("the VM of a batch whose marks failed: %v", r.Err)
			}
			return number, marks
		}
	}
	t.Fatal("the marks were not written")
	return 0, ""
}

// TestMarksFailed: marks that are not durable do not count, also where the VMs' groups
// have failed for another reason; and the journal is told of the batch.
func TestMarksFailed(t *testing.T) {
	f := storetest.NewFleet()
	e := &steered{Host: f.Host("a")}
	j := new(failures)
	s := open(t, e, store.Config{Journal: j})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	d := create(t, s, `{"uuid":"`+uuidB+`"}`)
	number, before := untilMarks(t, s, e, d)
	put(t, s, c, "k", "v")
	if e.marks() == before {
		t.Errorf("revision %d was told, and the marks are as they were before it was reserved", c.VM().Rev)
	}
	if len(j.failed) != 1 || j.failed[0] != number {
		t.Errorf("the journal was told that %d failed, not %d", j.failed, number)
	}
}

// TestMovedDespiteFailure: a VM that is found to be another host's is served no longer,
// whatever fails in the batch of its end.
func TestMovedDespiteFailure(t *testing.T) {
	t.Run("of another VM", func(t *testing.T) {
		f := storetest.NewFleet()
		e := &steered{Host: f.Host("a")}
		s := open(t, e, store.Config{})
		a, b := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
		f.Take(uuidA, "b")
		f.Full(uuidB)
		entered, release := e.hold()
		one := submit(s, store.Intent{Kind: store.Put, Cell: a, Name: "k", Data: "w"})
		wait(t, entered)
		two := submit(s, store.Intent{Kind: store.Put, Cell: b, Name: "k", Data: "w"})
		release()
		if r := wait(t, one); errs.KindOf(r.Err) != errs.Moved {
			t.Error(r.Err)
		}
		if r := wait(t, two); errs.KindOf(r.Err) != errs.NoSpace {
			t.Error(r.Err)
		}
		gone(t, s, uuidA)
	})
	t.Run("of the marks", func(t *testing.T) {
		f := storetest.NewFleet()
		e := &steered{Host: f.Host("a")}
		s := open(t, e, store.Config{})
		untilMarks(t, s, e, create(t, s, `{"uuid":"`+uuidA+`"}`))
		gone(t, s, uuidA)
	})
	t.Run("of the marks, again", func(t *testing.T) {
		f := storetest.NewFleet()
		e := &steered{Host: f.Host("a")}
		s := open(t, e, store.Config{})
		a := create(t, s, `{"uuid":"`+uuidA+`"}`)
		tries := make(chan struct{}, 100)
		e.ownFails(func(uint64) { tries <- struct{}{} })
		for len(tries) == 0 {
			s.Do(&store.Intent{Kind: store.Put, Cell: a, Name: "k", Data: "v"})
		}
		wait(t, tries)
		from := time.Now()
		for range 4 {
			wait(t, tries)
		}
		// The first of them may come at once, and there are 100 ms before each other.
		if took := time.Since(from); took < 200*time.Millisecond {
			t.Errorf("4 tries more in %v", took)
		}
		if r := s.Do(&store.Intent{Kind: store.Put, Cell: a, Name: "k"}); r.Err == nil {
			t.Error("changed without marks")
		}
		e.instead.Store(nil)
		gone(t, s, uuidA)
	})
}

// TestMovedTouchesNoOther: intents of a VM that is here, and that need no group, do not
// fail because another VM of the batch is elsewhere.
func TestMovedTouchesNoOther(t *testing.T) {
	f := storetest.NewFleet()
	e := &steered{Host: f.Host("a")}
	told := new(failures)
	s := open(t, e, store.Config{Journal: told})
	a, b := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
	put(t, s, b, "k", "v")
	entered, release := e.hold()
	zero := submit(s, store.Intent{Kind: store.Put, Cell: b, Name: "k", Data: "w"})
	wait(t, entered)
	f.Take(uuidA, "b")
	moved := submit(s, store.Intent{Kind: store.Put, Cell: a, Name: "k", Data: "w"})
	all := []<-chan store.Result{
		zero,
		submit(s, store.Intent{Kind: store.Note, Cell: b, Event: store.SessionParked, Name: "x"}),
		submit(s, store.Intent{Kind: store.Remove, Cell: b, Name: "none"}),
		submit(s, store.Intent{Kind: store.FlushHold, Cell: b}),
	}
	release()
	if r := wait(t, moved); errs.KindOf(r.Err) != errs.Moved {
		t.Error(r.Err)
	}
	for i, ch := range all {
		if r := wait(t, ch); errs.KindOf(r.Err) == errs.Moved || r.Err != nil && i != 2 {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	told.mu.Lock()
	defer told.mu.Unlock()
	if len(told.failed) != 1 || told.whole != 0 { // the note was published
		t.Errorf("the journal was told of %d batches, of %d that all of them has failed", len(told.failed), told.whole)
	}
}

// TestTailMoves: the ring of a VM goes on at its next host where it ended at the one before,
// with what was committed beside the gift.
func TestTailMoves(t *testing.T) {
	f := storetest.NewFleet()
	a, b := open(t, f.Host("a"), store.Config{}), open(t, f.Host("b"), store.Config{})
	c := create(t, a, `{"uuid":"`+uuidA+`"}`)
	at := c.Ring().Last()
	var mark uint64
	var last store.Tail
	gift := &store.Gift{To: "b", Pack: func(m uint64, tail store.Tail) []byte {
		mark, last = m, tail
		return []byte("packed")
	}}
	put(t, a, c, "k", "1")
	beside := submit(a, store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: "2"})
	do(t, a, store.Intent{Kind: store.Yield, Cell: c, Gift: gift})
	if r := wait(t, beside); r.Err != nil {
		t.Fatal(r.Err)
	}
	if len(last.Events) != 2 || last.Last != last.Events[1].Rev || mark <= last.Last || string(f.With(uuidA)) != "packed" {
		t.Fatalf("mark %d, %+v", mark, last)
	}
	arrival, err := b.Fetch(uuidA)
	if err != nil || arrival.Mark() != mark {
		t.Fatal(arrival.Mark(), err)
	}
	bad := last
	bad.Last = mark + 1
	if err := arrival.Bring(bad); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a ring that ends after the VM has left: %v", err)
	}
	if err := arrival.Bring(last); err != nil {
		t.Fatal(err)
	}
	c = do(t, b, store.Intent{Kind: store.Adopt, Arrival: arrival}).Cell
	put(t, b, c, "k", "3")
	events, lost := c.Ring().After(at, 0, nil)
	if len(events) != 3 || lost != 0 {
		t.Errorf("%d events, %d lost", len(events), lost)
	}
}

// TestPeek reads a VM of any host's, and no other.
func TestPeek(t *testing.T) {
	f := storetest.NewFleet()
	h := f.Host("b")
	a := open(t, f.Host("a"), store.Config{})
	put(t, a, create(t, a, `{"uuid":"`+uuidA+`"}`), "k", "v")
	v, err := store.Peek(t.Context(), h, uuidA)
	if err != nil || v.Get(vm.Keys, "k").Value != "v" {
		t.Error(err)
	}
	if _, err := store.Peek(t.Context(), h, uuidB); errs.KindOf(err) != errs.NotFound {
		t.Error(err)
	}
	f.Harm(uuidA, "k")
	if _, err := store.Peek(t.Context(), h, uuidA); errs.KindOf(err) != errs.IO {
		t.Error(err)
	}
}

// TestElsewhereWaits: who waits for the end of a VM that is another host's, while the engine
// has no answer, waits no longer than its context; the VM ends when there is an answer.
func TestElsewhereWaits(t *testing.T) {
	f := storetest.NewFleet()
	e := &steered{Host: f.Host("a")}
	s := open(t, e, store.Config{})
	a, b := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
	f.Take(uuidA, "b")
	entered, release := e.hold()
	defer release()
	under := submit(s, store.Intent{Kind: store.Put, Cell: b, Name: "k", Data: "v"})
	wait(t, entered)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Elsewhere(ctx, a) }()
	cancel()
	if err := wait(t, ended); errs.KindOf(err) != errs.Busy {
		t.Errorf("without an answer: %v", err)
	}
	release()
	if r := wait(t, under); r.Err != nil {
		t.Error(r.Err)
	}
	gone(t, s, uuidA)
	if err := s.Elsewhere(t.Context(), a); err != nil {
		t.Errorf("when it has ended: %v", err)
	}
}
