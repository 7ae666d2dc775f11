package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/session/fleet"
	"meta9/session/fleet/fleettest"
)

const uuid = "00000000-0000-4000-8000-00000000000a"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair makes two hosts over one cluster in memory; the first has the VM.
func pair(t *testing.T, change func(*fleet.MemberConfig, *fleet.Config)) (a, b *fleettest.Host) {
	f := storetest.NewFleet()
	a = fleettest.Open(t, f.Host("a"), "a", change)
	b = fleettest.Open(t, f.Host("b"), "b", change)
	fleettest.Create(a, uuid)
	return a, b
}

// TestMove moves a VM between two hosts. Its guest has open files, a lock, a read that
// waits and an append without an answer.
func TestMove(t *testing.T) {
	a, b := pair(t, nil)
	fleettest.Move(t, a, b, uuid, 10)
	if s := a.Fleet.Status(); s.Given != 5 || s.Taken != 5 || s.Sessions != 5 || s.SessionsLost != 0 {
		t.Errorf("%+v", s)
	}
}

// TestStops: the sessions of a host's VMs outlive its planned stops.
func TestStops(t *testing.T) {
	f := storetest.NewFleet()
	fleettest.Stops(t, func(name string) *fleettest.Host { return fleettest.Open(t, f.Host(name), name, nil) }, uuid)
}

// TestMemory: what a live update takes along.
func TestMemory(t *testing.T) {
	a, b := pair(t, nil)
	if err := b.Fleet.Expect(t.Context(), uuid); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Fleet.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := b.Fleet.Memory()
	m.Expected["00000000-0000-4000-8000-0000000000ff"] = m.Expected[uuid] // deleted meanwhile
	b.Fleet.Undrain(t.Context())
	b.Fleet.Unexpect(uuid)
	b.Fleet.Remember(t.Context(), m)
	var all []string
	b.Fleet.EachExpected(func(uuid string) { all = append(all, uuid) })
	if s := b.Fleet.Status(); !s.Draining || len(all) != 1 || all[0] != uuid || b.Fleet.Expected(uuid) == nil {
		t.Errorf("%+v, expected %v", s, all)
	}
	if r := b.Store.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"00000000-0000-4000-8000-00000000000b"}`}); !errors.Is(r.Err, errs.Busy) {
		t.Errorf("a new VM after a live update of a host that is drained: %v", r.Err)
	}
	a.Fleet.Remember(t.Context(), m)
	if a.Fleet.Expected(uuid) != nil {
		t.Error("a VM is expected where it is")
	}
}

// TestRefused: a VM that runs here, as its hypervisor says, stays, and the host that asks
// is told why.
func TestRefused(t *testing.T) {
	a, b := pair(t, func(m *fleet.MemberConfig, c *fleet.Config) {
		c.Running = func(string) bool { return m.Host == "a" }
	})
	err := b.Fleet.Claim(t.Context(), uuid)
	if !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), `runs at the host "a"`) {
		t.Error(err)
	}
	if a.Store.Cell(uuid) == nil {
		t.Error("it has gone")
	}
	if err := b.Fleet.Claim(t.Context(), "00000000-0000-4000-8000-0000000000ff"); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

// TestDead: the VM of a dead host can be claimed when its lease has ended, and no sooner.
// All acknowledged changes are there.
func TestDead(t *testing.T) {
	a, b := pair(t, func(m *fleet.MemberConfig, _ *fleet.Config) { m.TTL = 2 * time.Second })
	a.Do(store.Intent{Kind: store.Put, Cell: a.Store.Cell(uuid), Name: "log", Data: "kept"})
	a.Kill()
	b.Claim(uuid)
	if got := fleettest.Log(b, uuid); got != "kept" {
		t.Errorf("it has %q", got)
	}
	if s := b.Fleet.Status(); s.Claimed != 1 {
		t.Errorf("%+v", s)
	}
}

// TestFence: the VMs of a fenced host can be claimed at once, and the host cannot rejoin.
func TestFence(t *testing.T) {
	a, b := pair(t, func(m *fleet.MemberConfig, _ *fleet.Config) { m.TTL = 2 * time.Second })
	if err := b.Fleet.Fence(t.Context(), "b"); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	cell := a.Store.Cell(uuid)
	if err := b.Fleet.Fence(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	b.Claim(uuid)
	a.Until("the fence", func() bool { return a.Fleet.Status().Fenced })
	a.Until("the end of the VM there", func() bool { return a.Store.Cell(uuid) == nil })
	if a.Fleet.Expected(uuid) != nil {
		t.Error("it is expected where it cannot come")
	}
	if err := a.Fleet.Claim(t.Context(), uuid); !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), `the host "a" is fenced`) {
		t.Errorf("a claim: %v", err)
	}
	n := 0
	a.Until("that it makes no VM", func() bool {
		n++
		r := a.Store.Do(&store.Intent{Kind: store.CreateVM, Data: fmt.Sprintf(`{"uuid":"00000000-0000-4000-8000-%012d"}`, n)})
		return errors.Is(r.Err, errs.Busy) && strings.Contains(r.Err.Error(), `the host "a" is fenced`)
	})
	if a.Member.Sure() {
		t.Error("a fenced host is sure")
	}
	if r := a.Store.Do(&store.Intent{Kind: store.Put, Cell: cell, Name: "log"}); r.Err == nil {
		t.Error("a change of a VM that another host has")
	}
	if err := b.Fleet.Fence(t.Context(), "a"); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

// TestExpected: a guest that connects to a host where its VM is expected brings the VM
// there. Where the VM is not expected, the connection is closed.
func TestExpected(t *testing.T) {
	a, b := pair(t, nil)
	if err := fleettest.Hello(b, uuid); err == nil {
		t.Error("served where its VM is neither here nor expected")
	}
	if err := b.Fleet.Expect(t.Context(), uuid); err != nil || b.Fleet.Expected(uuid) == nil {
		t.Fatal(err)
	}
	if err := fleettest.Hello(b, uuid); err != nil {
		t.Error(err)
	}
	if b.Store.Cell(uuid) == nil || b.Fleet.Expected(uuid) != nil {
		t.Error("it has not come")
	}
	a.Until("the end of the VM there", func() bool { return a.Store.Cell(uuid) == nil })
	// The VM is expected where it was before: a migration may be cancelled.
	if err := fleettest.Hello(a, uuid); err != nil || a.Store.Cell(uuid) == nil {
		t.Errorf("it has not gone back: %v", err)
	}
}

// link is a link in packets. asks is called when it waits until its guest asks for it.
type link struct {
	net.Conn
	asks func()
}

func (l link) Await() error {
	l.asks()
	return nil
}

// TestLinkArrives: a link brings its VM when its guest has asked for it, and before anything
// is read from it. A connection that is neither a link nor has a descriptor is refused.
func TestLinkArrives(t *testing.T) {
	a, b := pair(t, nil)
	if err := b.Fleet.Expect(t.Context(), uuid); err != nil {
		t.Fatal(err)
	}
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	if err := b.Fleet.Arrive(one, uuid); !errors.Is(err, errs.Unsupported) {
		t.Error(err)
	}
	asked := false
	err := b.Fleet.Arrive(link{one, func() {
		asked = true
		if owner, err := b.Fleet.Where(t.Context(), uuid); err != nil || owner.Host != "a" {
			t.Errorf("it is the host %q's before its guest has asked, %v", owner.Host, err)
		}
	}}, uuid)
	if err != nil || !asked || b.Store.Cell(uuid) == nil {
		t.Errorf("asked %v: %v", asked, err)
	}
	a.Until("the end of the VM there", func() bool { return a.Store.Cell(uuid) == nil })
}

// TestSameName: a second process with a host's name is refused, except one that takes the
// place of its own earlier process.
func TestSameName(t *testing.T) {
	f := storetest.NewFleet()
	fleettest.Open(t, f.Host("a"), "a", nil)
	cfg := fleet.MemberConfig{Cluster: f.Host("a"), Host: "a", Instance: "other", TTL: 2 * time.Second}
	if _, err := fleet.Join(t.Context(), cfg); !errors.Is(err, errs.Exists) {
		t.Error(err)
	}
	cfg.Instance = "a"
	m, err := fleet.Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Leave(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestStale: a host without a connection to the cluster says since when its answers may be
// old, and claims nothing.
func TestStale(t *testing.T) {
	f := storetest.NewFleet()
	e := f.Host("b")
	a := fleettest.Open(t, f.Host("a"), "a", nil)
	b := fleettest.Open(t, e, "b", func(m *fleet.MemberConfig, _ *fleet.Config) { m.TTL = 2 * time.Second })
	fleettest.Create(a, uuid)
	e.Cut(true)
	b.Until("the end of the lease", func() bool { s := b.Fleet.Status(); return !s.Sure && !s.StaleSince.IsZero() })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Fleet.Claim(ctx, uuid); !errors.Is(err, errs.Busy) {
		t.Error(err)
	}
	e.Cut(false)
	b.Claim(uuid)
	if !b.Member.Sure() {
		t.Error("it is not sure again")
	}
}

// TestTakenMeanwhile: a host was cut off, and another host has taken its VM and changed
// it. When the host is sure of its lease again, it no longer serves the VM, also if nobody
// changes anything there.
func TestTakenMeanwhile(t *testing.T) {
	f := storetest.NewFleet()
	e := f.Host("a")
	a := fleettest.Open(t, e, "a", func(m *fleet.MemberConfig, _ *fleet.Config) { m.TTL = 2 * time.Second })
	b := fleettest.Open(t, f.Host("b"), "b", nil)
	fleettest.Create(a, uuid)
	e.Cut(true)
	b.Claim(uuid)
	b.Do(store.Intent{Kind: store.Put, Cell: b.Store.Cell(uuid), Name: "log", Data: "new"})
	if err := a.Member.Fresh(); !errors.Is(err, errs.IO) || a.Store.Cell(uuid) == nil {
		t.Errorf("what it has is old: %v", err)
	}
	e.Cut(false)
	a.Until("the lease", a.Member.Sure)
	if a.Store.Cell(uuid) != nil || a.Member.Fresh() != nil {
		t.Error("it is sure, and serves what it has of another host's VM")
	}
	a.Until("the loss", func() bool { return a.Fleet.Status().Lost == 1 })
	var of []fleet.Event // of the lease
	events, _ := a.Fleet.Events().After(0, 100, nil)
	for _, e := range events {
		if e.Type == fleet.Stale || e.Type == fleet.Current {
			of = append(of, e)
		}
	}
	if len(of) != 2 || of[0].Type != fleet.Stale || of[1].Type != fleet.Current || of[0].Since.IsZero() || of[1].Since.Sub(of[0].Since).Abs() > time.Millisecond || of[1].Date.Before(of[1].Since) || a.Fleet.Status().Lapses != 1 {
		t.Errorf("the time without the lease is told as %+v", of)
	}
}

// backEngine is the engine of a host to which another one gives a VM back before it has the answer
// which VMs it has.
type backEngine struct {
	fleettest.Engine
	back func()
}

// Mine is store.Cluster's.
func (e *backEngine) Mine(ctx context.Context) (map[string]bool, error) {
	e.back()
	return e.Engine.Mine(ctx)
}

// TestBackMeanwhile: a host was cut off, another host has taken its VM and changed it, and gives it
// back as soon as the host has a lease again. The host does not go on with what it has of the VM.
func TestBackMeanwhile(t *testing.T) {
	f := storetest.NewFleet()
	e := f.Host("a")
	var b *fleettest.Host
	a := fleettest.Open(t, &backEngine{e, sync.OnceFunc(func() {
		if err := b.Fleet.Release(t.Context(), uuid, "a"); err != nil {
			t.Error(err)
		}
	})}, "a", func(m *fleet.MemberConfig, c *fleet.Config) {
		m.TTL = 2 * time.Second
		c.LookOwned = time.Hour // else that may ask first
	})
	b = fleettest.Open(t, f.Host("b"), "b", nil)
	fleettest.Create(a, uuid)
	old := a.Store.Cell(uuid)
	g := fleettest.NewGuest(a, uuid, 1)
	e.Cut(true)
	b.Claim(uuid)
	b.Do(store.Intent{Kind: store.Put, Cell: b.Store.Cell(uuid), Name: "log", Data: "new"})
	e.Cut(false)
	a.Until("the lease", a.Member.Sure)
	if a.Store.Cell(uuid) == old { // another one may be there already, with what the other host has given
		t.Error("it is sure, and serves what it had")
	}
	g.HungUp() // its session is of the time before
	a.Claim(uuid)
	if got := fleettest.Log(a, uuid); got != "new" {
		t.Errorf("it has %q", got)
	}
}

// takenEngine is an engine of which another host takes a VM before Forget.
type takenEngine struct {
	fleettest.Engine
	take func()
}

// Forget is store.Cluster's.
func (e *takenEngine) Forget(ctx context.Context, uuid string, rev int64) error {
	e.take()
	return e.Engine.Forget(ctx, uuid, rev)
}

// TestTakenAtStart: another host takes a VM while its host starts and restores the sessions
// that came with it. They are the other's then, and nobody is served here.
func TestTakenAtStart(t *testing.T) {
	f := storetest.NewFleet()
	a, c := fleettest.Open(t, f.Host("a"), "a", nil), fleettest.Open(t, f.Host("c"), "c", nil)
	e := lives(t, f, "b")
	fleettest.Create(a, uuid)
	g := fleettest.NewGuest(a, uuid, 1)
	if err := a.Fleet.Release(t.Context(), uuid, "b"); err != nil {
		t.Fatal(err)
	}
	g.HungUp()
	b := fleettest.Open(t, &takenEngine{e, func() {
		if err := c.Fleet.Fence(t.Context(), "b"); err != nil {
			t.Error(err)
		}
		c.Claim(uuid)
	}}, "b", nil)
	if b.Store.Cell(uuid) != nil {
		t.Error("its host before serves it still")
	}
	b.Until("the end of its sessions", func() bool { return b.Server.Stats().Sessions == 0 })
	if s := c.Fleet.Status(); s.Sessions != 1 {
		t.Errorf("%+v", s)
	}
	g.Resume(c, 0, "")
}

// TestDrain: a host that is drained gives all its VMs away and takes none.
func TestDrain(t *testing.T) {
	a, b := pair(t, nil)
	g := fleettest.NewGuest(a, uuid, 1)
	gone, stay, err := a.Fleet.Drain(t.Context())
	if gone != 1 || stay != 0 || err != nil {
		t.Fatal(gone, stay, err)
	}
	if o, err := a.Fleet.Where(t.Context(), uuid); err != nil || o.Host != "" {
		t.Error(o, err)
	}
	drained := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), `the host "a" is being drained`) || !strings.Contains(err.Error(), "meta9 fleet drain --undo") {
			t.Errorf("%s: %v", what, err)
		}
	}
	drained("a claim", a.Fleet.Claim(t.Context(), uuid))
	drained("an expectation", a.Fleet.Expect(t.Context(), uuid))
	create := store.Intent{Kind: store.CreateVM, Data: `{"uuid":"00000000-0000-4000-8000-00000000000b"}`}
	again := create
	drained("a new VM", a.Store.Do(&again).Err)
	g.HungUp()
	b.Claim(uuid)
	g.Resume(b, 0, "")
	if err := b.Fleet.Release(t.Context(), uuid, "a"); !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), `the host "a" is being drained`) {
		t.Errorf("it is given to a host that is drained: %v", err)
	}
	a.Fleet.Undrain(t.Context())
	if err := b.Fleet.Release(t.Context(), uuid, "a"); err != nil {
		t.Error(err)
	}
	a.Claim(uuid)
	a.Do(create)
}

// TestDrainAway: a host that is drained while its cluster does not answer is so from then on, says
// so, and tells the others when the cluster answers.
func TestDrainAway(t *testing.T) {
	f := storetest.NewFleet()
	e := f.Host("a")
	soon := func(m *fleet.MemberConfig, _ *fleet.Config) { m.TTL = 2 * time.Second }
	a, b := fleettest.Open(t, e, "a", soon), fleettest.Open(t, f.Host("b"), "b", soon)
	fleettest.Create(a, uuid)
	e.Cut(true)
	defer e.Cut(false)
	gone, stay, err := a.Fleet.Drain(t.Context())
	if gone+stay > 0 || !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), `the host "a" is being drained from now on`) || strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%d gone, %d stay: %v", gone, stay, err)
	}
	if !a.Fleet.Status().Draining {
		t.Error("it is not drained")
	}
	e.Cut(false)
	told := func(is bool) func() bool {
		return func() bool {
			hosts, err := b.Fleet.Hosts(t.Context())
			return err == nil && len(hosts) == 2 && hosts[0].Draining == is
		}
	}
	b.Until("that the host is drained", told(true))
	e.Cut(true)
	a.Fleet.Undrain(t.Context())
	e.Cut(false)
	b.Until("that it is no longer", told(false))
}

// creating is a host that makes a VM, whose creation waits for free; made gets its error.
func creating(t *testing.T) (a *fleettest.Host, free func(), made <-chan error) {
	t.Helper()
	f := storetest.NewFleet()
	a = fleettest.Open(t, f.Host("a"), "a", nil)
	waits, free := f.Stick()
	free = sync.OnceFunc(free)
	t.Cleanup(free) // before the host is closed
	ended := make(chan error, 1)
	a.Store.Submit(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`, Done: func(r store.Result) { ended <- r.Err }})
	await(t, "the creation", waits)
	return a, free, ended
}

// TestDrainNew: a VM that is just being made when its host is drained is given away, too.
func TestDrainNew(t *testing.T) {
	a, free, made := creating(t)
	type drained struct {
		gone, stay int
		err        error
	}
	over := make(chan drained, 1)
	go func() {
		var d drained
		d.gone, d.stay, d.err = a.Fleet.Drain(t.Context())
		over <- d
	}()
	a.Until("the beginning of the drain", func() bool { return a.Fleet.Status().Draining })
	free()
	if err := await(t, "the VM", made); err != nil {
		t.Error(err)
	}
	if d := await(t, "the end of the drain", over); d != (drained{gone: 1}) {
		t.Errorf("%+v", d)
	}
}

// TestDrainWithoutAnswer: where nobody knows yet whether a VM is made, a drain does not say that
// none stays.
func TestDrainWithoutAnswer(t *testing.T) {
	a, free, made := creating(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if gone, stay, err := a.Fleet.Drain(ctx); !errors.Is(err, errs.Busy) || gone+stay > 0 {
		t.Errorf("%d gone, %d stay: %v", gone, stay, err)
	}
	free()
	if err := await(t, "the VM", made); err != nil {
		t.Error(err)
	}
	if gone, stay, err := a.Fleet.Drain(t.Context()); gone != 1 || stay > 0 || err != nil {
		t.Errorf("again: %d gone, %d stay: %v", gone, stay, err)
	}
}

// TestAtOnce: several hosts claim one VM at once. Each has it for a time, and no
// acknowledged change is lost.
func TestAtOnce(t *testing.T) {
	f := storetest.NewFleet()
	var hosts []*fleettest.Host
	for i := range 3 {
		name := fmt.Sprint("h", i)
		hosts = append(hosts, fleettest.Open(t, f.Host(name), name, nil))
	}
	fleettest.Create(hosts[0], uuid)
	var acked atomic.Int64
	for range 5 {
		var all sync.WaitGroup
		for _, h := range hosts {
			all.Go(func() {
				h.Claim(uuid)
				if c := h.Store.Cell(uuid); c != nil { // it may be on its way again
					if r := h.Store.Do(&store.Intent{Kind: store.Append, Cell: c, Name: "log", Data: "x"}); r.Err == nil {
						acked.Add(1)
					} else if !errors.Is(r.Err, errs.Moved) {
						t.Error(r.Err)
					}
				}
			})
		}
		all.Wait()
	}
	hosts[0].Claim(uuid)
	if got := len(fleettest.Log(hosts[0], uuid)); int64(got) != acked.Load() || got == 0 {
		t.Errorf("%d changes are there, %d were acknowledged", got, acked.Load())
	}
}

// givenLate is the engine of a host that gets a VM after its store was opened, and before
// its Fleet starts.
type givenLate struct {
	fleettest.Engine
	give func()
}

func (e givenLate) Came(ctx context.Context) ([]string, error) {
	e.give()
	return e.Engine.Came(ctx)
}

// TestGivenAtStart: a VM that is given to a host while it starts brings its sessions.
func TestGivenAtStart(t *testing.T) {
	f := storetest.NewFleet()
	a := fleettest.Open(t, f.Host("a"), "a", nil)
	fleettest.Create(a, uuid)
	g := fleettest.NewGuest(a, uuid, 1)
	g.Append("before\n")
	g.Appended()
	b := fleettest.Open(t, givenLate{f.Host("b"), func() {
		if err := a.Fleet.Release(t.Context(), uuid, "b"); err != nil {
			t.Error(err)
		}
	}}, "b", nil)
	g.HungUp()
	b.Claim(uuid)
	if s := b.Fleet.Status(); s.Sessions != 1 || s.SessionsLost != 0 {
		t.Errorf("%+v", s)
	}
	g.Resume(b, 0, "")
	g.Append("after\n") // by the file that was open at a
	g.Appended()
	if got := fleettest.Log(b, uuid); got != "before\nafter\n" {
		t.Errorf("the log is %q", got)
	}
}

// TestQuiet: what else serves a VM is quiet while it is given away, and until that is over.
func TestQuiet(t *testing.T) {
	var quiet, again atomic.Int32
	a, b := pair(t, func(m *fleet.MemberConfig, c *fleet.Config) {
		if m.Host == "a" {
			c.Quiet = func(string) func() {
				quiet.Add(1)
				return func() { again.Add(1) }
			}
		}
	})
	b.Claim(uuid)
	a.Until("the end of the hand-over", func() bool { return again.Load() == 1 })
	if n := quiet.Load(); n != 1 {
		t.Errorf("it was asked to be quiet %d times", n)
	}
}

// listed is the engine of a host that tells when it was asked for the host's VMs.
type listed struct {
	fleettest.Engine
	asked chan struct{}
}

func (e listed) Mine(ctx context.Context) (map[string]bool, error) {
	select {
	case e.asked <- struct{}{}:
	default:
	}
	return e.Engine.Mine(ctx)
}

// TestLeavesWithoutAnswer: a host that has lost its lease and a VM, and whose cluster takes no
// change, can end all the same.
func TestLeavesWithoutAnswer(t *testing.T) {
	f := storetest.NewFleet()
	e := listed{f.Host("a"), make(chan struct{}, 1)}
	a := fleettest.Open(t, e, "a", func(m *fleet.MemberConfig, _ *fleet.Config) { m.TTL = 2 * time.Second })
	const other = "00000000-0000-4000-8000-00000000000b"
	fleettest.Create(a, uuid)
	fleettest.Create(a, other)
	waits, free := f.Stick()
	free = sync.OnceFunc(free)
	defer free()
	done := make(chan error, 1)
	a.Store.Submit(&store.Intent{Kind: store.Put, Cell: a.Store.Cell(other), Name: "log", Done: func(r store.Result) { done <- r.Err }})
	await(t, "the change that waits", waits)
	f.Take(uuid, "b")
	if err := e.Leave(t.Context()); err != nil { // its lease ends
		t.Fatal(err)
	}
	await(t, "the look at what it has lost", e.asked)
	left := make(chan error, 1)
	go func() { left <- a.Member.Leave(context.Background()) }()
	if err := await(t, "the end of the host", left); err != nil {
		t.Error(err)
	}
	free()
	if err := await(t, "the change", done); err != nil {
		t.Error(err)
	}
}

// await waits for what must come.
func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(fleettest.Patience):
		t.Fatalf("%s never came", what)
	}
	return v
}
