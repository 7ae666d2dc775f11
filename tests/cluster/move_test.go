package cluster

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session/fleet"
	"meta9/session/fleet/fleettest"
)

// host opens a host over the cluster, which ends with the test.
func (c *cluster) host(t testing.TB, prefix, name string, ttl time.Duration) *fleettest.Host {
	t.Helper()
	return fleettest.Open(t, c.engine(t, prefix, name), name, func(m *fleet.MemberConfig, _ *fleet.Config) { m.TTL = ttl })
}

// TestSessionsMove has a VM go to and fro with a guest that has files open, a lock, a read
// that waits and an append that was not answered.
func TestSessionsMove(t *testing.T) {
	c := start(t, 3)
	a, b := c.host(t, "/sessions/", "a", 0), c.host(t, "/sessions/", "b", 0)
	fleettest.Create(a, uuidA)
	const moves = 20
	took := fleettest.Move(t, a, b, uuidA, moves)
	t.Logf("%d moves: p50 %v, longest %v", moves, took[moves/2], took[moves-1])
	for _, h := range []*fleettest.Host{a, b} {
		if s := h.Fleet.Status(); s.Given != moves/2 || s.Taken != moves/2 || s.Sessions != moves/2 || s.SessionsLost+s.Failed+s.Lost != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestGivenUnasked: a host that is given a VM for which it has not asked serves it at once; it does
// not look by itself.
func TestGivenUnasked(t *testing.T) {
	c := start(t, 1)
	var hosts [2]*fleettest.Host
	for i, name := range []string{"a", "b"} {
		hosts[i] = fleettest.Open(t, c.engine(t, "/unasked/", name), name, func(_ *fleet.MemberConfig, c *fleet.Config) { c.LookOwned = time.Hour })
	}
	fleettest.Create(hosts[0], uuidA)
	for i := range 4 {
		from, to := hosts[i%2], hosts[1-i%2]
		if err := from.Fleet.Release(t.Context(), uuidA, to.Name); err != nil {
			t.Fatal(err)
		}
		to.Until("the VM", func() bool { return to.Store.Cell(uuidA) != nil })
		to.Until("the end of the claim", func() bool { return to.Fleet.Status().Claiming == 0 })
	}
}

// TestStops: the sessions of a host's VMs are beside these in etcd while it is stopped.
func TestStops(t *testing.T) {
	c := start(t, 1)
	fleettest.Stops(t, func(name string) *fleettest.Host { return c.host(t, "/stops/", name, 0) }, uuidA)
}

// TestDeadOwner: the VM of a host that has died is claimed when its lease has ended, and by
// then at the latest half a second (how often etcd looks) and what the claim takes.
func TestDeadOwner(t *testing.T) {
	c := start(t, 3)
	const ttl = 2 * time.Second
	a, b := c.host(t, "/dead/", "a", ttl), c.host(t, "/dead/", "b", ttl)
	fleettest.Create(a, uuidA)
	a.Do(store.Intent{Kind: store.Put, Cell: a.Store.Cell(uuidA), Name: "log", Data: "kept"})
	a.Kill()
	from := time.Now()
	b.Claim(uuidA)
	took := time.Since(from)
	t.Logf("taken over after %v, of a lease of %v", took, ttl)
	if got := fleettest.Log(b, uuidA); got != "kept" {
		t.Errorf("it has %q", got)
	}
	if s := b.Fleet.Status(); s.Claimed != 1 || s.Taken != 0 {
		t.Errorf("%+v", s)
	}
	if took > fleettest.Patience/2 {
		t.Errorf("it took %v", took)
	}
}

// TestClaimedAtOnce: two hosts claim a VM of nobody's at once, again and again. One claims it
// each time; the other asks for it, and what either has acknowledged is there.
func TestClaimedAtOnce(t *testing.T) {
	c := start(t, 3)
	a, b := c.host(t, "/once/", "a", 0), c.host(t, "/once/", "b", 0)
	fleettest.Create(a, uuidA)
	const rounds = 50
	var want strings.Builder
	at := a
	for i := range rounds {
		if err := at.Fleet.Release(t.Context(), uuidA, ""); err != nil {
			t.Fatal(err)
		}
		owner, err := a.Fleet.Where(t.Context(), uuidA)
		if err != nil || owner.Host != "" {
			t.Fatal(owner, err)
		}
		// First the claim itself, so that there is a loser; then the winner has it served.
		hosts := []*fleettest.Host{a, b}
		won := make([]error, 2)
		var both sync.WaitGroup
		for n, h := range hosts {
			both.Go(func() { won[n] = h.Engine.Claim(t.Context(), uuidA, owner) })
		}
		both.Wait()
		if (won[0] == nil) == (won[1] == nil) {
			t.Fatalf("round %d: %v, %v", i, won[0], won[1])
		}
		winner, loser := a, b
		if won[0] != nil {
			winner, loser = b, a
		}
		winner.Claim(uuidA)
		line := fmt.Sprintf("%d\n", i)
		winner.Do(store.Intent{Kind: store.Append, Cell: winner.Store.Cell(uuidA), Name: "log", Data: line})
		want.WriteString(line)
		loser.Until("the end of the VM at the loser", func() bool { return loser.Store.Cell(uuidA) == nil })
		if _, err := loser.Store.Fetch(uuidA); errs.KindOf(err) != errs.Moved {
			t.Errorf("round %d: the loser fetches it: %v", i, err)
		}
		at = winner
	}
	// Whole claims at once: each gets it, one after the other, and nothing is lost.
	var both sync.WaitGroup
	for _, h := range []*fleettest.Host{a, b} {
		both.Go(func() { h.Claim(uuidA) })
	}
	both.Wait()
	a.Claim(uuidA)
	if got := fleettest.Log(a, uuidA); got != want.String() {
		t.Errorf("it has %d bytes, want %d", len(got), want.Len())
	}
}

// TestDiesAsking: the host that has asked dies before the owner gives, or right after. The VM is
// usable at the other once its lease has ended, with its guest's session.
func TestDiesAsking(t *testing.T) {
	c := start(t, 3)
	const ttl = 2 * time.Second
	for name, early := range map[string]bool{"before": true, "after": false} {
		prefix := "/asking" + name + "/"
		a := c.host(t, prefix, "a", ttl)
		e := c.engine(t, prefix, "b")
		m, err := fleet.Join(t.Context(), fleet.MemberConfig{Cluster: e, Host: "b", Instance: "b", TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		fleettest.Create(a, uuidA)
		g := fleettest.NewGuest(a, uuidA, 1)
		number := g.Append("under way\n")
		m.StopRefresh()
		if early { // its lease ends: the request goes with it
			a.Until("the end of the lease", func() bool {
				hosts, err := a.Fleet.Hosts(t.Context())
				return err == nil && len(hosts) == 1
			})
			if _, err := e.Ask(t.Context(), "a", uuidA); errs.KindOf(err) != errs.NotFound {
				t.Errorf("a dead host asks: %v", err)
			}
			g.Appended()
		} else {
			if _, err := e.Ask(t.Context(), "a", uuidA); err != nil {
				t.Fatal(err)
			}
			a.Until("the gift", func() bool { return a.Store.Cell(uuidA) == nil })
			g.HungUp()
			if err := a.Fleet.Claim(t.Context(), uuidA); err != nil {
				t.Fatal(err)
			}
			g.Resume(a, number, "under way\n")
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		g.Append("end\n")
		g.Appended()
		if got := fleettest.Log(a, uuidA); got != "under way\nend\n" {
			t.Errorf("%s: the log is %q", name, got)
		}
	}
}

// TestGranterDies: the owner dies between the request and the gift: who has asked claims the VM
// when its lease has ended.
func TestGranterDies(t *testing.T) {
	c := start(t, 3)
	const ttl = 2 * time.Second
	a, b := c.host(t, "/granter/", "a", ttl), c.host(t, "/granter/", "b", ttl)
	fleettest.Create(a, uuidA)
	a.Fleet.Stop() // it answers nothing
	claimed := make(chan error, 1)
	go func() { claimed <- b.Fleet.Claim(t.Context(), uuidA) }()
	b.Until("the request", func() bool { asks, err := a.Engine.Asks(t.Context()); return err == nil && len(asks) == 1 })
	a.Kill()
	if err := <-claimed; err != nil {
		t.Fatal(err)
	}
	if s := b.Fleet.Status(); s.Claimed != 1 {
		t.Errorf("%+v", s)
	}
}

// TestRestartedBefore: a host that dies after a VM came to it and before it was served has its
// sessions when it starts anew.
func TestRestartedBefore(t *testing.T) {
	c := start(t, 1)
	a := c.host(t, "/restarted/", "a", 0)
	e := c.engine(t, "/restarted/", "b")
	m, err := fleet.Join(t.Context(), fleet.MemberConfig{Cluster: e, Host: "b", Instance: "b"})
	if err != nil {
		t.Fatal(err)
	}
	fleettest.Create(a, uuidA)
	g := fleettest.NewGuest(a, uuidA, 1)
	number := g.Append("under way\n")
	if err := a.Fleet.Release(t.Context(), uuidA, "b"); err != nil {
		t.Fatal(err)
	}
	g.HungUp()
	m.StopRefresh()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	b := c.host(t, "/restarted/", "b", 0) // the same instance: at once
	if s := b.Fleet.Status(); s.Sessions != 1 {
		t.Fatalf("%+v", s)
	}
	g.Resume(b, number, "under way\n")
	g.Append("end\n")
	g.Appended()
	if got := fleettest.Log(b, uuidA); got != "under way\nend\n" {
		t.Errorf("the log is %q", got)
	}
	if mine, err := b.Engine.Mine(t.Context()); err != nil || len(mine) != 1 || !mine[uuidA] {
		t.Errorf("its VMs are %v, %v", mine, err)
	}
	if came, err := b.Engine.Came(t.Context()); err != nil || len(came) != 0 {
		t.Errorf("what came is there still: %v, %v", came, err)
	}
}

// TestLateAsk: a request for a VM that reaches etcd when its host has got the VM is answered once,
// when the VM is where it is asked for, and does not bring it away from there again.
func TestLateAsk(t *testing.T) {
	c := start(t, 1, fast)
	a, b := c.host(t, "/lateask/", "a", 0), c.host(t, "/lateask/", "b", 0)
	fleettest.Create(a, uuidA)
	b.Claim(uuidA)
	a.Until("the end of the VM there", func() bool { return a.Store.Cell(uuidA) == nil })
	if _, err := b.Engine.Ask(t.Context(), "a", uuidA); err != nil {
		t.Fatal(err)
	}
	a.Claim(uuidA)
	a.Until("the end of the VM there", func() bool { return a.Fleet.Status().Given == 2 })
	if asks, err := a.Engine.Asks(t.Context()); err != nil || len(asks) != 0 {
		t.Errorf("it is asked for still: %v, %v", asks, err)
	}
}

// TestFencedHost: the VMs of a host that is fenced can be claimed at once, and it stays out
// until it is started anew; a second process of its name is refused.
func TestFencedHost(t *testing.T) {
	c := start(t, 1)
	a, b := c.host(t, "/fenced/", "a", 10*time.Second), c.host(t, "/fenced/", "b", 10*time.Second) // no lease ends by itself
	fleettest.Create(a, uuidA)
	cfg := fleet.MemberConfig{Cluster: c.engine(t, "/fenced/", "a"), Host: "a", Instance: "another", TTL: 2 * time.Second}
	if _, err := fleet.Join(t.Context(), cfg); errs.KindOf(err) != errs.Exists || !strings.Contains(err.Error(), "test:a") {
		t.Errorf("two hosts have one name: %v", err)
	}
	if err := b.Fleet.Fence(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	b.Claim(uuidA)
	if s := b.Fleet.Status(); s.Claimed != 1 {
		t.Errorf("%+v", s)
	}
	a.Until("the fence", func() bool { return a.Fleet.Status().Fenced })
	hosts, err := b.Fleet.Hosts(t.Context())
	if err != nil || len(hosts) != 2 || !hosts[0].Fenced || hosts[1].Fenced || a.Member.Fresh() == nil {
		t.Errorf("%+v, %v", hosts, err)
	}
	if cell := a.Store.Cell(uuidA); cell != nil {
		if r := a.Store.Do(&store.Intent{Kind: store.Put, Cell: cell, Name: "log"}); errs.KindOf(r.Err) != errs.Moved {
			t.Errorf("a fenced host changes a VM: %v", r.Err)
		}
	}
	cfg.Instance = "a" // started anew
	m, err := fleet.Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	if err := cfg.Cluster.(store.Engine).Close(); err != nil {
		t.Error(err)
	}
}
