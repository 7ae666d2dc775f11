package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/etcd"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

const (
	uuidA = "00000000-0000-4000-8000-00000000000a"
	uuidB = "00000000-0000-4000-8000-00000000000b"
)

// engine opens a host's engine.
func (c *cluster) engine(t testing.TB, prefix, host string) *etcd.Engine {
	t.Helper()
	e, err := etcd.Open(context.Background(), etcd.Config{
		Endpoints: c.Endpoints(), Prefix: prefix, Fleet: "test", Host: host, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// open opens a host's store, which ends with the test.
func (c *cluster) open(t testing.TB, prefix, host string) *store.Store {
	t.Helper()
	return opened(t, c.engine(t, prefix, host))
}

func opened(t testing.TB, e store.Engine) *store.Store {
	t.Helper()
	s, err := store.Open(e, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.Interrupt() // it may wait for what does not come
		}
		_ = s.Close()
	})
	return s
}

func do(t testing.TB, s *store.Store, in store.Intent) store.Result {
	t.Helper()
	r := s.Do(&in)
	if r.Err != nil {
		t.Fatalf("kind %d, name %q: %v", in.Kind, in.Name, r.Err)
	}
	return r
}

// TestSuite is the suite of every engine, on a real cluster.
func TestSuite(t *testing.T) {
	c := start(t, 3)
	storetest.RunUpTo(t, func(dir string) store.Engine {
		sum := fnv.New64()
		_, _ = sum.Write([]byte(dir))
		return c.engine(t, fmt.Sprintf("/suite/%x/", sum.Sum64()), "host")
	}, 1<<20)
}

// TestMove has a VM go to and fro between two hosts' stores: every acknowledged change is
// there, and the one that has given it away can change nothing.
func TestMove(t *testing.T) {
	c := start(t, 3)
	engines := []*etcd.Engine{c.engine(t, "/move/", "a"), c.engine(t, "/move/", "b")}
	hosts := []*store.Store{opened(t, engines[0]), opened(t, engines[1])}
	cell := do(t, hosts[0], store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `","alias":"web"}`}).Cell
	other := do(t, hosts[1], store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`}).Cell
	if cell.ID()>>20 == other.ID()>>20 {
		t.Errorf("two hosts have IDs of one block: %d, %d", cell.ID(), other.ID())
	}
	if r := hosts[1].Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}); errs.KindOf(r.Err) != errs.Exists || !strings.Contains(r.Err.Error(), `host "a"`) {
		t.Errorf("created at two hosts: %v", r.Err)
	}
	var rev uint64
	for i := range 20 {
		from, to := hosts[i%2], hosts[1-i%2]
		e := do(t, from, store.Intent{Kind: store.Put, Cell: cell, Name: fmt.Sprint("k", i), Data: strings.Repeat("x", 1000*i)}).Entry
		if e.Rev <= rev {
			t.Fatalf("revision %d after %d", e.Rev, rev)
		}
		rev = e.Rev
		gift := strings.Repeat(fmt.Sprint(i), 1_000_000*(i%3))
		do(t, from, store.Intent{Kind: store.Yield, Cell: cell, Gift: &store.Gift{To: []string{"b", "a"}[i%2], With: []byte(gift)}})
		if r := from.Do(&store.Intent{Kind: store.Put, Cell: cell, Name: "late"}); errs.KindOf(r.Err) != errs.Moved {
			t.Errorf("a change at the host that it has left: %v", r.Err)
		}
		a, err := to.Fetch(uuidA)
		if err != nil {
			t.Fatal(err)
		}
		cell = do(t, to, store.Intent{Kind: store.Adopt, Arrival: a}).Cell
		if with, _, err := engines[1-i%2].Residence(context.Background(), uuidA); err != nil || with != gift {
			t.Fatalf("%d bytes came with it, want %d: %v", len(with), len(gift), err)
		}
		if n := cell.VM().Count(); n != i+1 {
			t.Fatalf("%d keys after %d moves", n, i+1)
		}
	}
	for i := range 20 {
		if e := cell.VM().Get(vm.Keys, fmt.Sprint("k", i)); e == nil || len(e.Value) != 1000*i {
			t.Errorf("k%d is %v", i, e)
		}
	}
}

// TestBack: a host learns that a VM of its is another's, or was meanwhile, also where it has not
// changed the VM since. What it knows of that VM does not keep it from making one anew.
func TestBack(t *testing.T) {
	c := start(t, 1, fast)
	engines := []*etcd.Engine{c.engine(t, "/back/", "a"), c.engine(t, "/back/", "b")}
	hosts := []*store.Store{opened(t, engines[0]), opened(t, engines[1])}
	mine := func(when string, want map[string]bool) {
		t.Helper()
		if got, err := engines[0].Mine(t.Context()); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	create := store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}
	in := create
	cell := do(t, hosts[0], in).Cell
	mine("made", map[string]bool{uuidA: true})
	other := take(t, engines[1], hosts[1], uuidA)
	mine("taken", map[string]bool{})
	do(t, hosts[1], store.Intent{Kind: store.Yield, Cell: other, Gift: &store.Gift{To: "a"}})
	mine("given back", map[string]bool{uuidA: false})
	if err := hosts[0].Elsewhere(t.Context(), cell); err != nil {
		t.Fatal(err)
	}
	a, err := hosts[0].Fetch(uuidA)
	if err != nil {
		t.Fatal(err)
	}
	cell = do(t, hosts[0], store.Intent{Kind: store.Adopt, Arrival: a}).Cell
	do(t, hosts[0], store.Intent{Kind: store.Put, Cell: cell, Name: "k"})
	mine("come", map[string]bool{uuidA: true})

	other = take(t, engines[1], hosts[1], uuidA)
	if err := hosts[0].Elsewhere(t.Context(), cell); err != nil {
		t.Fatal(err)
	}
	in = create
	if r := hosts[0].Do(&in); errs.KindOf(r.Err) != errs.Exists || !strings.Contains(r.Err.Error(), `host "b"`) {
		t.Errorf("made while another host has it: %v", r.Err)
	}
	do(t, hosts[1], store.Intent{Kind: store.DeleteVM, Cell: other})
	in = create
	cell = do(t, hosts[0], in).Cell
	do(t, hosts[0], store.Intent{Kind: store.Put, Cell: cell, Name: "k"})
	mine("made anew", map[string]bool{uuidA: true})
}

// TestClaimed: two hosts claim a VM at once, again and again, while its owner writes. One
// wins each time, and the one that had it has no change acknowledged that the other
// does not have.
func TestClaimed(t *testing.T) { claimed(t, 50) }

func claimed(t *testing.T, rounds int) {
	c := start(t, 3)
	names := []string{"a", "b", "c"}
	var engines []*etcd.Engine
	var hosts []*store.Store
	for _, name := range names {
		e := c.engine(t, "/claimed/", name)
		engines, hosts = append(engines, e), append(hosts, opened(t, e))
	}
	cell := do(t, hosts[0], store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}).Cell
	do(t, hosts[0], store.Intent{Kind: store.Create, Cell: cell, Name: "log"})
	var want strings.Builder
	at, fenced := 0, 0
	for round := range rounds {
		// The owner writes until it is told that the VM is another's.
		acked := make(chan string)
		go func(s *store.Store, cell *store.Cell) {
			var mine strings.Builder
			for i := 0; ; i++ {
				line := fmt.Sprintf("%d.%d\n", round, i)
				r := s.Do(&store.Intent{Kind: store.Append, Cell: cell, Name: "log", Data: line})
				if errs.KindOf(r.Err) == errs.Moved {
					break
				}
				if r.Err != nil {
					t.Error(r.Err)
					break
				}
				mine.WriteString(line)
			}
			acked <- mine.String()
		}(hosts[at], cell)
		claimers := []int{(at + 1) % 3, (at + 2) % 3}
		won := make([]error, 2)
		from, err := engines[claimers[0]].Owner(t.Context(), uuidA)
		if err != nil || from.Host != names[at] {
			t.Fatal(from, err)
		}
		var both sync.WaitGroup
		for i, host := range claimers {
			both.Go(func() { won[i] = engines[host].Claim(t.Context(), uuidA, from) })
		}
		both.Wait()
		if (won[0] == nil) == (won[1] == nil) {
			t.Fatalf("round %d: %v, %v", round, won[0], won[1])
		}
		winner, loser := claimers[0], claimers[1]
		if won[0] != nil {
			winner, loser = loser, winner
		}
		if _, err := hosts[loser].Fetch(uuidA); errs.KindOf(err) != errs.Moved {
			t.Errorf("the loser fetches it: %v", err)
		}
		a, err := hosts[winner].Fetch(uuidA)
		if err != nil {
			t.Fatal(err)
		}
		cell = do(t, hosts[winner], store.Intent{Kind: store.Adopt, Arrival: a}).Cell
		want.WriteString(<-acked)
		fenced++
		if got := cell.VM().Get(vm.Keys, "log").Value; got != want.String() {
			t.Fatalf("round %d: acknowledged %d bytes, the new owner has %d", round, want.Len(), len(got))
		}
		at = winner
	}
	if want.Len() == 0 {
		t.Error("no change was acknowledged in all the rounds")
	}
	t.Logf("%d claims, %d bytes acknowledged", fenced, want.Len())
}

// TestLeaderKilled: while members are killed and started again, one by one, no
// acknowledged change is lost, and none is made twice.
func TestLeaderKilled(t *testing.T) {
	c := start(t, 3)
	s := c.open(t, "/killed/", "a")
	cell := do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}).Cell
	do(t, s, store.Intent{Kind: store.Create, Cell: cell, Name: "log"})
	stop := make(chan struct{})
	acked := make(chan int)
	var now atomic.Int64
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				acked <- n
				return
			default:
			}
			if r := s.Do(&store.Intent{Kind: store.Append, Cell: cell, Name: "log", Data: fmt.Sprintln(n)}); r.Err != nil {
				t.Error(r.Err)
				acked <- n
				return
			}
			now.Add(1)
		}
	}()
	more := func() {
		t.Helper()
		till := now.Load() + 10
		for end := time.Now().Add(time.Minute); now.Load() < till; time.Sleep(time.Millisecond) {
			if t.Failed() || time.Now().After(end) {
				t.Fatal("no changes are acknowledged any more")
			}
		}
	}
	for i := range 3 {
		more() // and so some are under way
		c.Kill(i)
		more()
		c.run(i)
	}
	close(stop)
	n := <-acked
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(c.open(t, "/killed/", "a").Cell(uuidA).VM().Get(vm.Keys, "log").Value)
	if len(lines) != n || n < 60 {
		t.Errorf("%d acknowledged, %d are there", n, len(lines))
	}
	for i, l := range lines {
		if l != fmt.Sprint(i) {
			t.Fatalf("line %d is %s", i, l)
		}
	}
	t.Logf("%d changes", n)
}

// TestRefused: what cannot be used is refused in one line that says which and why.
func TestRefused(t *testing.T) {
	c := start(t, 1)
	c.engine(t, "/refused/", "a").Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			conn.Close()
		}
	}()
	for _, tt := range []struct {
		name   string
		change func(*etcd.Config)
		want   string
	}{
		{"another fleet", func(c *etcd.Config) { c.Fleet = "other" }, `the prefix /refused/ is in use by the fleet "test", and this is "other"`},
		{"no etcd", func(c *etcd.Config) { c.Endpoints = []string{"http://" + l.Addr().String()} }, "that is no etcd"},
		{"no TLS", func(c *etcd.Config) {
			c.Endpoints, c.TLS = []string{strings.Replace(c.Endpoints[0], "http:", "https:", 1)}, new(tls.Config)
		}, "it speaks no TLS: write http://"},
		{"nobody", func(c *etcd.Config) { c.Endpoints = []string{"http://127.0.0.1:1"} }, "127.0.0.1:1"},
		{"name", func(c *etcd.Config) { c.Host = "a/b" }, "a host's name"},
	} {
		cfg := etcd.Config{Endpoints: c.Endpoints(), Prefix: "/refused/", Fleet: "test", Host: "a", Patience: 3 * time.Second, Log: zerolog.Nop()}
		tt.change(&cfg)
		e, err := etcd.Open(context.Background(), cfg)
		if err == nil {
			e.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestStartThatFails: a process that has taken its host's VMs over, and has ended before it served
// them, does not make old what the one before it has kept of their sessions.
func TestStartThatFails(t *testing.T) {
	c := start(t, 1)
	var stays []uint64
	began := func(served bool, newest ...int) {
		t.Helper()
		e := c.engine(t, "/m9/", "a")
		s := opened(t, e)
		for i, stay := range stays {
			_, is := e.Before(uuidA, stay)
			if want := slices.Contains(newest, i); is != want {
				t.Errorf("process %d: that process %d has served last: %t, want %t", len(stays), i, is, want)
			}
		}
		if len(stays) == 0 {
			do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`})
		}
		stays = append(stays, e.Stay(uuidA))
		if served {
			if err := e.Started(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	began(true)
	began(false, 0)
	began(false, 0, 1) // 1 may have begun its journal
	began(true, 0, 2)
	began(false, 3)
	began(true, 3, 4)
	began(true, 5)
	began(true, 6)
}

// told is an engine of which the test sees what it says of the groups that it has applied.
type told struct {
	*etcd.Engine
	rewrote int
}

func (e *told) Apply(groups []store.Group) []error {
	failed := e.Engine.Apply(groups)
	e.rewrote = 0
	for _, g := range groups {
		e.rewrote += g.Rewrote
	}
	return failed
}

// TestRewroteIsTold: a change of too many keys has the whole VM written anew, and the engine says how
// much that was: the guest pays for it.
func TestRewroteIsTold(t *testing.T) {
	const keys, size = 60, 10 << 10
	e := &told{Engine: engineAt(t, "/rewrote/", "a", start(t, 1, fast).Endpoints()...)}
	s := opened(t, e)
	cell := do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}).Cell
	var puts, renames store.Transaction
	for i := range keys {
		name := fmt.Sprint("k", i)
		puts.Do = append(puts.Do, store.Intent{Kind: store.Put, Name: name, Data: strings.Repeat("x", size)})
		renames.Do = append(renames.Do, store.Intent{Kind: store.Set, Name: name, NewName: "to-" + name})
	}
	do(t, s, store.Intent{Kind: store.Txn, Cell: cell, Txn: &puts})
	if e.rewrote != 0 {
		t.Errorf("%d bytes were written anew for %d keys", e.rewrote, keys)
	}
	do(t, s, store.Intent{Kind: store.Txn, Cell: cell, Txn: &renames})
	if e.rewrote < keys*size || e.rewrote > 2*keys*size {
		t.Errorf("%d bytes were written anew, the VM has %d", e.rewrote, keys*size)
	}
}
