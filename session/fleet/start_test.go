package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/session/fleet"
	"meta9/session/fleet/fleettest"
	"meta9/session/residence"
)

// lives has a host live that has not started, so that others can give it something.
func lives(t *testing.T, f *storetest.Fleet, name string) *storetest.Host {
	t.Helper()
	e := f.Host(name)
	m, err := fleet.Join(t.Context(), fleet.MemberConfig{Cluster: e, Host: name, Instance: name, TTL: time.Minute, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	m.StopRefresh()
	return e
}

// TestRestoredBefore: the process before was killed between Kept and Forget, so its journal has
// the sessions that came with a VM, too. Each is there once, and has its lock.
func TestRestoredBefore(t *testing.T) {
	f := storetest.NewFleet()
	a := fleettest.Open(t, f.Host("a"), "a", nil)
	e := lives(t, f, "b")
	fleettest.Create(a, uuid)
	g := fleettest.NewGuest(a, uuid, 1)
	if !g.Lock() {
		t.Fatal("the log is not locked")
	}
	if err := a.Fleet.Release(t.Context(), uuid, "b"); err != nil {
		t.Fatal(err)
	}
	g.HungUp()
	var cfg *fleet.Config
	b := fleettest.Open(t, givenLate{e, func() {
		owner, err := e.Owner(t.Context(), uuid)
		if err != nil {
			t.Fatal(err)
		}
		with, _, err := e.Residence(t.Context(), uuid)
		if err != nil {
			t.Fatal(err)
		}
		o, err := residence.OpenParcel(cfg.Key, fmt.Appendf(nil, "meta9 %q %s %d", cfg.Name, uuid, owner.Mark), with)
		if err != nil || len(o.Sessions) != 1 {
			t.Fatalf("%d sessions, %v", len(o.Sessions), err)
		}
		for _, st := range o.Sessions { // as the journal would
			if err := cfg.Server.Restore(st); err != nil {
				t.Fatal(err)
			}
		}
	}}, "b", func(_ *fleet.MemberConfig, c *fleet.Config) { cfg = c })
	if s := b.Fleet.Status(); s.Sessions != 1 || s.SessionsLost != 0 || b.Server.Stats().Sessions != 1 {
		t.Errorf("%+v, %d sessions", s, b.Server.Stats().Sessions)
	}
	if fleettest.NewGuest(b, uuid, 2).Lock() {
		t.Error("the lock of the session was lost")
	}
	g.Resume(b, 0, "")
}

// falters is an engine of which each question at the start gets no answer the first time.
type falters struct {
	fleettest.Engine
	asked map[string]bool
}

func (e falters) answer(what string) error {
	if e.asked[what] {
		return nil
	}
	e.asked[what] = true
	return errs.New(errs.Busy, "etcd has no leader, as the test says")
}

func (e falters) Came(ctx context.Context) ([]string, error) {
	if err := e.answer("came"); err != nil {
		return nil, err
	}
	return e.Engine.Came(ctx)
}

func (e falters) Residence(ctx context.Context, uuid string) (string, int64, error) {
	if err := e.answer("residence"); err != nil {
		return "", 0, err
	}
	return e.Engine.Residence(ctx, uuid)
}

// TestRestoreTries: the cluster is without a leader for a moment when a host starts to which a VM
// was given. The VM has its sessions all the same.
func TestRestoreTries(t *testing.T) {
	f := storetest.NewFleet()
	a := fleettest.Open(t, f.Host("a"), "a", nil)
	e := lives(t, f, "b")
	fleettest.Create(a, uuid)
	g := fleettest.NewGuest(a, uuid, 1)
	if err := a.Fleet.Release(t.Context(), uuid, "b"); err != nil {
		t.Fatal(err)
	}
	g.HungUp()
	asked := make(map[string]bool)
	b := fleettest.Open(t, falters{e, asked}, "b", nil)
	if !asked["came"] || !asked["residence"] {
		t.Fatalf("it has asked for %v", asked)
	}
	g.Resume(b, 0, "")
}

// pairEngine is an engine that answers for a VM that has come when it is asked about two.
type pairEngine struct {
	fleettest.Engine
	t                 *testing.T
	residence, forget *meeting
}

func (e pairEngine) Residence(ctx context.Context, uuid string) (string, int64, error) {
	e.residence.await(e.t)
	return e.Engine.Residence(ctx, uuid)
}

func (e pairEngine) Forget(ctx context.Context, uuid string, rev int64) error {
	e.forget.await(e.t)
	return e.Engine.Forget(ctx, uuid, rev)
}

// meeting is where two calls wait for each other.
type meeting struct {
	calls atomic.Int32
	both  chan struct{}
}

func newMeeting() *meeting { return &meeting{both: make(chan struct{})} }

func (m *meeting) await(t *testing.T) {
	if m.calls.Add(1) == 2 {
		close(m.both)
	}
	select {
	case <-m.both:
	case <-time.After(fleettest.Patience):
		t.Error("the cluster is asked about one VM after the other")
	}
}

// TestRestoresAtOnce: a host that starts does not wait for the cluster for one VM after the other: a
// host may have thousands.
func TestRestoresAtOnce(t *testing.T) {
	f := storetest.NewFleet()
	a := fleettest.Open(t, f.Host("a"), "a", nil)
	e := lives(t, f, "b")
	guests := map[string]*fleettest.Guest{uuid: nil, "00000000-0000-4000-8000-00000000000b": nil}
	for uuid := range guests {
		fleettest.Create(a, uuid)
		guests[uuid] = fleettest.NewGuest(a, uuid, 1)
		if err := a.Fleet.Release(t.Context(), uuid, "b"); err != nil {
			t.Fatal(err)
		}
		guests[uuid].HungUp()
	}
	b := fleettest.Open(t, pairEngine{e, t, newMeeting(), newMeeting()}, "b", nil)
	for _, g := range guests {
		g.Resume(b, 0, "")
	}
	if came, err := e.Came(t.Context()); err != nil || len(came) > 0 {
		t.Errorf("what came with %v is there still: %v", came, err)
	}
}

// madeEngine is the engine of a host that makes a VM, which the store learns when somebody has
// read the VM.
type madeEngine struct {
	fleettest.Engine
	made, read chan struct{}
}

func (e madeEngine) Apply(groups []store.Group) []error {
	failed := e.Engine.Apply(groups)
	for _, g := range groups {
		if g.New {
			close(e.made)
			<-e.read
		}
	}
	return failed
}

func (e madeEngine) Fetch(uuid string, fn func(key, value []byte) error) (uint64, error) {
	defer close(e.read)
	return e.Engine.Fetch(uuid, fn)
}

// TestClaimsMade: a VM is claimed where it is just being made. It is there then, and the claim says
// so.
func TestClaimsMade(t *testing.T) {
	f := storetest.NewFleet()
	e := madeEngine{f.Host("a"), make(chan struct{}), make(chan struct{})}
	a := fleettest.Open(t, e, "a", nil)
	made := make(chan error, 1)
	a.Store.Submit(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`, Done: func(r store.Result) { made <- r.Err }})
	await(t, "the VM in the cluster", e.made)
	a.Claim(uuid)
	if err := await(t, "the VM", made); err != nil || a.Store.Cell(uuid) == nil {
		t.Error(err)
	}
	if err := fleettest.Hello(a, uuid); err != nil {
		t.Error(err)
	}
}

// silentEngine is an engine that never tells that a VM has come.
type silentEngine struct{ fleettest.Engine }

// Watch is store.Cluster's.
func (e silentEngine) Watch(ctx context.Context, hint func(), _ func(string)) {
	e.Engine.Watch(ctx, hint, func(string) {})
}

// untoldEngine is an engine whose other hosts do not hear of what its own says.
type untoldEngine struct{ fleettest.Engine }

// Tell is store.Cluster's.
func (untoldEngine) Tell(context.Context, store.HostInfo) error { return nil }

// TestServesOwned: a VM that was given to a host when nobody there waited for it is served there
// all the same, with its sessions, also while the host is being drained and nobody knew: at once, and where the
// host does not hear of it, when it looks.
func TestServesOwned(t *testing.T) {
	for name, c := range map[string]struct {
		of   func(fleettest.Engine) fleettest.Engine
		look time.Duration
	}{
		"told":  {func(e fleettest.Engine) fleettest.Engine { return e }, time.Hour},
		"looks": {func(e fleettest.Engine) fleettest.Engine { return silentEngine{e} }, 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) { servesOwned(t, c.of, c.look) })
	}
}

func servesOwned(t *testing.T, of func(fleettest.Engine) fleettest.Engine, look time.Duration) {
	f := storetest.NewFleet()
	a := fleettest.Open(t, f.Host("a"), "a", nil)
	fleettest.Create(a, uuid)
	g := fleettest.NewGuest(a, uuid, 1)
	g.Append("before\n")
	g.Appended()
	b := fleettest.Open(t, of(untoldEngine{f.Host("b")}), "b", func(_ *fleet.MemberConfig, c *fleet.Config) { c.LookOwned = look })
	if _, _, err := b.Fleet.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Fleet.Release(t.Context(), uuid, "b"); err != nil {
		t.Fatal(err)
	}
	g.HungUp()
	b.Until("the VM", func() bool { return b.Fleet.Status().Sessions == 1 })
	g.Resume(b, 0, "")
	g.Append("after\n")
	g.Appended()
	if got := fleettest.Log(b, uuid); got != "before\nafter\n" {
		t.Errorf("the log is %q", got)
	}
}

// TestDamaged: a host tells of the VMs that it owns and cannot serve, since they are damaged, from its
// start on, until they are mended or another host has them; so does one that has claimed such a VM.
func TestDamaged(t *testing.T) {
	soon := func(_ *fleet.MemberConfig, c *fleet.Config) { c.LookOwned = 10 * time.Millisecond }
	f := storetest.NewFleet()
	a := fleettest.Open(t, f.Host("a"), "a", soon)
	fleettest.Create(a, uuid)
	a.Do(store.Intent{Kind: store.Put, Cell: a.Store.Cell(uuid), Name: "log", Data: "kept"})
	a.Close()
	f.Harm(uuid, "log")
	a = fleettest.Open(t, f.Host("a"), "a", soon)
	if n, first, why := a.Fleet.Damaged(); n != 1 || first != uuid || !strings.Contains(why, "keys/log") {
		t.Errorf("at the start: %d, %s: %s", n, first, why)
	}
	none := func(h *fleettest.Host) func() bool {
		return func() bool {
			n, _, _ := h.Fleet.Damaged()
			return n == 0
		}
	}
	f.Harm(uuid, "log") // which mends it
	a.Until("no damage", none(a))
	if got := fleettest.Log(a, uuid); got != "kept" {
		t.Errorf("the log is %q", got)
	}
	a.Close()
	f.Harm(uuid, "log")
	b := fleettest.Open(t, f.Host("b"), "b", soon)
	if err := b.Fleet.Claim(t.Context(), uuid); !store.IsDamaged(err) {
		t.Errorf("claimed: %v", err)
	}
	if n, first, _ := b.Fleet.Damaged(); n != 1 || first != uuid {
		t.Errorf("after the claim: %d, %s", n, first)
	}
	f.Take(uuid, "c")
	b.Until("that it is another host's", none(b))
}

// damagedEngine is an engine that finds each VM damaged that comes.
type damagedEngine struct{ fleettest.Engine }

// Fetch is store.Shared's.
func (damagedEngine) Fetch(string, func(key, value []byte) error) (uint64, error) {
	return 0, store.Damaged(errors.New("damaged, as the test says"))
}

// TestAskedInVain: a host is asked for a VM that it owns and does not serve: it came when nobody
// waited for it. A host that is drained gives it all the same; one that cannot read it says so.
func TestAskedInVain(t *testing.T) {
	f := storetest.NewFleet()
	a := fleettest.Open(t, f.Host("a"), "a", nil)
	come := func(name string, e fleettest.Engine) *fleettest.Host {
		return fleettest.Open(t, givenLate{e, func() {
			if err := a.Fleet.Release(t.Context(), uuid, name); err != nil {
				t.Error(err)
			}
		}}, name, nil)
	}
	fleettest.Create(a, uuid)
	b := come("b", lives(t, f, "b"))
	if _, _, err := b.Fleet.Drain(t.Context()); err != nil || b.Store.Cell(uuid) != nil {
		t.Fatal("it is served", err)
	}
	a.Claim(uuid)
	come("c", damagedEngine{lives(t, f, "c")})
	ctx, cancel := context.WithTimeout(t.Context(), fleettest.Patience)
	defer cancel()
	if err := a.Fleet.Claim(ctx, uuid); !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), "damaged, as the test says") {
		t.Errorf("the answer is %v", err)
	}
}
