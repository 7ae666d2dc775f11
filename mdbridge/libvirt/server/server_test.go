package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs/errs"
	"meta9/fs/store"
	lv "meta9/mdbridge/libvirt/libvirttest"
	"meta9/mdbridge/libvirt/server"
	"meta9/rarelog/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func uuid(n int) string { return fmt.Sprintf("550e8400-e29b-41d4-a716-%012d", n) }

// world is a Follower of a libvirtd, over a store in memory.
type world struct {
	t       *testing.T
	libvirt *lv.Server
	store   *store.Store
	log     logtest.Log
	f       *server.Follower
}

// newWorld makes one whose VMs have the numbers; start starts it.
func newWorld(t *testing.T, cfg server.Config, vms ...int) *world {
	t.Helper()
	w := &world{t: t, libvirt: lv.New(t)}
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.store, cfg.Store, cfg.Log = st, st, zerolog.New(&w.log)
	if cfg.Socket == "" {
		cfg.Socket = w.libvirt.Path
	}
	w.f = server.New(cfg)
	for _, n := range vms {
		w.do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid(n) + `"}`})
	}
	t.Cleanup(func() {
		w.f.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) do(in store.Intent) {
	w.t.Helper()
	if r := w.store.Do(&in); r.Err != nil {
		w.t.Fatal(r.Err)
	}
}

// eventually waits until ok.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not so: %s\n%s", what, w.log.String())
		}
	}
}

// stateNow is a VM's state and libvirt_state; "": there is no VM.
func (w *world) stateNow(n int) (state, words string) {
	if c := w.store.Cell(uuid(n)); c != nil {
		if v := c.VM(); v != nil {
			return v.State(), v.Text("libvirt_state")
		}
	}
	return "", ""
}

// state waits until a VM has the state, and libvirt_state the words.
func (w *world) state(n int, state, words string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("VM %d is %s, %s", n, state, words), func() bool {
		is, said := w.stateNow(n)
		return is == state && said == words
	})
}

// connected waits until the Follower has looked at all domains for the nth time.
func (w *world) connected(n uint64) {
	w.t.Helper()
	w.eventually("it is connected", func() bool { st := w.f.State(); return st.Connected && st.Connects == n })
}

func TestFollow(t *testing.T) {
	w := newWorld(t, server.Config{}, 1, 2)
	w.libvirt.Set(uuid(1), 1, 1)
	w.libvirt.Set(uuid(9), 1, 1) // no VM of ours
	w.f.Start()
	w.state(1, "running", "running (booted)")
	w.connected(1)
	if st := w.f.State(); st.Domains != 2 || st.VMs != 1 || st.Error != "" {
		t.Errorf("%+v", st)
	}
	w.libvirt.Set(uuid(1), 3, 1)
	w.state(1, "paused", "paused (user)")
	w.libvirt.Set(uuid(1), 1, 5)
	w.state(1, "running", "running (unpaused)")
	w.libvirt.Set(uuid(1), 5, 2)
	w.state(1, "stopped", "shut off (destroyed)")
	w.libvirt.Set(uuid(2), 6, 1) // is defined later
	w.state(2, "guest-panicked", "crashed (panicked)")
	w.libvirt.Remove(uuid(2), true)
	w.state(2, "stopped", "no domain")

	// A VM that is created later; one that somebody sets.
	w.do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid(9) + `"}`})
	w.state(9, "running", "running (booted)")
	w.do(store.Intent{Kind: store.UpdateVM, Cell: w.store.Cell(uuid(9)), Data: `{"state":"stopped"}`, By: "admin"})
	w.state(9, "running", "running (booted)")
	if n := w.store.Count(); n != 3 {
		t.Errorf("%d VMs", n)
	}
}

// TestAgain: libvirtd may be restarted at any time; what has changed meanwhile is found.
func TestAgain(t *testing.T) {
	w := newWorld(t, server.Config{}, 1, 2, 3)
	w.libvirt.Set(uuid(1), 1, 1)
	w.libvirt.Set(uuid(2), 1, 1)
	w.f.Start()
	w.connected(1)
	for n := range uint64(5) {
		w.libvirt.Stop()
		w.eventually("it is gone", func() bool { return !w.f.State().Connected && w.f.State().Error != "" })
		if state, _ := w.stateNow(1); state == "stopped" {
			t.Errorf("a VM is %s since libvirtd is", state)
		}
		w.libvirt.Quietly(uuid(1), 3, int32(n)%2)
		w.libvirt.Remove(uuid(2), false)
		w.libvirt.Start()
		w.connected(n + 2)
		w.state(1, "paused", []string{"paused (unknown)", "paused (user)"}[n%2])
		w.state(2, "stopped", "no domain")
	}
	if state, words := w.stateNow(3); words != "" || state == "stopped" {
		t.Errorf("a VM without a domain is %s, %s", state, words)
	}
	if n := w.log.Count("\n"); n > 3 { // connected, gone, and there again
		t.Errorf("%d lines for 5 restarts\n%s", n, w.log.String())
	}
}

// TestProbe: a domain whose event was lost is found all the same, and a libvirtd that
// hangs is left.
func TestProbe(t *testing.T) {
	w := newWorld(t, server.Config{ProbeTime: 20 * time.Millisecond, CallTime: 200 * time.Millisecond}, 1, 2)
	w.libvirt.Set(uuid(1), 1, 1)
	w.f.Start()
	w.connected(1)
	w.libvirt.Quietly(uuid(2), 1, 1)
	w.state(2, "running", "running (booted)")
	w.libvirt.Remove(uuid(1), false)
	w.state(1, "stopped", "no domain")
	w.libvirt.Misbehave(func(c lv.Call) ([]byte, bool) { return nil, c.Proc == lv.ListDomains })
	w.eventually("it is left", func() bool { return strings.Contains(w.f.State().Error, "does not answer within 200ms") })
	w.libvirt.Misbehave(nil)
	w.connected(2)
}

// TestOwned: what somebody else knows better is not touched, and is taken over after.
func TestOwned(t *testing.T) {
	var owned atomic.Bool
	owned.Store(true)
	w := newWorld(t, server.Config{ProbeTime: 20 * time.Millisecond, Owned: func(u string) bool { return u == uuid(1) && owned.Load() }}, 1, 2)
	w.do(store.Intent{Kind: store.UpdateVM, Cell: w.store.Cell(uuid(1)), Data: `{"state":"io-error"}`, By: "qmp"})
	w.libvirt.Set(uuid(1), 3, 0)
	w.libvirt.Set(uuid(2), 1, 1)
	w.f.Start()
	w.connected(1)
	w.libvirt.Set(uuid(1), 1, 1)
	w.libvirt.Set(uuid(2), 3, 1)
	w.state(2, "paused", "paused (user)")
	if state, words := w.stateNow(1); state != "io-error" || words != "" {
		t.Errorf("%s, %s", state, words)
	}
	owned.Store(false)
	w.state(1, "running", "running (booted)")
}

// TestLies: what libvirtd says has bounds, and so has what it makes meta9 do and log.
func TestLies(t *testing.T) {
	w := newWorld(t, server.Config{}, 1, 2)
	w.libvirt.Set(uuid(1), 77, 88)
	w.libvirt.Set(uuid(2), 1, 1)
	w.f.Start()
	w.state(1, "unknown", "state 77 (88)")
	w.connected(1)
	w.libvirt.Misbehave(func(c lv.Call) ([]byte, bool) {
		return c.Fail(1, "no\x1b[2J\u202e"+strings.Repeat("x", 4000)), c.Proc == lv.DomainState && strings.Contains(string(c.Args), uuid(2))
	})
	w.libvirt.Set(uuid(2), 3, 1)
	w.eventually("it is logged", func() bool { return w.log.Count("does not say how the domain is") == 1 })
	if w.log.Count("\x1b")+w.log.Count("\u202e")+w.log.Count(strings.Repeat("x", 300)) > 0 {
		t.Error("the log has libvirtd's bytes")
	}
	w.libvirt.Misbehave(nil)

	// A flood of events of one VM, whose state changes each time.
	before := w.libvirt.Calls(lv.DomainState)
	began := time.Now()
	for i := range int32(20000) {
		w.libvirt.Set(uuid(1), 3, i%2)
	}
	w.libvirt.Set(uuid(1), 1, 1)
	w.libvirt.Set(uuid(2), 5, 1) // is not held up
	w.state(2, "stopped", "shut off (shutdown)")
	w.state(1, "running", "running (booted)")
	if n, most := w.libvirt.Calls(lv.DomainState)-before, 32+8+int(5*time.Since(began).Seconds()); n > most {
		t.Errorf("%d looks, at most %d", n, most)
	}

	// Events of domains that are no VMs.
	before = w.libvirt.Calls(lv.DomainState)
	for i := range 1000 {
		w.libvirt.Tell(lv.Event(uuid(1000+i), 2, 0))
	}
	w.libvirt.Set(uuid(2), 1, 1)
	w.state(2, "running", "running (booted)")
	if n := w.libvirt.Calls(lv.DomainState) - before; n > 3 {
		t.Errorf("%d looks at domains that are no VMs", n)
	}
	if n := w.log.Count("\n"); n > 4 {
		t.Errorf("%d lines\n%s", n, w.log.String())
	}
}

// TestAbsent: a libvirt that is not there is said once.
func TestAbsent(t *testing.T) {
	w := newWorld(t, server.Config{Socket: "/nonexistent/sock"}, 1)
	w.f.Start()
	w.eventually("the error is known", func() bool { return strings.Contains(w.f.State().Error, "no such file") })
	time.Sleep(300 * time.Millisecond) // some tries more
	if n := w.log.Count("\n"); n != 1 {
		t.Errorf("%d lines", n)
	}
	if st := w.f.State(); st.Connected || st.Connects != 0 {
		t.Errorf("%+v", st)
	}
}

// TestMany: all VMs of a large host have their states soon.
func TestMany(t *testing.T) {
	const many = 1000
	vms := make([]int, many)
	for i := range vms {
		vms[i] = i
	}
	w := newWorld(t, server.Config{}, vms...)
	for i := range many {
		w.libvirt.Quietly(uuid(i), 1, 1)
	}
	began := time.Now()
	w.f.Start()
	w.connected(1)
	t.Logf("%d VMs in %v", many, time.Since(began))
	for i := range many {
		w.state(i, "running", "running (booted)")
	}
}

// TestManyLies: a libvirtd that says wrong states of many VMs makes one line of the log a
// minute, whatever their number.
func TestManyLies(t *testing.T) {
	numbers := []int{1, 2, 3, 4, 5, 6, 7, 8}
	w := newWorld(t, server.Config{}, numbers...)
	for _, n := range numbers {
		w.libvirt.Set(uuid(n), 77, 1)
	}
	w.f.Start()
	w.connected(1)
	if n := w.log.Count("libvirt says a state that none has"); n != 1 {
		t.Errorf("%d lines for %d VMs", n, len(numbers))
	}
}

// TestCounted: what State counts is so after VMs and domains come and go, without a look at
// all of them.
func TestCounted(t *testing.T) {
	w := newWorld(t, server.Config{ProbeTime: time.Hour}, 1, 2)
	for _, n := range []int{1, 2, 3} {
		w.libvirt.Set(uuid(n), 1, 1)
	}
	w.f.Start()
	w.connected(1)
	counted := func(what string, domains, vms int) {
		t.Helper()
		w.eventually(what, func() bool { st := w.f.State(); return st.Domains == domains && st.VMs == vms })
	}
	counted("at first", 3, 2)
	w.do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid(3) + `"}`})
	counted("a VM is created", 3, 3)
	w.do(store.Intent{Kind: store.DeleteVM, Cell: w.store.Cell(uuid(2))})
	counted("a VM is deleted", 3, 2)
	w.libvirt.Remove(uuid(1), true)
	counted("a domain is undefined", 2, 1)
	w.libvirt.Set(uuid(1), 1, 1)
	counted("and defined", 3, 2)
}

// TestElsewhere: domains that are no VMs here are told of where there are other hosts: at first,
// by their events, and again where that has failed.
func TestElsewhere(t *testing.T) {
	var mu sync.Mutex
	told := map[string][]string{}
	fails := 1
	w := newWorld(t, server.Config{ProbeTime: 20 * time.Millisecond, Elsewhere: func(_ context.Context, uuid, state string) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		if fails > 0 {
			fails--
			return false, errs.New(errs.IO, "not now")
		}
		told[uuid] = append(told[uuid], state)
		return true, nil
	}}, 1)
	was := func(n int, states ...string) {
		t.Helper()
		w.eventually(fmt.Sprint("told of ", states), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Equal(slices.Compact(slices.Clone(told[uuid(n)])), states) // a probe may find what an event tells
		})
	}
	w.libvirt.Set(uuid(1), 1, 1) // a VM that is here
	w.libvirt.Set(uuid(2), 3, 2)
	w.f.Start()
	was(2, "inmigrate")
	w.libvirt.Set(uuid(2), 1, 2)
	was(2, "inmigrate", "running")
	w.libvirt.Set(uuid(3), 1, 1)
	was(3, "running")
	w.do(store.Intent{Kind: store.DeleteVM, Cell: w.store.Cell(uuid(1))}) // or it is another host's now
	was(1, "running")
	if n := w.store.Count(); n != 0 {
		t.Errorf("%d VMs are made", n)
	}
}
