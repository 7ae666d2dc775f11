package cluster

import (
	"errors"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/tests/cluster/members"
)

// limited starts a cluster of one member that takes at most so many bytes in one transaction; 0: etcd's
// own limit.
func limited(t *testing.T, most uint) *cluster {
	t.Helper()
	return start(t, 1, fast, func(m *members.Config) { m.MaxBytes = most })
}

// limit starts the member anew with another limit.
func (c *cluster) limit(most uint) {
	c.t.Helper()
	c.Kill(0)
	c.Configs[0].MaxBytes = most
	c.run(0)
}

// most is a limit, and big is a change that is above it.
const most = 16 << 10

var big = store.Intent{Kind: store.Append, Name: "k", Data: strings.Repeat("x", 4*most)}

// settles has the transaction that makes sure that another one is not done meet a plan, once.
func (l *late) settles(is plan) {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	l.proxy.chance = func(r *pb.TxnRequest) plan {
		if len(r.Success) > 1 {
			return pass
		}
		l.proxy.chance = nil
		return is
	}
}

// TestTooLargeAfterLost: a change of one VM gets no answer, and its next copy is too large for etcd. It
// is told as done if it was done. If not it never will be, and is refused; the VM takes the next change.
func TestTooLargeAfterLost(t *testing.T) {
	for name, tt := range map[string]struct {
		settles plan
		in      store.Intent
	}{
		"at once":             {pass, big},
		"for gRPC":            {pass, store.Intent{Kind: store.Append, Name: "k", Data: strings.Repeat("x", 900_000)}},
		"an answer is lost":   {dropped, big},
		"a copy is late":      {delayed, big},
		"a copy is very late": {withhold, big},
	} {
		t.Run("not made, "+name, func(t *testing.T) {
			c := limited(t, most)
			l := newLate(t, c, "/large/")
			l.settles(tt.settles)
			first, done := l.begin(withhold, false, tt.in)
			late := []*pb.TxnRequest{first}
			if tt.settles == withhold {
				late = append(late, wait(t, l.proxy.met))
			}
			if r := wait(t, done); errs.KindOf(r.Err) != errs.TooLarge {
				t.Errorf("it says %v", r.Err)
			}
			wantKey(t, l.cell, "k", "first")
			c.limit(0)
			for _, r := range late {
				l.proxy.deliver(t, r)
			}
			do(t, l.store, store.Intent{Kind: store.Append, Cell: l.cell, Name: "k", Data: ", second"})
			_, _, cell := l.again("a")
			wantKey(t, cell, "k", "first, second")
		})
	}
	t.Run("made", func(t *testing.T) {
		c := limited(t, 0)
		l := newLate(t, c, "/large/")
		_, done := l.begin(lose, true, big)
		c.limit(most)
		close(l.proxy.free)
		if r := wait(t, done); r.Err != nil {
			t.Error(r.Err)
		}
		do(t, l.store, store.Intent{Kind: store.Put, Cell: l.cell, Name: "k2", Data: "second"})
		_, _, cell := l.again("a")
		wantKey(t, cell, "k", "first"+big.Data)
		wantKey(t, cell, "k2", "second")
	})
	t.Run("killed", func(t *testing.T) {
		c := limited(t, most)
		l := newLate(t, c, "/large/")
		number := l.engine.Number(uuidA)
		l.settles(lose)
		first, done := l.begin(withhold, false, big)
		wait(t, l.proxy.met)
		l.store.Interrupt()
		close(l.proxy.free)
		if r := wait(t, done); r.Err == nil {
			t.Error("acknowledged, and nothing was done")
		}
		e, s, cell := l.again("a")
		if n := e.Number(uuidA); n != number {
			t.Errorf("the number is %d after %d: the next process takes it for done", n, number)
		}
		c.limit(0)
		l.proxy.deliver(t, first)
		do(t, s, store.Intent{Kind: store.Append, Cell: cell, Name: "k", Data: ", second"})
		wantKey(t, cell, "k", "first, second")
	})
	for name, tt := range map[string]struct {
		is, settles plan
		want        error
	}{
		"made":                        {lose, pass, nil},
		"not made":                    {withhold, pass, errs.Moved},
		"not made, an answer is lost": {withhold, lose, errs.Moved},
	} {
		t.Run(name+", and taken", func(t *testing.T) {
			c := limited(t, 0)
			l := newLate(t, c, "/large/")
			e, s, _ := l.again("b")
			if tt.settles == lose {
				c.limit(most)
				l.settles(lose)
			}
			first, done := l.begin(tt.is, tt.settles != lose, big)
			if tt.settles == lose {
				wait(t, l.proxy.met)
			} else {
				c.limit(most)
			}
			cell := take(t, e, s, uuidA)
			close(l.proxy.free)
			r := wait(t, done)
			if !errors.Is(r.Err, tt.want) || r.Err != nil && strings.Contains(r.Err.Error(), "may or may not") {
				t.Errorf("it says %v", r.Err)
			}
			want := "first"
			if tt.is == lose {
				want += big.Data
			}
			c.limit(0)
			l.proxy.deliver(t, first)
			do(t, s, store.Intent{Kind: store.Put, Cell: cell, Name: "k2", Data: "second"})
			wantKey(t, cell, "k", want)
			if err := l.store.Err(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a creation", func(t *testing.T) {
		for _, settles := range []plan{pass, dropped} {
			c := limited(t, most)
			l := newLate(t, c, "/large/")
			l.settles(settles)
			first, done := l.begin(withhold, false, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `","customer_metadata":{"k":"` + big.Data + `"}}`})
			if r := wait(t, done); errs.KindOf(r.Err) != errs.TooLarge {
				t.Errorf("it says %v", r.Err)
			}
			c.limit(0)
			l.proxy.deliver(t, first)
			_, s, _ := l.again("b")
			do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`})
			l.put("k", "last")
		}
	})
}

// TestStartSmaller: a host of many VMs starts where etcd takes less in one transaction than its
// defaults are.
func TestStartSmaller(t *testing.T) {
	c := start(t, 1, fast)
	w := newCrowd(t, c, "/start/", 40)
	c.Kill(0)
	c.Configs[0].MaxOps, c.Configs[0].MaxBytes = 20, 4<<10
	c.run(0)
	_, s, _ := w.again("a")
	for i := range w.cells {
		cell := s.Cell(crowdUUID(i))
		wantKey(t, cell, "k", "first")
		do(t, s, store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "second"})
	}
}

// TestAliasAfterLost: a change that gives a VM an alias, or makes one with it, gets no answer, and its
// next copy finds that a VM of another host has the alias. It is refused, and not done later either, when
// nobody has the alias.
func TestAliasAfterLost(t *testing.T) {
	const uuidC = "00000000-0000-4000-8000-00000000000c"
	for name, in := range map[string]store.Intent{
		"a change":   {Kind: store.UpdateVM, Data: `{"alias":"web"}`},
		"a creation": {Kind: store.CreateVM, Data: `{"uuid":"` + uuidC + `","alias":"web"}`},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLate(t, start(t, 1, fast), "/alias/")
			_, s, _ := l.again("b")
			other := do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `","alias":"web"}`}).Cell
			first, done := l.begin(withhold, false, in)
			if r := wait(t, done); errs.KindOf(r.Err) != errs.Exists {
				t.Errorf("it says %v", r.Err)
			}
			do(t, s, store.Intent{Kind: store.DeleteVM, Cell: other})
			l.proxy.deliver(t, first)
			l.put("k", "second")
			_, again, cell := l.again("a")
			wantKey(t, cell, "k", "second")
			if alias := cell.VM().Alias(); alias != "" || again.Cell(uuidC) != nil {
				t.Errorf("it was done: the alias is %q", alias)
			}
		})
	}
}
