// Package hosts finds the QEMUs of a host by their QMP sockets and makes each a VM
// of the tree, whose state it keeps current. Into the VM's folder it grafts qmp/
// (status, version, events), and into its ctl the verbs start, stop, powerdown,
// reset, quit and qmp.
//
// One goroutine looks for sockets. Each socket has one that connects, again and again,
// and while it is connected follows the QEMU's state; the client's own goroutine reads
// the events, and only notes them. It reads with a place at the CPUs that its VM has, or
// nobody: a QEMU may say as much as it likes. A verb that waits for a QEMU has a goroutine as
// long as it waits.
//
// Locks: Hosts.mu, then machine.mu, then Ring.mu. None is held while the store
// or a QEMU is called; the store's committer takes Hosts.mu for a look-up only.
package hosts

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"meta9/backoff"
	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/rarelog"
)

// Config is what New needs. Zero fields take the defaults.
type Config struct {
	Tree    *fs.Tree
	Sockets []string // paths of sockets; they may come later
	Globs   []string // patterns of such paths, as filepath.Match has them
	// Bind says which VM, by its UUID, the QEMU at a socket is: one that has no UUID is
	// that VM, one of another UUID is refused.
	Bind map[string]string
	// VMs bounds how many VMs QEMUs may make: none while so many VMs have or had a QEMU. A
	// QEMU of a VM that exists is always taken.
	VMs   int
	Limit int // bytes of a QEMU's answer to the verb qmp; 64 MiB. Other messages have at most maxUnasked
	// Elsewhere is told of a QEMU whose VM is not here: when it is found, when its state
	// has changed, and twice a minute. True: another host has the VM, and none is made.
	// It may wait until ctx ends. nil: there are no other hosts.
	Elsewhere func(ctx context.Context, uuid, state string) (bool, error)
	// CallTime is how long a QEMU has to answer a command; 10 s.
	CallTime time.Duration
	// ProbeTime is how often a QEMU is asked for its status when no event came; 4 s.
	// One that then does not answer within 5 s, or CallTime, is unresponsive.
	ProbeTime time.Duration
	Log       zerolog.Logger
}

// Times that are not in Config.
const (
	lookTime  = 250 * time.Millisecond // between two looks for sockets
	quietTime = 5 * time.Second        // without a greeting or an answer, until the VM is unresponsive
	// elsewhereTime is how often Config.Elsewhere is told of one QEMU that stays as it is:
	// what it does then may have failed.
	elsewhereTime = 30 * time.Second
)

// maxUnasked is how many bytes a message of a QEMU may have that answers no operator: its
// events and the answers to the queries of this package are short.
const maxUnasked = 1 << 20

// connectAgain makes the pauses after a connection that failed.
var connectAgain = backoff.Backoff{First: 100 * time.Millisecond, Last: 5 * time.Second}

// VMs that QEMUs may make: a second, after so many at once.
const makeRate, makeBurst = 1, 256

// author is the "by" of what is changed here.
const author = "qmp"

// Hosts are the QEMUs of this host.
type Hosts struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	all    sync.WaitGroup // goroutines
	rare   rarelog.Log    // for what a QEMU may do at any pace

	mu       sync.Mutex
	started  bool
	closed   bool
	links    map[string]*link    // by path, as long as there is something there
	machines map[string]*machine // by UUID: those that have, or had, a QEMU
	// earlier are the VMs that had a QEMU when the process before this one ended, by the
	// path of its socket, until it is known whether they still have one.
	earlier map[string][]string
	made    map[string]string // the VM that the QEMU at a socket has made, by path
	making  *rate.Limiter
	refused int // monitors of others, ever
}

// New makes Hosts, which add to the tree: call it before the tree's first View and
// the store's first Submit, and Start after that.
func New(cfg Config) *Hosts {
	cfg.CallTime = cmp.Or(cfg.CallTime, 10*time.Second)
	cfg.ProbeTime = cmp.Or(cfg.ProbeTime, 4*time.Second)
	h := &Hosts{
		cfg: cfg, rare: rarelog.Log{Log: cfg.Log}, links: make(map[string]*link), machines: make(map[string]*machine),
		earlier: make(map[string][]string), made: make(map[string]string), making: rate.NewLimiter(makeRate, makeBurst),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	cfg.Tree.GraftVM("qmp", h.folder, true)
	h.addVerbs()
	cfg.Tree.Store().Observe(h.committed)
	return h
}

// Start begins to look for sockets.
func (h *Hosts) Start() {
	h.mu.Lock()
	h.started = true
	h.mu.Unlock()
	h.all.Go(func() {
		h.findEarlier()
		h.look()
		h.stopEarlier()
		tick := time.NewTicker(lookTime)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				h.look()
			case <-h.ctx.Done():
				return
			}
		}
	})
}

// Close ends all connections. The VMs keep the states that they have: their QEMUs
// run on. It must come before the store's.
func (h *Hosts) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.all.Wait()
}

// Stats count the QEMUs.
type Stats struct {
	Connected    int // those of which a VM is known
	Unresponsive int // of those, and of the sockets that gave no greeting
	// Silent is the path of an unresponsive one's socket, the first by name; "": there is none.
	Silent string
}

// Stats are the QEMUs as they are now.
func (h *Hosts) Stats() (st Stats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	silent := func(path string) {
		st.Unresponsive++
		if path != "" && (st.Silent == "" || path < st.Silent) {
			st.Silent = path
		}
	}
	for _, l := range h.links {
		if l.quiet.Load() {
			silent(l.path)
		}
	}
	for _, m := range h.machines {
		m.mu.Lock()
		if m.client != nil {
			st.Connected++
		}
		if m.silent {
			silent(m.path)
		}
		m.mu.Unlock()
	}
	return st
}

// spawn runs f in a goroutine that Close waits for; false: it is too late.
func (h *Hosts) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.all.Go(f)
	}
	return !h.closed
}

// machine is the VM's, or nil when no QEMU was ever seen of it.
func (h *Hosts) machine(uuid string) *machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.machines[uuid]
}

// Owns tells whether the VM's state is its QEMU's here: a socket has the VM, or had it and
// is not known to have lost it.
func (h *Hosts) Owns(uuid string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.machines[uuid]; m != nil && m.claimed() {
		return true
	}
	for _, vms := range h.earlier {
		if slices.Contains(vms, uuid) {
			return true
		}
	}
	return false
}

// Runs tells whether the VM's QEMU here says that its guest runs, or has said so to the
// process before this one and was not asked yet. One that does not answer says nothing.
func (h *Hosts) Runs(uuid string) bool {
	if m := h.machine(uuid); m != nil && m.claimed() {
		return m.running()
	}
	c := h.cfg.Tree.Store().Cell(uuid)
	if c == nil || !h.Owns(uuid) {
		return false
	}
	v := c.VM()
	return v != nil && v.State() == stateRunning
}

// expected is the machine of a VM that had a QEMU when the process before this one ended,
// for fids that are restored before Start has looked for its socket; nil: it had none.
func (h *Hosts) expected(c *store.Cell) *machine {
	v := c.VM()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started || v == nil || v.Text(vm.PropQMPSocket) == "" {
		return nil
	}
	if m := h.machines[c.UUID()]; m != nil {
		return m // another goroutine was faster
	}
	m := newMachine(c.UUID())
	h.machines[m.uuid] = m
	return m
}

// claim makes l the link of the VM's QEMU. Where another link has the VM, owner is its
// path, and ended is closed when it releases the VM.
func (h *Hosts) claim(uuid string, l *link) (m *machine, owner string, ended <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m = h.machines[uuid]
	if m == nil {
		m = newMachine(uuid)
		h.machines[uuid] = m
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.path != "" {
		return nil, m.path, m.ended
	}
	m.path, m.ended = l.path, make(chan struct{})
	return m, "", nil
}

// release undoes claim.
func (h *Hosts) release(m *machine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.path = ""
	close(m.ended)
	if h.cfg.Tree.Store().Cell(m.uuid) == nil {
		delete(h.machines, m.uuid)
	}
}

// committed is told of every change of a VM. One that is created while its QEMU is
// connected is to get its state; of one that is deleted nothing is kept.
func (h *Hosts) committed(c store.Committed) {
	if c.Before != nil && c.After != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.machines[c.Cell.UUID()]
	switch {
	case m == nil:
	case c.Before == nil:
		m.lookAgain()
	case !m.claimed():
		delete(h.machines, m.uuid)
	}
}
