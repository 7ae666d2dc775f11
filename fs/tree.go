package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs/budget"
	"meta9/fs/cpu"
	"meta9/fs/store"
)

// Config is what a Tree is told. Zero fields take the defaults.
type Config struct {
	Budget  *budget.Budget   // of the bytes that open files hold beside the store; nil: none
	Log     zerolog.Logger   // what the verbs of ctl did, at debug level
	Now     func() time.Time // time.Now
	Version string           // of the program, for /ctl
	Status  func() string    // more lines for /ctl, each "name value" and LF; may be nil
	Trouble func() error     // what is wrong beside the store, for the health of /ctl; may be nil

	// VMStatus gives more lines for the ctl of a VM; may be nil.
	VMStatus func(uuid string) string

	// Made sees to it that a VM that was created has its channels, and calls done
	// then; the ctl that created it is answered after that. It runs in the store's
	// committer. nil: there is nothing to wait for.
	Made func(uuid string, done func())
}

// Tree is the tree over one store. Grafts and verbs are added before the first
// View; from then on a Tree may be used by any number of goroutines.
type Tree struct {
	store   *store.Store
	cfg     Config
	started time.Time

	rootGrafts []rootGraft
	vmGrafts   []vmGraft
	vmVerbs    verbs
	rootVerbs  verbs

	opens   opens
	lengths lengths
	unended unended
	later   later
	mtime   atomic.Int64 // of the newest commit, for the folders of the root
}

// New makes the tree of the store, which it observes: call it before the store's
// first Submit.
func New(st *store.Store, cfg Config) *Tree {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t := &Tree{
		store: st, cfg: cfg, started: cfg.Now(),
		vmVerbs:   verbs{"update": updateVM, "delete": deleteVM},
		rootVerbs: verbs{"create": createVM, "update": updateUUID, "delete": deleteUUID, "import": importVM},
		opens:     opens{tables: make(map[*store.Cell]*openTable), paid: make(map[*budget.Account]*openTable), limit: st.Limits().Bytes, budget: cfg.Budget},
	}
	if cfg.Budget != nil {
		cfg.Budget.OnFull(t.opens.evict)
	}
	t.mtime.Store(t.started.UnixNano())
	st.Observe(t.committed)
	return t
}

// Store is the store under the tree.
func (t *Tree) Store() *store.Store { return t.store }

// CPU is the share of the CPUs that who works with, whatever the channel; follows: he has
// a stream of events open.
func (t *Tree) CPU(who Principal, follows bool) *cpu.Share {
	switch {
	case who.Admin && follows:
		return t.store.CPU().Followers()
	case who.Admin:
		return t.store.CPU().Admin()
	}
	if c := t.store.Cell(who.VM); c != nil {
		return c.CPU()
	}
	return t.store.CPU().Nobody()
}

// committed runs in the committer for every VM that a batch changed.
func (t *Tree) committed(c store.Committed) {
	if c.After == nil {
		t.lengths.forget(c.Cell)
	} else {
		t.mtime.Store(c.After.Mtime)
	}
	t.opens.committed(c)
}

// lengths remembers how long each VM's vm.json is, as admin and guest see it,
// since a stat tells the true length and Linux asks for one at every look-up.
//
// One at a time measures for all who ask.
type lengths struct {
	mu sync.Mutex
	of map[lengthKey]*length
}

type lengthKey struct {
	cell  *store.Cell
	guest bool
}

type length struct {
	measuring sync.Mutex // guards the rest
	rev       uint64
	bytes     int
}

// get is the length at that revision of the VM; it calls measure when nobody has
// asked since the VM changed.
func (l *lengths) get(k lengthKey, rev uint64, measure func() int) int {
	l.mu.Lock()
	known := l.of[k]
	if known == nil {
		if l.of == nil {
			l.of = make(map[lengthKey]*length)
		}
		known = new(length)
		l.of[k] = known
	}
	l.mu.Unlock()
	known.measuring.Lock()
	defer known.measuring.Unlock()
	if known.rev != rev {
		known.rev, known.bytes = rev, measure()
	}
	if k.cell.VM() == nil { // it was forgotten, maybe before this
		l.forget(k.cell)
	}
	return known.bytes
}

func (l *lengths) forget(c *store.Cell) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, lengthKey{c, false})
	delete(l.of, lengthKey{c, true})
}

// GiveBack is for budget.Budget.OnShortage: the old values that the VM has open are
// dropped, and their readers find the newest.
func (t *Tree) GiveBack(vm string) {
	if c := t.store.Cell(vm); c != nil {
		t.opens.giveBack(c)
	}
}
