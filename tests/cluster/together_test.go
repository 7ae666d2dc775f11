package cluster

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/etcd"
	"meta9/fs/vm"
	"meta9/tests/cluster/members"
)

// crowd are many VMs at a host whose transactions go through a proxy.
type crowd struct {
	*late
	cells []*store.Cell
}

func newCrowd(t *testing.T, c *cluster, prefix string, n int) *crowd {
	t.Helper()
	w := &crowd{late: newLate(t, c, prefix)}
	for i := range n {
		cell := do(t, w.store, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + crowdUUID(i) + `"}`}).Cell
		do(t, w.store, store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "first"})
		w.cells = append(w.cells, cell)
	}
	return w
}

func crowdUUID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// batch appends text to a key of each VM in one batch, and returns the results.
func (w *crowd) batch(text string) []<-chan store.Result {
	w.t.Helper()
	all := make([]<-chan store.Result, len(w.cells))
	submitted := make(chan struct{})
	w.store.Submit(&store.Intent{Kind: store.Note, Done: func(store.Result) { // the committer waits for that
		for i, cell := range w.cells {
			done := make(chan store.Result, 1)
			all[i] = done
			w.store.Submit(&store.Intent{Kind: store.Append, Cell: cell, Name: "k", Data: text, Done: func(r store.Result) { done <- r }})
		}
		close(submitted)
	}})
	wait(w.t, submitted)
	return all
}

// take has host b claim a VM and adopt it.
func take(t *testing.T, e *etcd.Engine, s *store.Store, uuid string) *store.Cell {
	t.Helper()
	from, err := e.Owner(t.Context(), uuid)
	if err == nil {
		err = e.Claim(t.Context(), uuid, from)
	}
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Fetch(uuid)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, s, store.Intent{Kind: store.Adopt, Arrival: a}).Cell
}

// TestTogether: changes of several VMs go in few transactions.
func TestTogether(t *testing.T) {
	w := newCrowd(t, start(t, 1, fast), "/together/", 64)
	var sent atomic.Int64
	w.proxy.mu.Lock()
	w.proxy.chance = func(*pb.TxnRequest) plan { sent.Add(1); return pass }
	w.proxy.mu.Unlock()
	for _, done := range w.batch(", second") {
		if r := wait(t, done); r.Err != nil {
			t.Error(r.Err)
		}
	}
	if n := sent.Load(); n != 2 { // each has two operations, and 120 are the most
		t.Errorf("%d transactions for %d VMs", n, len(w.cells))
	}
	_, s, _ := w.again("a")
	for i := range w.cells {
		wantKey(t, s.Cell(crowdUUID(i)), "k", "first, second")
	}
}

// TestLargestValue: a value of the largest size is one transaction, whatever else the VM has.
func TestLargestValue(t *testing.T) {
	l := newLate(t, start(t, 1, fast), "/largest/")
	largest := strings.Repeat("x", 1<<20)
	name := strings.Repeat("n", vm.MaxName)
	l.put("other", largest)
	var sent atomic.Int64
	l.proxy.mu.Lock()
	l.proxy.chance = func(*pb.TxnRequest) plan { sent.Add(1); return pass }
	l.proxy.mu.Unlock()
	l.put(name, largest)
	if n := sent.Load(); n != 1 {
		t.Errorf("%d transactions", n)
	}
	_, _, cell := l.again("a")
	wantKey(t, cell, name, largest)
}

// TestTogetherTaken: changes of several VMs go in one transaction, and another host has taken one
// of the VMs, or takes it while nobody knows what has become of the transaction; then
// etcd may take none of that size any more. The other VMs'
// changes are made, once each; that VM's only if it was before the VM was taken.
func TestTogetherTaken(t *testing.T) {
	const taken = 1
	for name, tt := range map[string]struct {
		is   plan
		made bool
		most int // operations that etcd takes then
	}{
		"before":                            {pass, false, 0},
		"its answer is lost":                {lose, true, 0},
		"it comes late":                     {withhold, false, 0},
		"before, and answer is lost":        {dropped, false, 0},
		"before, in parts":                  {pass, false, 4},
		"its answer is lost, then in parts": {lose, true, 4},
		"it comes late, after parts":        {withhold, false, 4},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, 1, fast)
			w := newCrowd(t, c, "/together/", 3)
			b := engineAt(t, w.prefix, "b", c.Endpoints()...)
			s := opened(t, b)
			meets := tt.is == lose || tt.is == withhold
			var at *store.Cell
			if !meets {
				at = take(t, b, s, crowdUUID(taken))
			}
			w.proxy.next(tt.is, meets)
			w.proxy.mu.Lock()
			w.proxy.most = tt.most
			w.proxy.mu.Unlock()
			all := w.batch(", second")
			var first *pb.TxnRequest
			if meets {
				first = wait(t, w.proxy.met)
				if len(first.Compare) != 2*len(w.cells) {
					t.Errorf("%d compares for %d VMs", len(first.Compare), len(w.cells))
				}
				at = take(t, b, s, crowdUUID(taken))
				close(w.proxy.free)
			}
			for i, done := range all {
				r := wait(t, done)
				if i != taken || tt.made {
					if r.Err != nil {
						t.Errorf("VM %d: %v", i, r.Err)
					}
				} else if errs.KindOf(r.Err) != errs.Moved || strings.Contains(r.Err.Error(), "may or may not") {
					t.Errorf("the change of the VM that was taken: %v", r.Err)
				}
			}
			if tt.is == withhold {
				w.proxy.deliver(t, first)
			}
			if err := w.store.Err(); err != nil {
				t.Error(err)
			}
			want := "first"
			if tt.made {
				want = "first, second"
			}
			wantKey(t, at, "k", want)
			_, next, _ := w.again("a")
			for i := range w.cells {
				switch cell := next.Cell(crowdUUID(i)); {
				case i != taken:
					wantKey(t, cell, "k", "first, second")
				case cell != nil:
					t.Error("both hosts have the VM that was taken")
				}
			}
		})
	}
}

// TestTogetherSmaller: an etcd that takes less in one transaction than its defaults are gets smaller
// ones, and is not asked each time.
func TestTogetherSmaller(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  members.Config
		text string
		next int64 // transactions for the next batch; 0: any number
	}{
		"operations":     {members.Config{MaxOps: 100}, "second", 3},
		"bytes":          {members.Config{MaxBytes: 16 << 10}, strings.Repeat("x", 1<<10), 0},
		"bytes for gRPC": {members.Config{MaxBytes: 64 << 10}, strings.Repeat("x", 12<<10), 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, 1, fast, func(m *members.Config) { m.MaxOps, m.MaxBytes = tt.cfg.MaxOps, tt.cfg.MaxBytes })
			w := newCrowd(t, c, "/smaller/", 64)
			batch := func() {
				t.Helper()
				for _, done := range w.batch(tt.text) {
					if r := wait(t, done); r.Err != nil {
						t.Error(r.Err)
					}
				}
			}
			batch()
			var sent atomic.Int64
			w.proxy.mu.Lock()
			w.proxy.chance = func(*pb.TxnRequest) plan { sent.Add(1); return pass }
			w.proxy.mu.Unlock()
			batch()
			if n := sent.Load(); tt.next > 0 && n != tt.next {
				t.Errorf("%d transactions for %d VMs", n, len(w.cells))
			}
			_, s, _ := w.again("a")
			for i := range w.cells {
				wantKey(t, s.Cell(crowdUUID(i)), "k", "first"+tt.text+tt.text)
			}
		})
	}
}

// TestLeaderFirst: transactions go to the member that leads, also after another one does; where
// that does not answer they go to others.
func TestLeaderFirst(t *testing.T) {
	c := start(t, 3, fast)
	var proxies []*proxy
	var urls []string
	sent := make([]atomic.Int64, len(c.Configs))
	for i := range c.Configs {
		p := c.proxy(t, i)
		p.chance = func(*pb.TxnRequest) plan { sent[i].Add(1); return pass }
		proxies, urls = append(proxies, p), append(urls, p.url)
	}
	s := opened(t, engineAt(t, "/leader/", "a", urls...))
	cell := do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}).Cell
	put := func(n int) (to []int64) {
		t.Helper()
		for i := range sent {
			sent[i].Store(0)
		}
		for range n {
			do(t, s, store.Intent{Kind: store.Put, Cell: cell, Name: "k"})
		}
		for i := range sent {
			to = append(to, sent[i].Load())
		}
		return to
	}
	client := c.client(t)
	leader := func() (at int, ids []uint64) {
		t.Helper()
		at = -1
		for i, ep := range c.Endpoints() {
			st, err := client.Status(t.Context(), ep)
			if err != nil {
				t.Fatal(err)
			}
			if ids = append(ids, st.Header.MemberId); st.Leader == st.Header.MemberId {
				at = i
			}
		}
		return at, ids
	}
	const many = 20
	wantAt := func(at int) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; {
			if put(many)[at] == many {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("member %d leads, and transactions go to %v", at, put(many))
			}
		}
	}
	at, ids := leader()
	wantAt(at)

	to := (at + 1) % len(ids)
	if _, err := c.client(t, at).MoveLeader(t.Context(), ids[to]); err != nil {
		t.Fatal(err)
	}
	wantAt(to)

	proxies[to].next(withhold, false)
	do(t, s, store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "last"})
	proxies[to].deliver(t, wait(t, proxies[to].met))
	wantKey(t, cell, "k", "last")
}
