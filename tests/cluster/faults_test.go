package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/session/client"
	"meta9/tests/cluster/members"
	"meta9/tests/raw"
)

// guest is a guest of a VM that appends line after line to a key, and goes where it is led to.
type guest struct {
	t      *testing.T
	uuid   string
	lead   atomic.Pointer[node]
	client *client.Client
	over   chan struct{}
	wait   sync.WaitGroup

	mu    sync.Mutex
	acked map[int]bool // by line; false: nobody has told
	n     int          // of those that are acknowledged
	conn  net.Conn
}

// newGuest makes a VM at a host, whose guest begins to append.
func newGuest(t *testing.T, at *node, uuid string) *guest {
	t.Helper()
	at.must(`create {"uuid":"` + uuid + `","customer_metadata":{"log":""}}`)
	g := &guest{t: t, uuid: uuid, over: make(chan struct{}), acked: make(map[int]bool)}
	g.lead.Store(at)
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, _, err := reach(ctx, func() string { return g.lead.Load().socket(uuid) })
		g.mu.Lock()
		defer g.mu.Unlock()
		g.conn = conn
		return conn, err
	}
	until(t, "the guest", func() (err error) {
		g.client, err = client.Dial(t.Context(), "unix", client.Options{Patience: -1, Dial: dial})
		return err
	})
	g.wait.Go(g.run)
	t.Cleanup(g.end)
	return g
}

func (g *guest) run() {
	for i := 0; ; i++ {
		select {
		case <-g.over:
			return
		default:
		}
		err := g.client.WriteFile(context.Background(), "txn", fmt.Appendf(nil, `{"do":[{"append":"log","value":"%d\n"}]}`+"\n", i))
		g.mu.Lock()
		switch {
		case err == nil:
			g.acked[i] = true
			g.n++
		case errors.Is(err, client.ErrUnknown):
			g.acked[i] = false
		case errors.Is(err, client.ErrClosed):
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		if err != nil {
			time.Sleep(time.Millisecond) // it is refused, or the VM on its way
		}
	}
}

// to leads the guest to a host, as its QEMU does that migrates.
func (g *guest) to(n *node) {
	g.lead.Store(n)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conn != nil {
		_ = g.conn.Close()
	}
}

func (g *guest) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

// more waits until the guest has had some more lines acknowledged.
func (g *guest) more(what string) {
	g.t.Helper()
	want := g.count() + 5
	until(g.t, "changes "+what, func() error {
		if n := g.count(); n < want {
			return fmt.Errorf("%d are acknowledged, want %d", n, want)
		}
		return nil
	})
}

// end ends the guest.
func (g *guest) end() {
	select {
	case <-g.over:
		return
	default:
	}
	close(g.over)
	_ = g.client.Close()
	g.wait.Wait()
}

// check ends the guest, and looks that each line that was acknowledged is there once, in
// order, and of the others none twice.
func (g *guest) check(at *node) {
	g.t.Helper()
	close(g.over)
	g.wait.Wait()
	_ = g.client.Close()
	text, err := at.read("vms", g.uuid, "keys", "log")
	if err != nil {
		g.t.Fatal(err)
	}
	next, found := 0, 0
	for _, l := range strings.Fields(text) {
		var i int
		if _, err := fmt.Sscan(l, &i); err != nil || i < next {
			g.t.Fatalf("line %q comes after %d", l, next-1)
		}
		acked, is := g.acked[i]
		if !is {
			g.t.Errorf("line %d is there, and was refused", i)
		}
		if acked {
			found++
		}
		next = i + 1
	}
	if found != g.n || found == 0 {
		g.t.Errorf("%d lines were acknowledged, and %d of them are there", g.n, found)
	}
	g.t.Logf("%d changes", g.n)
}

// TestFaults: what can fail in a fleet, once each, as clients of meta9d see it. Nothing
// that was acknowledged is lost, and nothing is stuck when it is over.
func TestFaults(t *testing.T) {
	c := start(t, 3)
	a, b := c.node(t, "a", nil, ""), c.node(t, "b", nil, "")
	t.Run("cut off", func(t *testing.T) { cutOff(t, a, b) })
	t.Run("suspended", func(t *testing.T) { suspended(t, a, b, 4*time.Second) })
	t.Run("rolled", func(t *testing.T) { rolled(t, c, a, b) })
	t.Run("compacted", func(t *testing.T) { compacted(t, c, a, b) })
}

var vms atomic.Int64

// newVM is the UUID of a VM that no other test of the process has.
func newVM() string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", 100+vms.Add(1)) }

// ask is a request that may take long: its answer comes later.
func ask(t *testing.T, c *raw.Conn, data string, names ...string) <-chan error {
	c.Timeout = patience
	answer := make(chan error, 1)
	go func() { answer <- c.Swrite(0, []byte(data), names...) }()
	return answer
}

// conn is a connection of the admin's to the keys of a VM, which ends with the test.
func (n *node) conn(t *testing.T, uuid string) *raw.Conn {
	t.Helper()
	c, err := n.attach("vms/" + uuid + "/keys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// cutOff: an owner that is cut off from etcd refuses changes when its patience is over,
// and says since when what it reads may be old. None of its changes is there that
// the next owner's history lacks.
func cutOff(t *testing.T, a, b *node) {
	uuid := newVM()
	g := newGuest(t, a, uuid)
	g.more("before")
	first, second, reader := a.conn(t, uuid), a.conn(t, uuid), a.conn(t, uuid)
	if err := first.Swrite(0, []byte("before"), "k"); err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(-time.Second).Truncate(time.Second) // what it says has seconds
	a.cut()
	defer a.connect()
	stuck := ask(t, first, "stuck", "k")
	until(t, "the end of its lease", func() error {
		if a.well() == nil {
			return errors.New("it is well")
		}
		return nil
	})
	began := time.Now()
	err := second.Swrite(0, []byte("refused"), "k")
	t.Logf("refused after %v: %v", time.Since(began), err)
	if err == nil || !strings.Contains(err.Error(), "nothing was changed: the fleet's cluster has taken no change since ") {
		t.Errorf("a change where etcd does not answer: %v", err)
	} else {
		_, text, _ := strings.Cut(err.Error(), "no change since ")
		text, _, _ = strings.Cut(text, " ")
		if since, err := time.Parse(time.RFC3339, text); err != nil || since.Before(from) || since.After(time.Now()) {
			t.Errorf("it says since %q, and was cut off at %v", text, from)
		}
	}
	// The lease's last refresh may be as old as it is long.
	if since, err := time.Parse(time.RFC3339, a.says("fleet_stale_since")); err != nil || since.Before(from) || since.After(time.Now()) {
		t.Errorf("fleet_stale_since is %v, and it was cut off at %v: %v", since, from, err)
	}
	if v, err := reader.Sread(0, "k"); err != nil || string(v) != "before" {
		t.Errorf("it reads %q, %v", v, err)
	}
	g.to(b)
	b.must("fleet claim " + uuid)
	g.more("at the next owner")
	if err := b.conn(t, uuid).Swrite(0, []byte("after"), "k"); err != nil {
		t.Error(err)
	}
	if v, err := reader.Sread(0, "k"); err == nil && string(v) != "before" || a.says("fleet_stale_since") == "" {
		t.Errorf("it reads %q, %v, and says nothing of that", v, err)
	}
	a.connect()
	if err := <-stuck; err == nil {
		t.Error("a change is acknowledged that the next owner has not")
	}
	a.gone(uuid)
	until(t, "the lease", a.well)
	if v, err := b.conn(t, uuid).Sread(0, "k"); err != nil || string(v) != "after" {
		t.Errorf("the next owner has %q, %v", v, err)
	}
	g.to(a)
	a.must("fleet claim " + uuid)
	g.more("after all")
	g.check(a)
}

// suspended: a host whose meta9d stands still loses its VM when its lease is over, and
// acknowledges nothing of it when it goes on.
func suspended(t *testing.T, a, b *node, long time.Duration) {
	uuid := newVM()
	g := newGuest(t, a, uuid)
	g.more("before")
	c := a.conn(t, uuid)
	if err := a.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awake := time.After(long)
	defer a.Signal(syscall.SIGCONT)
	stuck := ask(t, c, "x", "stuck") // it is there when the host goes on
	g.to(b)
	b.must("fleet claim " + uuid)
	g.more("at the next owner")
	<-awake
	if err := a.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	err := <-stuck
	if _, there := b.read("vms", uuid, "keys", "stuck"); err == nil || there == nil {
		t.Errorf("a change of a host that stood still: it says %v, and the next owner %v", err, there)
	}
	a.gone(uuid)
	until(t, "the lease", a.well)
	g.to(a)
	a.must("fleet claim " + uuid)
	g.more("after all")
	g.check(a)
}

// rolled: members end and start again one by one, and the VM moves while each is away.
func rolled(t *testing.T, c *cluster, a, b *node) {
	uuid := newVM()
	g := newGuest(t, a, uuid)
	at := []*node{a, b}
	for i := range c.Configs {
		g.more("before")
		c.Kill(i)
		g.more("without a member")
		to := at[(i+1)%2]
		g.to(to)
		to.must("fleet claim " + uuid)
		g.more("after a move without a member")
		c.run(i)
	}
	g.more("after all")
	g.check(at[len(c.Configs)%2])
}

// compacted: etcd forgets what a host's watch has not seen, and the host hears of
// what it is asked for all the same.
func compacted(t *testing.T, c *cluster, a, b *node) {
	uuid := newVM()
	g := newGuest(t, a, uuid)
	g.more("before")
	plain := c.client(t)
	a.cut()
	defer a.connect()
	b.must(`create {"uuid":"` + newVM() + `"}`) // so that there is something to forget
	resp, err := plain.Get(t.Context(), "none")
	if err == nil {
		_, err = plain.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		t.Fatal(err)
	}
	a.connect()
	until(t, "the lease", a.well)
	g.more("after the compaction")
	for range 2 {
		g.to(b)
		b.must("fleet claim " + uuid)
		g.more("at the other host")
		g.to(a)
		a.must("fleet claim " + uuid)
		g.more("back again")
	}
	g.check(a)
}

// TestFull: etcd's alarm refuses changes with a text that says what to do; reads go on, and
// when there is room all goes on, also what waits since before that, or was started anew.
func TestFull(t *testing.T) {
	c := start(t, 1, func(m *members.Config) { m.Quota = 16 << 20 })
	a, b, starts := c.node(t, "a", nil, ""), c.node(t, "b", nil, ""), c.node(t, "c", nil, "")
	uuid := newVM()
	a.must(`create {"uuid":"` + uuid + `"}`)
	keys := a.conn(t, uuid)
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = keys.Swrite(0, []byte(strings.Repeat(fmt.Sprint(n%10), 900_000)), "k")
	}
	if err == nil || !strings.HasPrefix(err.Error(), "No space left on device") || !strings.Contains(err.Error(), "NOSPACE alarm") {
		t.Fatalf("after %d changes: %v", n, err)
	}
	if v, err := keys.Sread(0, "k"); err != nil || len(v) != 900_000 || v[0] != fmt.Sprint((n - 2) % 10)[0] {
		t.Errorf("the change before is not what is read: %d bytes, %v", len(v), err)
	}
	if err := keys.Swrite(0, []byte("x"), "small"); err == nil || !strings.HasPrefix(err.Error(), "No space left on device") {
		t.Errorf("a small change: %v", err)
	}
	if err := b.try("fleet claim "+uuid+" 2", patience); err == nil || !strings.Contains(err.Error(), "NOSPACE alarm") {
		t.Errorf("a claim says %v", err)
	}
	claim := make(chan error, 1)
	go func() { claim <- b.try("fleet claim "+uuid, patience) }()
	starting := make(chan struct{})
	go func() {
		starts.Restart() // it is ready when there is room
		close(starting)
	}()
	until(t, "what is wrong", func() error {
		if how := starts.says("fleet_etcd"); !strings.Contains(how, "NOSPACE alarm") {
			return fmt.Errorf("a host that starts says %q", how)
		}
		return nil
	})

	plain := c.client(t)
	resp, err := plain.Get(t.Context(), "none")
	if err == nil {
		_, err = plain.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err == nil {
		_, err = plain.Defragment(t.Context(), c.Configs[0].Client)
	}
	if err == nil {
		_, err = plain.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(t, claim); err != nil {
		t.Errorf("a claim that waits for room: %v", err)
	}
	if err := b.conn(t, uuid).Swrite(0, []byte("x"), "small"); err != nil {
		t.Errorf("a change where there is room: %v", err)
	}
	wait(t, starting)
	until(t, "the host that was started meanwhile", starts.well)
	starts.must("fleet claim " + uuid)
	if v, err := starts.read("vms", uuid, "keys", "small"); err != nil || v != "x" {
		t.Errorf("it has come with %q, %v", v, err)
	}
}

// TestProxied: a transaction of a meta9d that a proxy holds past its end and the start of the
// next, or whose answer is lost, is applied once.
func TestProxied(t *testing.T) {
	c := start(t, 1, fast)
	p := c.proxy(t, 0)
	a := c.node(t, "a", p, "")
	uuid := newVM()
	a.must(`create {"uuid":"` + uuid + `","customer_metadata":{"k":"first"}}`)
	begin := func(is plan, hold bool, data string) <-chan error {
		t.Helper()
		p.next(is, hold)
		keys := a.conn(t, uuid)
		return ask(t, keys, data, "k")
	}
	want := func(value string) {
		t.Helper()
		until(t, "the value", func() error {
			if v, err := a.read("vms", uuid, "keys", "k"); err != nil || v != value {
				return fmt.Errorf("k is %q, %v, want %q", v, err, value)
			}
			return nil
		})
	}

	// It is sent again, by the same process, and the first copy comes late.
	done := begin(withhold, false, "second")
	withheld := wait(t, p.met)
	if err := wait(t, done); err != nil {
		t.Fatal(err)
	}
	p.deliver(t, withheld)
	want("second")

	// It comes when its process is dead, and the next one has begun.
	done = begin(withhold, true, "late")
	withheld = wait(t, p.met)
	a.Kill()
	if err := wait(t, done); err == nil {
		t.Error("acknowledged, and nothing was done")
	}
	p.next(pass, false)
	a.Restart()
	want("second")
	p.deliver(t, withheld)
	a.Restart()
	want("second")
	until(t, "a change", func() error { return a.conn(t, uuid).Swrite(0, []byte("third"), "k") })
	p.deliver(t, withheld)
	want("third")

	// It is made, and nobody is told before the process dies.
	done = begin(lose, true, "fourth")
	wait(t, p.met)
	a.Kill()
	close(p.free)
	if err := wait(t, done); err == nil {
		t.Error("acknowledged by a dead one")
	}
	p.next(pass, false)
	a.Restart()
	want("fourth")
}
