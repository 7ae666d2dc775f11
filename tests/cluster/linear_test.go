package cluster

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/etcd"
	"meta9/fs/vm"
	"meta9/tests/linear/order"
)

var (
	seed = flag.Uint64("seed", 20261127, "what the clients' choices and the moments of faults grow from")
	nOps = flag.Int("ops", 20_000, "how many operations TestLinear makes at least")
)

// The world of a round.
const (
	nHosts   = 3
	nVMs     = 4
	nClients = 4 // of each VM
)

// checkTime bounds the search for an order; what takes longer is not judged, which is a
// failure, too.
const checkTime = 2 * time.Minute

// world is several hosts' stores over one cluster, clients of their VMs, and faults. VMs
// are given away, and taken from hosts that are dead or think that they own them still. A
// host from which a VM is taken while it lives answers no reads of it from then on, as one
// that has lost its lease and has cluster.reads = "refuse"; its writes go on.
type world struct {
	t     *testing.T
	c     *cluster
	hosts []*host
	vms   []*shared
	begun time.Time
	over  chan struct{} // closed when clients and faults are to end

	ops                                    atomic.Int64
	moves, claims, kills, unknown, trouble atomic.Int64
	before                                 etcd.Stats // of engines that are gone

	mu   sync.Mutex
	done []porcupine.Operation
	open []openOp
	ends map[life]int64 // when nothing that a dead life has sent could be made any more
}

// life is a host's process.
type life struct{ host, n int }

// openOp is an operation that may be made until its host's life has surely ended.
type openOp struct {
	op   porcupine.Operation
	life life
}

// host is a host, and its process if it has one.
type host struct {
	name  string
	links []*link
	mu    sync.RWMutex
	life  life
	store *store.Store // nil: it is dead
	eng   *etcd.Engine
}

// shared is a VM.
type shared struct {
	n     int
	uuid  string
	owner atomic.Int32 // index of its host
	reads [nHosts]struct {
		sync.RWMutex
		may bool // that host answers reads
	}
}

func newWorld(t *testing.T, c *cluster, seed uint64) *world {
	w := &world{t: t, c: c, begun: time.Now(), over: make(chan struct{}), ends: make(map[life]int64)}
	prefix := fmt.Sprintf("/linear/%x/", seed)
	for i := range nHosts {
		h := &host{name: string(rune('a' + i)), life: life{host: i}}
		for _, m := range c.configs {
			h.links = append(h.links, newLink(t, strings.TrimPrefix(m.Client, "http://")))
		}
		w.hosts = append(w.hosts, h)
		w.live(h, prefix)
	}
	for i := range nVMs {
		v := &shared{n: i, uuid: fmt.Sprintf("00000000-0000-4000-8000-%012d", i)}
		v.owner.Store(int32(i % nHosts))
		v.reads[i%nHosts].may = true
		do(t, w.hosts[i%nHosts].store, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + v.uuid + `"}`})
		w.vms = append(w.vms, v)
	}
	return w
}

func (w *world) now() int64 { return int64(time.Since(w.begun)) }

// live starts a host's process.
func (w *world) live(h *host, prefix string) {
	w.t.Helper()
	var endpoints []string
	for _, k := range h.links {
		endpoints = append(endpoints, k.url())
	}
	for until := time.Now().Add(time.Minute); ; {
		e, err := etcd.Open(context.Background(), etcd.Config{
			Endpoints: endpoints, Prefix: prefix, Fleet: "test", Host: h.name, Try: 500 * time.Millisecond, Log: zerolog.Nop(),
		})
		var s *store.Store
		if err == nil {
			if s, err = store.Open(e, store.Config{}); err != nil {
				_ = e.Close()
			}
		}
		if err == nil {
			h.mu.Lock()
			h.store, h.eng = s, e
			h.life.n++
			h.mu.Unlock()
			return
		}
		if time.Now().After(until) { // a fault may be in the way
			w.t.Fatalf("host %s: %v", h.name, err)
		}
	}
}

// kill ends a host's process. What it has under way is made or not, and nobody is told.
func (w *world) kill(h *host) {
	h.mu.Lock()
	s, e := h.store, h.eng
	h.store = nil
	h.mu.Unlock()
	for _, v := range w.vms {
		w.serve(v, h.life.host, false)
	}
	s.Interrupt()
	_ = s.Close()
	stats := e.Stats()
	w.before.Unsure += stats.Unsure
	w.before.Fenced += stats.Fenced
	w.kills.Add(1)
}

// settled notes that what the host's last life has sent cannot be made any more.
func (w *world) settled(of life) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[of] = w.now()
}

// serve lets a host answer reads of a VM, or no longer; then none is under way.
func (w *world) serve(v *shared, host int, may bool) {
	r := &v.reads[host]
	r.Lock()
	defer r.Unlock()
	r.may = may
}

// add writes an operation down.
func (w *world) add(call, ret int64, in input, out output) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, porcupine.Operation{Input: in, Output: out, Call: call, Return: ret})
	w.ops.Add(1)
}

// addOpen writes one down that may be made as long as the life's transactions may.
func (w *world) addOpen(call int64, of life, in input) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, openOp{porcupine.Operation{Input: in, Output: output{how: maybe}, Call: call}, of})
	w.ops.Add(1)
	w.unknown.Add(1)
}

// client is one client of a VM.
type client struct {
	*world
	*rand.Rand
	v    *shared
	name string
	made int
	last string // what it has read last
}

func (w *world) client(v *shared, n int, seed uint64) *client {
	return &client{world: w, Rand: rand.New(rand.NewPCG(seed, uint64(v.n<<8+n))), v: v, name: fmt.Sprint(n)}
}

// value is one that nobody has written before.
func (c *client) value() string {
	c.made++
	return fmt.Sprintf("%s.%d|", c.name, c.made)
}

func (c *client) run() {
	for {
		select {
		case <-c.over:
			return
		default:
		}
		at := int(c.v.owner.Load())
		if c.IntN(20) == 0 {
			at = c.IntN(nHosts)
		}
		if !c.step(at) {
			time.Sleep(time.Millisecond) // the VM is on its way
		}
	}
}

// step is one operation at a host; false: it has not the VM.
func (c *client) step(at int) bool {
	h := c.hosts[at]
	h.mu.RLock()
	s, of := h.store, h.life
	h.mu.RUnlock()
	if s == nil {
		return false
	}
	cell := s.Cell(c.v.uuid)
	if cell == nil {
		return false
	}
	in := input{vm: c.v.n, key: c.IntN(nKeys), to: c.IntN(nKeys), host: h.name}
	switch n := c.IntN(20); {
	case n < 4:
		return c.read(at, cell, in)
	case n < 10:
		in.kind, in.value = put, c.value()
	case n < 14:
		in.kind, in.value = extend, c.value()
	case n < 15:
		in.kind = remove
	case n < 17:
		in.kind, in.to = rename, (in.key+1)%nKeys
	default:
		in.kind, in.to, in.want, in.value = swap, (in.key+1)%nKeys, c.last, c.value()
	}
	call := c.now()
	r := s.Do(intent(cell, in))
	c.told(call, of, in, r.Err)
	return r.Err == nil
}

// intent is the operation as a store takes it.
func intent(cell *store.Cell, in input) *store.Intent {
	i := &store.Intent{Cell: cell, Name: keyName(in.key), Data: in.value}
	switch in.kind {
	case put:
		i.Kind = store.Put
	case extend:
		i.Kind = store.Append
	case remove:
		i.Kind = store.Remove
	case rename:
		i.Kind, i.NewName = store.Set, keyName(in.to)
	case swap:
		i.Kind, i.Txn = store.Txn, &store.Transaction{
			If: []store.Condition{{Name: keyName(in.key), Value: &in.want}},
			Do: []store.Intent{{Kind: store.Put, Name: keyName(in.key), Data: in.value}, {Kind: store.Put, Name: keyName(in.to), Data: in.value}},
		}
	}
	return i
}

// told writes down a change by what the client was told.
func (c *client) told(call int64, of life, in input, err error) {
	ret := c.now()
	switch {
	case err == nil:
		c.add(call, ret, in, output{})
	case strings.Contains(err.Error(), "may or may not"): // taken by another, or the process is killed
		c.addOpen(call, of, in)
	case errs.KindOf(err) == errs.NotFound:
		c.add(call, ret, in, output{how: absent})
	case errs.KindOf(err) == errs.Canceled:
		c.add(call, ret, in, output{how: differs})
	case errs.KindOf(err) == errs.Moved, strings.Contains(err.Error(), "closed"), strings.Contains(err.Error(), "nothing was changed"):
	case strings.Contains(err.Error(), "no IDs for new files"):
	case strings.Contains(err.Error(), "nothing more is written"): // refused behind the one that may be made
	default:
		c.t.Errorf("host %s: %v", in.host, err)
	}
}

// read reads, where the host may answer.
func (c *client) read(at int, cell *store.Cell, in input) bool {
	r := &c.v.reads[at]
	r.RLock()
	defer r.RUnlock()
	call := c.now()
	row := cell.VM()
	if !r.may || row == nil {
		return false
	}
	out := output{how: absent}
	if e := row.Get(vm.Keys, keyName(in.key)); e != nil {
		out = output{value: e.Value}
		c.last = e.Value
	}
	c.add(call, c.now(), in, out)
	return true
}

// mover moves VMs, and kills hosts. There is one.
type mover struct {
	*world
	*rand.Rand
	prefix string
	probe  []*client // one of each VM, which writes where a host is to learn that it has lost it
}

func (m *mover) run() {
	for {
		select {
		case <-m.over:
			return
		case <-time.After(time.Duration(20+m.IntN(60)) * time.Millisecond):
		}
		v := m.vms[m.IntN(nVMs)]
		switch n := m.IntN(10); {
		case n < 5:
			m.give(v)
		case n < 8:
			m.steal(v)
		default:
			m.killOne(m.hosts[m.IntN(nHosts)])
		}
		if m.t.Failed() {
			return
		}
	}
}

func (m *mover) other(from int) int { return (from + 1 + m.IntN(nHosts-1)) % nHosts }

// give hands a VM over.
func (m *mover) give(v *shared) {
	from := int(v.owner.Load())
	to := m.other(from)
	m.forgotten(v, to)
	r := m.hosts[from].store.Do(&store.Intent{
		Kind: store.Yield, Cell: m.hosts[from].store.Cell(v.uuid),
		Gift: &store.Gift{To: m.hosts[to].name, With: []byte("sessions")},
	})
	if r.Err != nil {
		if !strings.Contains(r.Err.Error(), "nothing was changed") { // refused after the store's patience
			m.t.Errorf("VM %d from %s: %v", v.n, m.hosts[from].name, r.Err)
		}
		return
	}
	m.serve(v, from, false)
	m.adopt(v, to)
	m.moves.Add(1)
}

// steal takes a VM from a host that lives.
func (m *mover) steal(v *shared) {
	from := int(v.owner.Load())
	to := m.other(from)
	m.forgotten(v, to)
	m.serve(v, from, false)
	m.claim(v, to)
}

// claim takes a VM without asking its owner.
func (m *mover) claim(v *shared, to int) {
	e := m.hosts[to].eng
	m.patient(func() error {
		ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Second)
		defer cancel()
		from, err := e.Owner(ctx, v.uuid)
		if err != nil || from.Host == m.hosts[to].name { // by an earlier try
			return err
		}
		return e.Claim(ctx, v.uuid, from)
	})
	m.adopt(v, to)
	m.claims.Add(1)
}

// adopt lets a host that owns the VM serve it.
func (m *mover) adopt(v *shared, to int) {
	m.patient(func() error {
		a, err := m.hosts[to].store.Fetch(v.uuid)
		if err == nil {
			err = m.hosts[to].store.Do(&store.Intent{Kind: store.Adopt, Arrival: a}).Err
		}
		return err
	})
	v.owner.Store(int32(to))
	m.serve(v, to, true)
}

// patient does what a fault may be in the way of.
func (m *mover) patient(f func() error) {
	until := time.Now().Add(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			m.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// forgotten sees to it that a host knows that it has not the VM, by writing there.
func (m *mover) forgotten(v *shared, at int) {
	m.patient(func() error {
		if m.hosts[at].store.Cell(v.uuid) == nil {
			return nil
		}
		m.probe[v.n].step(at)
		return errs.New(errs.Busy, "host %s has VM %d still", m.hosts[at].name, v.n)
	})
}

// killOne kills a host. It starts again, or others take its VMs before that.
func (m *mover) killOne(h *host) {
	of := h.life
	m.kill(h)
	if m.IntN(2) == 0 {
		for _, v := range m.vms {
			if int(v.owner.Load()) == of.host {
				to := m.other(of.host)
				m.forgotten(v, to)
				m.claim(v, to)
			}
		}
	}
	m.live(h, m.prefix)
	m.settled(of)
	for _, v := range m.vms {
		if int(v.owner.Load()) == of.host {
			m.serve(v, of.host, true)
		}
	}
}

// faults harms members, and links to them, one at a time.
func (w *world) faults(r *rand.Rand) {
	rest := func(least, most int) bool {
		select {
		case <-w.over:
			return false
		case <-time.After(time.Duration(least+r.IntN(most-least)) * time.Millisecond):
			return true
		}
	}
	for rest(100, 400) && !w.t.Failed() {
		i := r.IntN(len(w.c.configs))
		h := w.hosts[r.IntN(nHosts)]
		w.trouble.Add(1)
		switch r.IntN(5) {
		case 0:
			w.c.kill(i)
			rest(100, 800)
			w.c.run(i)()
		case 1:
			w.c.signal(i, syscall.SIGSTOP)
			rest(600, 1500) // longer than a try
			w.c.signal(i, syscall.SIGCONT)
		case 2:
			h.links[i].set(true, false)
			rest(100, 600)
			h.links[i].set(false, false)
		case 3: // what it has sent comes late
			h.links[i].set(false, true)
			rest(600, 1200)
			h.links[i].set(false, false)
		case 4:
			for _, k := range h.links {
				k.set(true, false)
			}
			rest(300, 900)
			for _, k := range h.links {
				k.set(false, false)
			}
		}
	}
}

// play has clients, moves and faults go on while more says so, and judges.
func play(t *testing.T, c *cluster, seed uint64, more func(*world) bool) *world {
	t.Helper()
	w := newWorld(t, c, seed)
	prefix := fmt.Sprintf("/linear/%x/", seed)
	m := &mover{world: w, Rand: rand.New(rand.NewPCG(seed, 1)), prefix: prefix}
	var all, faults sync.WaitGroup
	for _, v := range w.vms {
		m.probe = append(m.probe, w.client(v, nClients, seed))
		for n := range nClients {
			all.Go(w.client(v, n, seed).run)
		}
	}
	all.Go(m.run)
	faults.Go(func() { w.faults(rand.New(rand.NewPCG(seed, 2))) })
	for more(w) && !t.Failed() {
		time.Sleep(10 * time.Millisecond)
	}
	close(w.over)
	faults.Wait() // first: what the others wait for may stand still
	all.Wait()
	if t.Failed() {
		return w
	}
	// What etcd has is what was told: all processes begin anew, and all keys are read.
	for _, h := range w.hosts {
		of := h.life
		w.kill(h)
		w.live(h, prefix)
		w.settled(of)
	}
	for _, v := range w.vms {
		at := int(v.owner.Load())
		cell := w.hosts[at].store.Cell(v.uuid)
		if cell == nil {
			t.Fatalf("VM %d is not at %s, which owns it", v.n, w.hosts[at].name)
		}
		w.serve(v, at, true)
		for key := range nKeys {
			m.probe[v.n].read(at, cell, input{vm: v.n, key: key, host: w.hosts[at].name})
		}
	}
	for _, h := range w.hosts {
		w.kill(h)
	}
	w.judge()
	return w
}

// judge looks, VM by VM, for an order of all operations that a single VM could have done
// one after the other.
func (w *world) judge() {
	of := make([][]porcupine.Operation, nVMs)
	for _, o := range w.open {
		end, is := w.ends[o.life]
		if !is {
			end = w.now()
		}
		o.op.Return = max(end, o.op.Call)
		w.done = append(w.done, o.op)
	}
	for _, op := range w.done {
		n := op.Input.(input).vm
		of[n] = append(of[n], op)
	}
	for n, ops := range of {
		switch result, info := porcupine.CheckOperationsVerbose(model, ops, checkTime); result {
		case porcupine.Illegal:
			w.t.Errorf("VM %d: no order explains what clients were told:\n%s", n, order.Blame(ops, info, describeAny))
		case porcupine.Unknown:
			w.t.Errorf("%d operations on VM %d were not judged within %v", len(ops), n, checkTime)
		}
	}
}

// short says of what has to happen in a round what has not.
func (w *world) short() string {
	for name, n := range map[string]int64{
		"hand-over": w.moves.Load(), "claim": w.claims.Load(), "kill of a host": w.kills.Load(), "unknown outcome": w.unknown.Load(), "fault": w.trouble.Load(),
	} {
		if n == 0 {
			return "no " + name
		}
	}
	return ""
}

func (w *world) figures() string {
	return fmt.Sprintf("%d operations, %d hand-overs, %d claims, %d kills of a host, %d faults of members and links, %d unknown outcomes (and %d transactions sent again), %d writes fenced",
		w.ops.Load(), w.moves.Load(), w.claims.Load(), w.kills.Load(), w.trouble.Load(), w.unknown.Load(), w.before.Unsure, w.before.Fenced)
}

// TestLinear: while VMs move, hosts are killed, members die and stand still and links are
// cut, one order of all operations explains what each client was told.
func TestLinear(t *testing.T) {
	t.Logf("seed %d", *seed)
	until := time.Now().Add(4 * time.Minute)
	w := play(t, start(t, 3, fast), *seed, func(w *world) bool {
		return (w.ops.Load() < int64(*nOps) || w.short() != "") && time.Now().Before(until)
	})
	t.Log(w.figures())
	if w.before.Fenced == 0 || w.before.Unsure == 0 || w.short() != "" {
		t.Errorf("not all has happened: %s", w.short())
	}
}
