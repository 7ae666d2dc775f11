package hostile

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// What VMs may hold in flight at all their connections together, in a meta9d that the
// kernel gives 8 GiB of addresses.

// growth watches what of meta9d's memory is no file's.
type growth struct {
	from int64
	most atomic.Int64
	stop chan struct{}
	done sync.WaitGroup
}

func (g *target) watchMemory() *growth {
	g.t.Helper()
	from, err := g.Anon()
	if err != nil {
		g.t.Fatal(err)
	}
	w := &growth{from: from, stop: make(chan struct{})}
	w.done.Go(func() {
		for {
			if now, err := g.Anon(); err == nil && now > w.most.Load() {
				w.most.Store(now)
			}
			select {
			case <-w.stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return w
}

// atMost ends the watch.
func (w *growth) atMost(t *testing.T, mib int64) {
	t.Helper()
	close(w.stop)
	w.done.Wait()
	grown := (w.most.Load() - w.from) >> 20
	t.Logf("anonymous memory was %d MiB and grew by %d MiB", w.from>>20, grown)
	if grown > mib {
		t.Errorf("anonymous memory grew by %d MiB, %d are allowed", grown, mib)
	}
}

// newNarrow is newTarget with a limit of addresses. The race detector needs more than
// that, and has its own books beside: these tests use a meta9d without it.
func newNarrow(t *testing.T) *target {
	t.Helper()
	srv := testenv.Start(t, daemon.Options{Bin: testenv.Plain(t, "meta9d"), Wrap: []string{"sh", "-c", `ulimit -v 8388608 && exec "$@"`, "sh"}})
	for i := range 2 {
		srv.NewVM(testenv.UUID(i), fmt.Sprintf(`{"uuid":%q,"customer_metadata":{"key":%q}}`, testenv.UUID(i), value))
	}
	g := &target{Server: srv, t: t}
	g.bystander = g.attached(innocent)
	g.fds, _ = srv.FDs()
	g.rss, _ = srv.RSS()
	return g
}

// big stores values of 1 MiB, of which no byte needs an escape.
func (g *target) big(vm, values int) {
	g.t.Helper()
	c := g.attached(vm)
	defer c.Close()
	b := []byte(strings.Repeat("v", 1<<20))
	for i := range values {
		if err := c.Swrite(0, b, "keys", fmt.Sprint("big", i)); err != nil {
			g.t.Fatal(err)
		}
	}
}

// answered tells whether a reply is the whole value, or says that there is no room.
func answered(r raw.Reply) bool {
	err := r.Err()
	return err == nil && len(r.Data()) == 1<<20 || err != nil && strings.HasPrefix(err.Error(), "Resource temporarily unavailable: VM has ")
}

// TestWholeVMManyTimes asks for a vm.json of 15 MiB, which no message can hold, at all
// connections of a VM and 64 times at each.
func TestWholeVMManyTimes(t *testing.T) {
	g := newNarrow(t)
	g.big(attacker, 15)
	w := g.watchMemory()
	var out []byte
	for tag := range uint16(64) {
		out = raw.Append(out, wire.Tsread, tag, uint32(0), []string{"vm.json"})
	}
	var wg sync.WaitGroup
	for range 64 {
		c := g.attached(attacker)
		wg.Go(func() {
			defer c.Close()
			for range 2 {
				if err := c.Send(out); err != nil {
					t.Error(err)
					return
				}
				for range 64 {
					if r, err := c.Recv(); err != nil || r.Err() == nil || !strings.HasPrefix(r.Err().Error(), "too big") {
						t.Errorf("%v, %v", r.Type, err)
						return
					}
				}
			}
		})
	}
	g.serves()
	wg.Wait()
	w.atMost(t, 128)
	g.survived()
}

// TestOpenWholeVM reads a vm.json of 15 MiB that changes all the time, at all
// connections of a VM.
func TestOpenWholeVM(t *testing.T) {
	g := newNarrow(t)
	g.big(attacker, 15)
	w := g.watchMemory()
	var wg sync.WaitGroup
	for i := range 64 {
		c := g.attached(attacker)
		wg.Go(func() {
			defer c.Close()
			for range 5 {
				if err := c.Walk(0, 1, "vm.json"); err != nil {
					t.Error(err)
					return
				}
				if c.Open(1, wire.ORead) == nil { // there may be no room now
					_, _ = c.Read(1, 0, 1<<20)
				}
				if i%8 == 0 {
					_ = c.Swrite(0, []byte("x"), "keys", "changes")
				}
				if err := c.Clunk(1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	g.serves()
	wg.Wait()
	w.atMost(t, 128)
	g.survived()
}

// TestLargeValuesUnread asks for values of 1 MiB, eight at a time at each of a VM's 64
// connections, and takes none of them for a while. Then it takes them.
func TestLargeValuesUnread(t *testing.T) {
	const depth = 8
	g := newNarrow(t)
	g.big(attacker, 1)
	w := g.watchMemory()
	conns := g.unread([]int{attacker}, 64, depth)
	g.serves()
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			for range depth {
				if r, err := c.Recv(); err != nil || !answered(r) {
					t.Errorf("%v %v, %v", r.Type, r.Err(), err)
					return
				}
			}
			c.Close()
		})
	}
	wg.Wait()
	w.atMost(t, 128)
	g.survived()
}

// unread has connections of each VM ask for the value of 1 MiB, and waits until
// meta9d has taken in what it takes.
func (g *target) unread(vms []int, conns, depth int) (all []*raw.Conn) {
	g.t.Helper()
	var out []byte
	for tag := range uint16(depth) {
		out = raw.Append(out, wire.Tsread, tag, uint32(0), []string{"keys", "big0"})
	}
	for _, vm := range vms {
		for range conns {
			c := g.attached(vm)
			if err := c.Send(out); err != nil {
				g.t.Fatal(err)
			}
			all = append(all, c)
		}
	}
	time.Sleep(time.Second) // what it would take more, if it did
	return all
}

// TestHundredHostileVMs has a hundred VMs ask for far more than there is, half of it
// in unfinished frames. An honest VM is served meanwhile.
func TestHundredHostileVMs(t *testing.T) {
	const hostile, conns, depth = 100, 8, 8
	g := newNarrow(t)
	var vms []int
	for i := range hostile {
		vm := 100 + i
		g.NewVM(testenv.UUID(vm), fmt.Sprintf(`{"uuid":%q}`, testenv.UUID(vm)))
		g.big(vm, 1)
		vms = append(vms, vm)
	}
	g.fds, _ = g.FDs()
	w := g.watchMemory()
	all := g.unread(vms, conns, depth)
	half := raw.Frame(wire.Tswrite, 1, uint32(0), []string{"keys", "half"}, raw.Data(make([]byte, 1<<20)))
	for _, vm := range vms {
		for range conns / 2 {
			c := g.attached(vm)
			all = append(all, c)
			go func() { _ = c.Send(half[:len(half)/2]) }() // it is not read when there is no room
		}
	}
	for range 3 {
		g.serves()
		c := g.attached(innocent)
		if err := c.Swrite(0, make([]byte, 1<<20), "keys", "large"); err != nil {
			t.Errorf("an honest VM writes a large value: %v", err)
		}
		if b, err := c.Sread(0, "keys", "large"); err != nil || len(b) != 1<<20 {
			t.Errorf("an honest VM reads a large value: %d bytes, %v", len(b), err)
		}
		c.Close()
	}
	for _, c := range all {
		c.Close()
	}
	w.atMost(t, 1024)
	g.released()
}

// TestAloneNothingWaits: with one VM on the host, whose connections do what guests do,
// no request waits for memory.
func TestAloneNothingWaits(t *testing.T) {
	g := newTarget(t, "")
	g.big(attacker, 1)
	var wg sync.WaitGroup
	for i := range 32 {
		c := g.attached(attacker)
		wg.Go(func() {
			defer c.Close()
			for n := range 20 {
				small := []byte(fmt.Sprint(i, n))
				if err := c.Swrite(0, small, "keys", fmt.Sprint("k", i)); err != nil {
					t.Error(err)
				}
				if _, err := c.Sread(0, "keys", "big0"); err != nil {
					t.Error(err)
				}
				if i%16 == 0 {
					if err := c.Swrite(0, make([]byte, 1<<20), "keys", fmt.Sprint("large", i)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	b, err := g.Conn("").Sread(0, "ctl")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"\nmemory_waits 0\n", "\nmemory_refused 0\n"} {
		if !strings.Contains(string(b), line) {
			t.Errorf("ctl does not say %q:\n%s", line, b)
		}
	}
	testenv.Eventually(t, "nothing is in flight", func() bool {
		b, err := g.Conn("").Sread(0, "ctl")
		return err == nil && strings.Contains(string(b), "\nmemory_in_flight 0\n")
	})
}
