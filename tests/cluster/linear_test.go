package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/tests/linear/cut"
	"meta9/tests/linear/order"
	"meta9/tests/raw"
)

var (
	seed = flag.Uint64("seed", 20261127, "what the clients' choices and the moments of faults grow from")
	nOps = flag.Int("ops", 20_000, "how many operations TestLinear makes at least")
)

// The world of a round.
const (
	nHosts  = 3
	nVMs    = 4
	nGuests = 3 // of each VM; beside them it has an admin
)

// checkTime bounds the search for an order; what takes longer is not judged, which is a
// failure, too.
const checkTime = 2 * time.Minute

// world is several hosts over one cluster, clients of their VMs, and faults. VMs are given
// away, and taken from hosts that are dead, cut off or stand still.
type world struct {
	t     *testing.T
	c     *cluster
	fresh bool // hosts refuse reads that may be old
	all   []*place
	vms   []*shared
	begun time.Time
	over  chan struct{} // closed when clients and faults are to end

	ctx    context.Context // of what clients ask
	giveUp func()          // ends it: after a failure nobody may be there who answers

	lying atomic.Int64 // odd: a host is fenced and lives, so that it takes old values for new ones

	ops, moves, taken, kills, drops, unknown, fenced, trouble, old atomic.Int64
	sentAgain, fencedOff                                           atomic.Int64 // as meta9d counts them

	mu   sync.Mutex
	done []porcupine.Operation
}

// place is a host of the world.
type place struct {
	*node
	// As meta9d has counted; the mover's.
	sentAgain, fencedOff int64
}

// shared is a VM.
type shared struct {
	n     int
	uuid  string
	owner atomic.Int32 // where its guests are led to, and its admin goes: the index of its host

	mu    sync.Mutex
	conns map[net.Conn]int // its guests' transports, and the host of each
}

// hangUp ends the guests' transports that lead to a host.
func (v *shared) hangUp(host int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c, at := range v.conns {
		if at == host {
			_ = c.Close()
			delete(v.conns, c)
		}
	}
}

func newWorld(t *testing.T, seed uint64, fresh bool) *world {
	c := start(t, 3, fast)
	w := &world{t: t, c: c, fresh: fresh, begun: time.Now(), over: make(chan struct{})}
	w.ctx, w.giveUp = context.WithCancel(t.Context())
	by := c.proxy(t, 0)
	chance := rand.New(rand.NewPCG(seed, 3))
	by.chance = func(*pb.TxnRequest) plan {
		switch n := chance.IntN(100); {
		case n < 2:
			return dropped
		case n < 5:
			return delayed
		}
		return pass
	}
	reads := "reads = \"stale\"\n"
	if fresh {
		reads = "reads = \"refuse\"\n"
	}
	for i := range nHosts {
		w.all = append(w.all, &place{node: c.node(t, string(rune('a'+i)), by, reads)})
	}
	for i := range nVMs {
		v := &shared{n: i, uuid: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), conns: make(map[net.Conn]int)}
		v.owner.Store(int32(i % nHosts))
		w.all[i%nHosts].must(`create {"uuid":"` + v.uuid + `"}`)
		w.vms = append(w.vms, v)
	}
	return w
}

func (w *world) now() int64 { return int64(time.Since(w.begun)) }

// add writes an operation down.
func (w *world) add(call, ret int64, in input, out output) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, porcupine.Operation{Input: in, Output: out, Call: call, Return: ret})
	w.ops.Add(1)
}

// ended tells whether clients and faults are to end.
func (w *world) ended() bool {
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}

// user is a client of a VM: a guest, or the admin.
type user struct {
	*world
	*rand.Rand
	v        *shared
	name     string
	sessions []*session // by host; a guest has one
	made     int
	last     [nKeys]string // what it has read last
	ctl      [nHosts]*raw.Conn
	pending  []porcupine.Operation // changes of unknown outcome that may still be made
	ends     atomic.Bool           // it asks no more
}

// session is that of a client.Client. A guest's moves with its VM: its transport leads to whichever
// host has that.
type session struct {
	client *client.Client
	names  string // of the files of the VM, before their names

	mu      sync.Mutex
	host    int // where its transport leads to
	dialled int // how many transports it had
}

// transport says where the transport leads to, and the how manyth it is.
func (s *session) transport() (host, dialled int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host, s.dialled
}

func (w *world) user(v *shared, n int, seed uint64) *user {
	u := &user{world: w, Rand: rand.New(rand.NewPCG(seed, uint64(v.n<<8+n))), v: v, name: fmt.Sprintf("guest %d", n)}
	if n < nGuests {
		u.sessions = make([]*session, 1)
		return u
	}
	u.name = "admin"
	u.sessions = make([]*session, nHosts)
	return u
}

func (u *user) guest() bool { return len(u.sessions) == 1 }

// session is the user's at that host, which a guest does not choose; nil: there is none, since a
// fault is in the way.
func (u *user) session(host int) *session {
	if u.guest() {
		host = 0
	}
	if u.sessions[host] != nil {
		return u.sessions[host]
	}
	s := new(session)
	chance := rand.New(rand.NewPCG(u.Uint64(), 0))
	opt := client.Options{Patience: -1, Dial: func(ctx context.Context) (net.Conn, error) {
		at := host
		conn, _, err := reach(ctx, func() string {
			if !u.guest() {
				return u.all[host].admin
			}
			at = int(u.v.owner.Load())
			return u.all[at].socket(u.v.uuid)
		})
		if err != nil {
			return nil, err
		}
		conn = cut.New(conn, rand.New(rand.NewPCG(chance.Uint64(), 0)), &u.drops)
		s.mu.Lock()
		s.host = at
		s.dialled++
		s.mu.Unlock()
		if u.guest() {
			u.v.mu.Lock()
			u.v.conns[conn] = at
			u.v.mu.Unlock()
		}
		return conn, nil
	}}
	if !u.guest() {
		s.names = "vms/" + u.v.uuid + "/"
	}
	var err error
	if s.client, err = client.Dial(u.ctx, "unix", opt); err != nil {
		return nil
	}
	u.sessions[host] = s
	return s
}

func (u *user) close() {
	for _, s := range u.sessions {
		if s != nil {
			_ = s.client.Close()
		}
	}
	for _, c := range u.ctl {
		if c != nil {
			c.Close()
		}
	}
}

// value is one that nobody has written before.
func (u *user) value() string {
	u.made++
	return fmt.Sprintf("%s.%d|", u.name, u.made)
}

func (u *user) run() {
	defer u.ends.Store(true)
	for !u.ended() && !u.t.Failed() {
		at := int(u.v.owner.Load())
		if u.IntN(20) == 0 {
			at = u.IntN(nHosts)
		}
		if !u.step(at) {
			time.Sleep(time.Millisecond) // the VM is on its way
		}
	}
}

// step is one operation, of an admin at that host; false: it came to nothing.
func (u *user) step(at int) bool {
	s := u.session(at)
	if s == nil {
		return false
	}
	in := input{vm: u.v.n, key: u.IntN(nKeys), who: u.name}
	switch n := u.IntN(20); {
	case n < 8:
		return u.read(s, in)
	case n < 12:
		in.kind, in.value = put, u.value()
	case n < 15:
		in.kind, in.value = extend, u.value()
	case n < 16:
		in.kind = remove
	case n < 18:
		in.kind, in.to = rename, (in.key+1)%nKeys
	default:
		in.kind, in.to, in.want, in.value = swap, (in.key+1)%nKeys, u.last[in.key], u.value()
	}
	call := u.now()
	var err error
	if in.kind == put {
		err = s.client.WriteFile(u.ctx, s.names+"keys/"+keyName(in.key), []byte(in.value))
	} else {
		err = s.client.WriteFile(u.ctx, s.names+"txn", transaction(in))
	}
	return u.note(call, in, err)
}

// transaction is the operation as a line of JSON.
func transaction(in input) []byte {
	key, to := keyName(in.key), keyName(in.to)
	type part = map[string]string
	var of struct {
		If []part `json:"if,omitempty"`
		Do []part `json:"do"`
	}
	switch in.kind {
	case extend:
		of.If, of.Do = []part{{"key": key}}, []part{{"append": key, "value": in.value}}
	case remove:
		of.Do = []part{{"remove": key}}
	case rename:
		of.Do = []part{{"rename": key, "to": to}}
	case swap:
		of.If = []part{{"key": key, "value": in.want}}
		of.Do = []part{{"put": key, "value": in.value}, {"put": to, "value": in.value}}
	}
	line, _ := json.Marshal(of) // strings
	return append(line, '\n')
}

// note writes a change down, with the outcome that err tells; false: nothing was done.
func (u *user) note(call int64, in input, err error) bool {
	ret := u.now()
	text := fmt.Sprint(err)
	switch {
	case u.ctx.Err() != nil: // the test has failed
	case err == nil:
		u.endPending(call, ret)
		u.add(call, ret, in, output{})
		return true
	case errors.Is(err, client.ErrUnknown):
		u.unknown.Add(1)
		u.pending = append(u.pending, porcupine.Operation{Input: in, Output: output{how: maybe}, Call: call})
	case strings.Contains(text, "may or may not"): // the VM was taken by another
		u.unknown.Add(1)
		u.add(call, ret, in, output{how: maybe})
	case errors.Is(err, errs.Canceled) && in.kind == extend:
		u.add(call, ret, in, output{how: absent})
		return true
	case errors.Is(err, errs.Canceled):
		u.add(call, ret, in, output{how: differs})
		return true
	case errors.Is(err, errs.NotFound) && !u.guest(): // the key, or the VM at that host
	case errors.Is(err, errs.NotFound):
		u.add(call, ret, in, output{how: absent})
		return true
	case errors.Is(err, errs.Moved), errors.Is(err, errs.Stale):
		u.fenced.Add(1)
	case strings.Contains(text, "nothing was changed"), strings.Contains(text, "no IDs for new files"), strings.Contains(text, "no VM is here"):
	default:
		u.t.Errorf("%s of VM %d: %v", u.name, u.v.n, err)
	}
	return false
}

// endPending writes down the pending changes that began before call: each was made by ret, or never
// will be. For a change that began at call was made by ret, by a later owner of the VM than had
// those requests; the process of that one is dead, or fenced.
func (u *user) endPending(call, ret int64) {
	later := u.pending[:0]
	for _, op := range u.pending {
		if op.Call >= call {
			later = append(later, op)
			continue
		}
		u.add(op.Call, ret, op.Input.(input), op.Output.(output))
	}
	u.pending = later
}

// read reads a key, and writes the answer down, unless that may be old: where hosts do not refuse
// such reads, the host must have said just before that it has its lease.
func (u *user) read(s *session, in input) bool {
	host, dialled := s.transport()
	lies, call := u.lying.Load(), u.now()
	if !u.fresh && !u.sure(host) {
		u.old.Add(1)
		return false
	}
	b, err := s.client.ReadFile(u.ctx, s.names+"keys/"+keyName(in.key))
	ret := u.now()
	_, now := s.transport()
	switch {
	case err != nil && (!errors.Is(err, errs.NotFound) || !u.guest()):
		if errors.Is(err, errs.IO) {
			u.old.Add(1)
		}
		return false // a read that is refused changes nothing
	case u.lying.Load() != lies, lies%2 == 1, !u.fresh && now != dialled: // then another host may have answered
		u.old.Add(1)
		return true
	case err != nil:
		u.add(call, ret, in, output{how: absent})
		return true
	}
	u.last[in.key] = string(b)
	u.add(call, ret, in, output{value: string(b)})
	return true
}

// sure tells that the host surely has its lease, by its own word. What it has when it says so is
// no older than that.
func (u *user) sure(at int) bool {
	var text []byte
	var err error
	if u.ctl[at] == nil {
		u.ctl[at], err = u.all[at].attach("")
	}
	if err == nil {
		text, err = u.ctl[at].Sread(0, "ctl")
	}
	if err != nil {
		if u.ctl[at] != nil {
			u.ctl[at].Close()
		}
		u.ctl[at] = nil
	}
	return line(string(text), "fleet_etcd") == "ok"
}

// mover moves VMs, and harms hosts. There is one.
type mover struct {
	*world
	*rand.Rand
}

// pause waits; false: the world ends.
func (w *world) pause(r *rand.Rand, least, most int) bool {
	select {
	case <-w.over:
		return false
	case <-time.After(time.Duration(least+r.IntN(most-least)) * time.Millisecond):
		return true
	}
}

func (m *mover) run() {
	for m.pause(m.Rand, 20, 80) && !m.t.Failed() {
		v, h := m.vms[m.IntN(nVMs)], m.IntN(nHosts)
		switch n := m.IntN(80); {
		case n < 56:
			m.give(v)
		case n < 64:
			m.expect(v)
		case n < 69:
			m.claimAtOnce(v)
		case n < 74:
			m.kill(h)
		case n < 76:
			m.harm(h, m.all[h].cut, m.all[h].connect)
		case n < 78:
			m.harm(h, func() { m.signal(h, syscall.SIGSTOP) }, func() { m.signal(h, syscall.SIGCONT) })
		default:
			m.fence(h)
		}
	}
}

func (m *mover) signal(h int, s syscall.Signal) {
	if err := m.all[h].Signal(s); err != nil {
		m.t.Error(err)
	}
}

func (m *mover) other(from int) int { return (from + 1 + m.IntN(nHosts-1)) % nHosts }

// give has another host claim a VM, which its owner gives to it.
func (m *mover) give(v *shared) {
	to := m.other(int(v.owner.Load()))
	v.owner.Store(int32(to)) // first: a guest that speaks where it was claims it back
	m.all[to].must("fleet claim " + v.uuid)
	m.moves.Add(1)
}

// expect has a VM come to where its guests speak.
func (m *mover) expect(v *shared) {
	from := int(v.owner.Load())
	to := m.other(from)
	m.all[to].must("fleet expect " + v.uuid)
	v.owner.Store(int32(to))
	v.hangUp(from)
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		host, err := m.all[to].where(v.uuid)
		switch {
		case err == nil && host == m.all[to].name:
			m.moves.Add(1)
			return
		case m.ended(): // there are no guests any more
			m.all[to].must("fleet claim " + v.uuid)
			return
		case time.Now().After(end):
			m.t.Errorf("VM %d does not come to host %s, where its guests speak: %q, %v", v.n, m.all[to].name, host, err)
			return
		}
	}
}

// claimAtOnce has two hosts claim a VM at once. Each gets it, one after the other.
func (m *mover) claimAtOnce(v *shared) {
	from := int(v.owner.Load())
	var all sync.WaitGroup
	for _, h := range []int{(from + 1) % nHosts, (from + 2) % nHosts} {
		all.Go(func() {
			m.all[h].must("fleet claim " + v.uuid)
			m.moves.Add(1)
			v.owner.Store(int32(h))
		})
	}
	all.Wait()
}

// takeAll has others claim the VMs of a host that cannot give them.
func (m *mover) takeAll(from int) {
	for _, v := range m.vms {
		if int(v.owner.Load()) == from {
			to := m.other(from)
			v.owner.Store(int32(to))
			v.hangUp(from)
			m.all[to].must("fleet claim " + v.uuid)
			m.taken.Add(1)
		}
	}
}

// count adds what meta9d has counted since its start.
func (m *mover) count(h int) {
	p := m.all[h]
	text, err := p.read("ctl")
	if err != nil {
		return
	}
	for name, of := range map[string]struct {
		was *int64
		all *atomic.Int64
	}{"fleet_sent_again": {&p.sentAgain, &m.sentAgain}, "fleet_fenced_writes": {&p.fencedOff, &m.fencedOff}} {
		is, _ := strconv.ParseInt(line(text, name), 10, 64)
		of.all.Add(is - *of.was)
		*of.was = is
	}
}

func (m *mover) end(h int) {
	m.count(h)
	m.all[h].Kill()
	m.all[h].sentAgain, m.all[h].fencedOff = 0, 0
	m.kills.Add(1)
}

// kill kills a host. It starts again, or others take its VMs before that: when its lease has
// ended, or when they have fenced it.
func (m *mover) kill(h int) {
	m.end(h)
	switch m.IntN(4) {
	case 0:
		m.takeAll(h)
	case 1:
		m.fenceIt(h)
		m.takeAll(h)
	}
	m.all[h].Restart()
}

// fenceIt ends the lease of a host.
func (m *mover) fenceIt(h int) {
	by := m.all[m.other(h)]
	until(m.t, "a fence", func() error {
		err := by.try("fleet fence "+m.all[h].name, patience)
		if err != nil && strings.Contains(err.Error(), "does not live") {
			return nil
		}
		return err
	})
}

// harm has others take the VMs of a host that is harmed when its lease is over.
func (m *mover) harm(h int, begin, end func()) {
	m.trouble.Add(1)
	begin()
	m.takeAll(h)
	end()
	until(m.t, "the lease", m.all[h].well)
	m.count(h)
}

// fence fences a host that lives, which an operator must not do. Its guests go on there
// until each is told no. No write of theirs is there that the next owner has not.
func (m *mover) fence(h int) {
	p := m.all[h]
	m.lying.Add(1)
	m.fenceIt(h)
	for _, v := range m.vms {
		if int(v.owner.Load()) == h {
			to := m.other(h)
			m.all[to].must("fleet claim " + v.uuid)
			m.taken.Add(1)
			m.pause(m.Rand, 10, 100)
			v.owner.Store(int32(to))
		}
	}
	m.end(h)
	p.Restart()
	m.lying.Add(1)
}

// faults harms members, and links to them, one at a time.
func (w *world) faults(r *rand.Rand) {
	for w.pause(r, 100, 400) && !w.t.Failed() {
		i := r.IntN(len(w.c.Configs))
		h := w.all[r.IntN(nHosts)]
		w.trouble.Add(1)
		switch r.IntN(6) {
		case 0:
			w.c.Kill(i)
			w.pause(r, 100, 800)
			w.c.run(i)
		case 1:
			w.c.signal(i, syscall.SIGSTOP)
			w.pause(r, 600, 2500) // a try takes 2 s
			w.c.signal(i, syscall.SIGCONT)
		case 2:
			h.links[i].Cut()
			w.pause(r, 100, 600)
			h.links[i].Open()
		case 3: // what it has sent comes late
			h.links[i].Hold()
			w.pause(r, 600, 2500)
			h.links[i].Open()
		default:
			h.cut()
			w.pause(r, 300, 900)
			h.connect()
		}
	}
}

// play has clients, moves and faults go on while more says so, and judges.
func play(t *testing.T, seed uint64, fresh bool, more func(*world) bool) *world {
	t.Helper()
	w := newWorld(t, seed, fresh)
	m := &mover{world: w, Rand: rand.New(rand.NewPCG(seed, 1))}
	var users []*user
	var running, harming sync.WaitGroup
	for _, v := range w.vms {
		for n := range nGuests + 1 {
			u := w.user(v, n, seed)
			users = append(users, u)
			running.Go(u.run)
		}
	}
	harming.Go(m.run)
	harming.Go(func() { w.faults(rand.New(rand.NewPCG(seed, 2))) })
	for more(w) && !t.Failed() {
		time.Sleep(10 * time.Millisecond)
	}
	close(w.over)
	harming.Wait() // first: what the others wait for may stand still
	w.rest(users, &running)
	for _, u := range users {
		u.close()
	}
	if t.Failed() {
		return w
	}
	// What etcd has is what was told: all processes begin anew, and all keys are read.
	for h := range w.all {
		m.end(h)
		w.all[h].Restart()
	}
	for _, u := range users {
		u.endPending(w.now(), w.now())
	}
	for _, v := range w.vms {
		w.look(v)
	}
	w.judge()
	return w
}

// rest waits until all clients have ended. They wait for an answer for ever; so it is a failure where
// one still waits when nothing is harmed any more, and the logs of the hosts show then what each host does.
func (w *world) rest(users []*user, running *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	late := time.After(patience)
	if w.t.Failed() {
		w.giveUp()
	}
	select {
	case <-ended:
		return
	case <-late:
	}
	for _, u := range users {
		if !u.ends.Load() {
			w.t.Errorf("%s of VM %d still waits, for what it has asked, or for a host that serves the VM", u.name, u.v.n)
		}
	}
	for _, p := range w.all {
		if err := p.Signal(syscall.SIGQUIT); err != nil {
			w.t.Errorf("host %s: %v", p.name, err)
		}
	}
	w.giveUp()
	<-ended
}

// look reads all keys of a VM at its owner, and writes one: nothing is stuck.
func (w *world) look(v *shared) {
	w.t.Helper()
	var c *raw.Conn
	until(w.t, "the VM after all", func() error {
		host, err := w.all[0].where(v.uuid)
		if err != nil {
			return err
		}
		for _, p := range w.all {
			if p.name == host {
				c, err = p.attach("vms/" + v.uuid + "/keys")
				return err
			}
		}
		return w.all[0].try("fleet claim "+v.uuid, patience) // nobody's
	})
	defer c.Close()
	for key := range nKeys {
		in, call := input{vm: v.n, key: key, who: "the last look"}, w.now()
		b, err := c.Sread(0, keyName(key))
		switch {
		case err == nil:
			w.add(call, w.now(), in, output{value: string(b)})
		case refused(err):
			w.add(call, w.now(), in, output{how: absent})
		default:
			w.t.Fatal(err)
		}
	}
	if err := c.Swrite(0, []byte("x"), "end"); err != nil {
		w.t.Errorf("VM %d takes no write any more: %v", v.n, err)
	}
}

// judge looks, VM by VM, for an order of all operations that a single VM could have done
// one after the other.
func (w *world) judge() {
	of := make([][]porcupine.Operation, nVMs)
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

// missing names something that must happen in a round and has not; "": all has.
func (w *world) missing() string {
	for name, n := range map[string]int64{
		"hand-over": w.moves.Load(), "VM that was taken": w.taken.Load(), "kill of a host": w.kills.Load(),
		"lost transport": w.drops.Load(), "unknown outcome": w.unknown.Load(), "write refused": w.fenced.Load(), "fault": w.trouble.Load(),
	} {
		if n == 0 {
			return "no " + name
		}
	}
	return ""
}

func (w *world) figures() string {
	return fmt.Sprintf("%d operations, %d hand-overs, %d VMs taken, %d kills of a host, %d faults of members and links, %d transports lost, %d unknown outcomes, %d writes refused by a host that is no longer the owner (%d of them by the fence in etcd), %d transactions sent again, %d reads left out or refused",
		w.ops.Load(), w.moves.Load(), w.taken.Load(), w.kills.Load(), w.trouble.Load(), w.drops.Load(), w.unknown.Load(), w.fenced.Load(), w.fencedOff.Load(), w.sentAgain.Load(), w.old.Load())
}

// TestLinear: while VMs move, hosts are killed, cut off and stand still, members die and
// stand still and links are cut, one order of all operations explains what each client was told.
// Reads that may be old are refused, or left out.
func TestLinear(t *testing.T) {
	for i, name := range []string{"stale", "refuse"} {
		t.Run(name, func(t *testing.T) {
			seed := *seed + uint64(i)
			t.Logf("seed %d", seed)
			until := time.Now().Add(3 * time.Minute)
			w := play(t, seed, name == "refuse", func(w *world) bool {
				return (w.ops.Load() < int64(*nOps/2) || w.missing() != "") && time.Now().Before(until)
			})
			t.Log(w.figures())
			if !t.Failed() && w.missing() != "" {
				t.Errorf("not all has happened: %s", w.missing())
			}
		})
	}
}
