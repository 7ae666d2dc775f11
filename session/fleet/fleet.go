package fleet

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/ring"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/session"
)

// Config is what New needs. Zero fields after Server take the defaults.
type Config struct {
	Member *Member
	Store  *store.Store // over the Member's cluster
	Tree   *fs.Tree
	Server *session.Server

	// Key encrypts the sessions that go with a VM; 32 bytes, the same at each host. nil:
	// they do not go along, and clients begin new ones.
	Key []byte
	// Name is the fleet's name. What is encrypted in one fleet cannot be decrypted in
	// another.
	Name string
	// Patience is how long the connection of a guest waits for its VM; 10 s.
	Patience time.Duration
	// LookOwned is how often the Fleet looks for VMs that this host owns and does not serve; 15 s.
	LookOwned time.Duration
	// Drop ends all that a VM has on this host after the VM was deleted, given away or lost.
	// It may wait. The VM is served here again only after Drop has returned. nil: only
	// Server.DropVM is called.
	Drop func(uuid string)
	// Quiet stops what else serves the VM, beside Server, while it is given away. Call again
	// when that is over, also if it has failed.
	Quiet func(uuid string) (again func())
	// Running tells that this host's hypervisor says that the VM runs here. Such a VM is not
	// given to a host that asks for it.
	Running func(uuid string) bool
	// Kept is called in Start, when all sessions are restored, before those that came with VMs
	// are deleted from the cluster: from then on they are kept here. nil: nothing.
	Kept func()
	// Changed is called when the result of Expected for the VM has changed. It must return
	// soon.
	Changed func(uuid string)
	Log     zerolog.Logger
}

// The bounds of a Fleet.
const (
	maxClaims   = 1024             // under way
	maxGiven    = 16               // requests of other hosts that are answered at once
	atOnce      = 64               // claims that take over a VM at once
	startAtOnce = 16               // VMs whose sessions a start restores at once
	lookEvery   = time.Second      // also without a hint
	freezeTime  = 10 * time.Second // to end the requests that a VM's connections have begun
	claimTime   = 30 * time.Second // for a claim that nobody waits for
	lateTime    = 15 * time.Second // how long a VM may still come after its request was deleted
	stopTime    = 2 * time.Second  // to delete a request at the end
	pauseLonger = 250 * time.Millisecond
	keptEvents  = 1024
)

// Fleet moves VMs between this host and others.
type Fleet struct {
	cfg     Config
	cluster store.Cluster
	host    string
	ctx     context.Context // ends with Stop
	end     context.CancelFunc
	poke    chan struct{}    // there may be new requests of other hosts
	taking  chan struct{}    // one item for each claim in takeOver
	came    map[string]int64 // what Restore has restored, by VM: Residence's rev; nobody's after Start
	working sync.WaitGroup

	leaseMu sync.Mutex // before mu
	stale   bool       // the last event about the lease was Stale; leaseMu guards it

	mu       sync.Mutex
	stopped  bool
	draining bool
	claims   map[string]*claim
	giving   map[string]chan struct{} // by VM; closed when it was given, or cannot be
	dropping map[string]chan struct{} // by VM; closed when Drop has returned
	expected map[string]*expectation
	damaged  map[string]string // by VM of this host's that is not served: what is wrong with its records
	waiting  map[string]int    // connections that wait, by VM
	events   *ring.Ring[Event]
	last     uint64 // the newest event's position
	tally    Status // only the counters
}

// New makes a Fleet that does nothing yet. It must see all changes of the store, so call
// it before the store's first Submit.
func New(cfg Config) *Fleet {
	cfg.Patience = cmp.Or(cfg.Patience, 10*time.Second)
	cfg.LookOwned = cmp.Or(cfg.LookOwned, 15*time.Second)
	if cfg.Drop == nil {
		cfg.Drop = cfg.Server.DropVM
	}
	if cfg.Quiet == nil {
		cfg.Quiet = func(string) func() { return func() {} }
	}
	if cfg.Running == nil {
		cfg.Running = func(string) bool { return false }
	}
	if cfg.Kept == nil {
		cfg.Kept = func() {}
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string) {}
	}
	f := &Fleet{
		cfg: cfg, cluster: cfg.Member.cfg.Cluster, host: cfg.Member.Host(),
		poke: make(chan struct{}, 1), taking: make(chan struct{}, atOnce), came: make(map[string]int64),
		claims: make(map[string]*claim), giving: make(map[string]chan struct{}), dropping: make(map[string]chan struct{}),
		expected: make(map[string]*expectation), waiting: make(map[string]int), damaged: make(map[string]string),
		events: ring.New(ring.Config[Event]{Items: keptEvents, Position: func(e *Event) uint64 { return e.Position }}, 0),
	}
	f.noteDamagedAtStart()
	f.ctx, f.end = context.WithCancel(context.Background())
	cfg.Store.Record(f.committed) // runs before handOver returns from the store
	lapsed, check := f.lapsed, f.letGo
	cfg.Member.lapsed.Store(&lapsed)
	cfg.Member.check.Store(&check)
	return f
}

// letGo ends the Cells of VMs that other hosts own by now, or have owned meanwhile. This host
// has its lease again, so no other host can take one of its VMs from now on.
func (f *Fleet) letGo(ctx context.Context) error {
	var cells []*store.Cell // listed before Mine is asked: a Cell that comes later is this host's
	f.cfg.Store.Cells(0, func(c *store.Cell) bool {
		cells = append(cells, c)
		return true
	})
	mine, err := f.cluster.Mine(ctx)
	if err != nil {
		return err
	}
	for _, c := range cells {
		if mine[c.UUID()] {
			continue
		}
		if err := f.cfg.Store.Elsewhere(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends all claims, answers no more requests, and waits for what is under way.
func (f *Fleet) Stop() {
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	f.end()
	f.working.Wait()
}

// hint lets the Fleet look for requests now, and wakes all claims.
func (f *Fleet) hint() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// comes begins a claim of a VM that is this host's by now: another host has given it, unasked.
func (f *Fleet) comes(uuid string) {
	_, _ = f.claiming(uuid, true) // if it fails, the next look of serveOwned begins it again
}

// look answers other hosts' requests, once a second and at each hint, until Stop.
func (f *Fleet) look() {
	f.repeat(f.poke, func(hinted bool) {
		if hinted {
			f.wakeClaims()
		} else {
			f.sweep(time.Now())
		}
		f.answerAsks()
	})
}

// serveOwned begins claims of the VMs that this host owns and does not serve, until Stop. Such a VM
// was given to this host while nothing watched (comes): the process before had asked for it, and it
// came after this process had listed its VMs. Two looks must find it so: a VM that is just being made
// is not one of them.
func (f *Fleet) serveOwned() {
	every := time.NewTicker(f.cfg.LookOwned)
	defer every.Stop()
	var before map[string]bool
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-every.C:
		}
		damaged := f.damagedNow()
		ctx, cancel := context.WithTimeout(f.ctx, f.cfg.Patience)
		all, err := f.cluster.Mine(ctx)
		cancel()
		if err != nil {
			continue
		}
		f.forgetDamaged(damaged, all)
		now := make(map[string]bool)
		for uuid := range all {
			switch {
			case f.cfg.Store.Cell(uuid) != nil:
			case before[uuid]:
				f.comes(uuid)
			default:
				now[uuid] = true
			}
		}
		before = now
	}
}

// watchLease checks once a second, until Stop, whether this host is still sure of its lease, and
// whether it is fenced. It has a goroutine of its own, because look may wait for the cluster.
func (f *Fleet) watchLease() {
	f.repeat(nil, func(bool) {
		f.tellStale()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.refuseNew()
	})
}

// repeat calls do once a second, and at each of hints, until Stop.
func (f *Fleet) repeat(hints <-chan struct{}, do func(hinted bool)) {
	every := time.NewTicker(lookEvery)
	defer every.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-hints:
			do(true)
		case <-every.C:
			do(false)
		}
	}
}

// tellStale adds an event when this host becomes unsure of its lease.
func (f *Fleet) tellStale() {
	f.leaseMu.Lock()
	defer f.leaseMu.Unlock()
	if since, unsure := f.cfg.Member.Since(); unsure {
		f.addStale(since)
	}
}

// addStale adds that event, unless it was added. Fleet.leaseMu is held.
func (f *Fleet) addStale(since time.Time) {
	if f.stale {
		return
	}
	f.stale = true
	f.tell(Event{Type: Stale, Since: since, What: "this host has no lease: reads may be old since " + since.UTC().Format(time.RFC3339)})
}

// lapsed is called by the Member when it is sure again, with since when it was not. So each
// such time has its two events, however short it was.
func (f *Fleet) lapsed(since time.Time) {
	f.leaseMu.Lock()
	defer f.leaseMu.Unlock()
	f.addStale(since)
	f.stale = false
	f.count(func(s *Status) { s.Lapses++ })
	f.tell(Event{Type: Current, Since: since})
}

// committed runs in the committer.
func (f *Fleet) committed(c store.Committed) {
	if c.After != nil {
		return
	}
	uuid := c.Cell.UUID()
	left := c.Changes[len(c.Changes)-1].Type == vm.Left
	done := make(chan struct{})
	f.mu.Lock()
	before := f.dropping[uuid] // the earlier VM with this UUID may still be ending
	f.dropping[uuid] = done
	_, given := f.giving[uuid]
	if left && !f.cfg.Member.Fenced() { // else its guest could not bring it back, and would wait in vain
		f.expect(uuid, c.Before, leftFor)
	} else {
		delete(f.expected, uuid)
	}
	f.mu.Unlock()
	go func() {
		if before != nil {
			<-before
		}
		f.cfg.Drop(uuid)
		f.mu.Lock()
		if f.dropping[uuid] == done {
			delete(f.dropping, uuid)
		}
		f.mu.Unlock()
		close(done)
		if left && !given {
			f.count(func(s *Status) { s.Lost++ })
			f.tell(Event{Type: Lost, VM: uuid, What: "another host has taken it"})
		}
	}()
}

// Where returns the VM's owner. NotFound: no host of the fleet has the VM.
func (f *Fleet) Where(ctx context.Context, uuid string) (store.Owner, error) {
	return f.cluster.Owner(ctx, uuid)
}

// Named returns the VM that has the alias, of any owner. NotFound: none has it.
func (f *Fleet) Named(ctx context.Context, alias string) (uuid string, err error) {
	return f.cluster.Named(ctx, alias)
}

// Hosts lists the hosts that are alive or fenced, by name.
func (f *Fleet) Hosts(ctx context.Context) ([]store.HostInfo, error) { return f.cluster.Hosts(ctx) }

// Fence declares a host dead, so that its VMs can be claimed at once. Call it only if you
// know that the host does not run. If it runs all the same, its process cannot rejoin the
// fleet until it is restarted. Errors: NotFound: it is not alive; Invalid: it is this
// host.
func (f *Fleet) Fence(ctx context.Context, host string) error {
	if host == f.host {
		return errs.New(errs.Invalid, "the host %q would fence itself: stop meta9d there", host)
	}
	err := f.cluster.Fence(ctx, host)
	if err == nil {
		f.tell(Event{Type: Fenced, To: host})
	}
	return err
}

// Status is this host's state in its fleet.
type Status struct {
	Host       string
	Sure       bool      // it has its lease
	StaleSince time.Time // not Sure: reads may be old since then
	Why        error     // not Sure: why the lease is not refreshed, if that is known
	Draining   bool
	Fenced     bool
	VMs        int
	Expected   int // VMs of other hosts, with sockets here
	Claiming   int
	Giving     int

	// Counters, since the start.
	Taken, Claimed         int64 // VMs that a living owner gave; VMs of a dead owner, or of nobody
	Given, Refused, Failed int64 // VMs given to others; requests refused; hand-overs that failed
	Lost                   int64 // VMs that another host has taken
	Lapses                 int64 // times without the lease, which are over
	Sessions, SessionsLost int64 // that came with VMs
}

// Status returns the state of this moment.
func (f *Fleet) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.tally
	since, unsure := f.cfg.Member.Since()
	s.Host, s.Sure, s.StaleSince, s.Fenced = f.host, !unsure, since, f.cfg.Member.Fenced()
	if unsure {
		s.Why = f.cfg.Member.Why()
	}
	s.Draining, s.VMs = f.draining, f.cfg.Store.Count()
	s.Expected, s.Claiming, s.Giving = len(f.expected), len(f.claims), len(f.giving)
	return s
}

func (f *Fleet) count(change func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.tally)
}
