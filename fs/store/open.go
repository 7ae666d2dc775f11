package store

import (
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs/cpu"
	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/rarelog"
)

// Defaults of Config.
const (
	defaultBatchBytes = 1 << 20
	defaultVMEvents   = 256
	defaultRootEvents = 8192
	defaultLookEvery  = 2 * time.Second
	defaultPatience   = 10 * time.Second
	defaultWriteRate  = 1 << 20
)

// maxReported is how many damaged records Open logs one by one.
const maxReported = 100

// Store keeps the VMs. Its methods may be called from any goroutine.
type Store struct {
	cfg    Config
	engine Engine
	shared Shared // the engine, if it is one
	rate   int64  // Config.WriteRate of a Shared; 0 or less: no bound
	opened time.Time
	index  atomic.Pointer[index]
	ring   *Ring
	queue  queue
	turns  turns // the committer's
	cpu    *cpu.Scheduler

	// publish lets Snapshot find names, rows and revision at one commit. It is held
	// for the moment in which they change.
	publish sync.RWMutex
	rev     atomic.Uint64
	count   atomic.Int64
	bytes   atomic.Int64

	numbers   numbers             // the committer's
	skipped   map[string][][]byte // the committer's: damaged records, by uuid
	recorders []func(Committed)
	observers []func(Committed)
	damage    []Damage
	full      bool        // the committer's: the last batch found no room
	rare      rarelog.Log // of what guests may cause

	noNew   atomic.Pointer[error] // why no VM is created; nil: they are
	failure atomic.Pointer[error]
	hurries atomic.Bool    // the same of all VMs (Cell.hurries)
	failed  chan struct{}  // closed after failure is set
	stopped chan struct{}  // closed when the committer has returned
	looking sync.WaitGroup // lookAround
	waking  sync.WaitGroup // of crowds
	paced   paced
	closing sync.Once
	closed  error
}

// Open loads all that the engine holds and starts the committer. Damage is an
// error (IO) that names the first damaged VM and key, unless cfg.Salvage: then
// such records are skipped, logged and listed (Salvaged). They stay in the engine
// until the VM is deleted or created anew. On an error the engine is still the
// caller's to close; else it is the Store's.
func Open(e Engine, cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg.withDefaults(), engine: e, cpu: cpu.New(),
		failed: make(chan struct{}), stopped: make(chan struct{}),
	}
	if s.shared, _ = e.(Shared); s.shared != nil {
		s.rate = s.cfg.WriteRate
	}
	s.opened = s.cfg.Now()
	s.rare.Log, s.rare.Now = s.cfg.Log, s.cfg.Now
	s.queue.some.L = &s.queue.mu
	if err := s.load(); err != nil {
		return nil, err
	}
	s.ring = newRing(s.cfg.RootEvents, s.Rev())
	go s.run()
	if _, ok := e.(Looker); ok {
		s.looking.Go(s.lookAround)
	}
	return s, nil
}

// CPU is what shares the CPUs among the VMs.
func (s *Store) CPU() *cpu.Scheduler { return s.cpu }

// lookAround lets the committer check, now and then, the files that the engine writes to.
func (s *Store) lookAround() {
	every := time.NewTicker(s.cfg.LookEvery)
	defer every.Stop()
	for {
		select {
		case <-s.stopped:
			return
		case <-every.C:
			s.Submit(&Intent{Kind: look})
		}
	}
}

func (c Config) withDefaults() Config {
	if c.Limits == (vm.Limits{}) {
		c.Limits = vm.DefaultLimits
	}
	if c.BatchBytes <= 0 {
		c.BatchBytes = defaultBatchBytes
	}
	if c.VMEvents <= 0 {
		c.VMEvents = defaultVMEvents
	}
	if c.RootEvents <= 0 {
		c.RootEvents = defaultRootEvents
	}
	if c.LookEvery <= 0 {
		c.LookEvery = defaultLookEvery
	}
	if c.Patience <= 0 {
		c.Patience = defaultPatience
	}
	if c.WriteRate == 0 {
		c.WriteRate = defaultWriteRate
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// load fills the index.
func (s *Store) load() error {
	x, err := newIndex()
	if err != nil {
		return err
	}
	var failed error
	var shared []nameKey
	l := loader{engine: s.engine, whole: s.shared != nil, report: s.found, onVM: func(v *vm.VM) {
		if err := s.admit(x, v); err != nil && failed == nil {
			failed = err
		}
	}}
	l.shared = func(cid nameKey, one, other string) {
		s.warnCID(cid, one, other)
		shared = append(shared, cid)
	}
	if err := l.load(); err != nil {
		if len(s.damage) > 0 {
			return errs.New(errs.IO, "damaged data: %s; %v", s.damage[0], err)
		}
		return errs.New(errs.IO, "loading: %v", err)
	}
	if failed != nil {
		return failed
	}
	if n := len(s.damage); n > 0 && !s.cfg.Salvage && s.shared == nil {
		return errs.New(errs.IO, "damaged data: %s (%d damaged in all; salvage skips them)", s.damage[0], n)
	}
	for _, cid := range shared { // who has had it until now is not known
		if x.lookup(cid) == nil {
			continue // of three VMs
		}
		if err := x.drop(cid); err != nil {
			return errs.New(errs.IO, "index: %v", err)
		}
	}
	s.numbers, s.skipped = afterLoad(&l), l.skipped
	if s.shared != nil {
		s.numbers.share(s.shared)
	}
	s.numbers.batch = s.engine.Number("")
	s.numbers.next.rev = max(s.numbers.next.rev, s.cfg.FirstRev)
	s.rev.Store(s.numbers.next.rev - 1)
	s.index.Store(x.seal())
	return nil
}

// admit adds a loaded VM.
func (s *Store) admit(x *index, v *vm.VM) error {
	c := s.newCell(v)
	c.came = s.shared != nil
	c.vm.Store(v)
	if err := x.claim(c, nil, v); err != nil {
		return err
	}
	s.count.Add(1)
	s.bytes.Add(v.Bytes())
	return nil
}

func (s *Store) found(d Damage) {
	s.damage = append(s.damage, d)
	switch n := len(s.damage); {
	case n <= maxReported:
		s.cfg.Log.Error().Str("vm", d.VM).Str("key", d.Key).Msg("damaged: " + d.What)
	case n == maxReported+1:
		s.cfg.Log.Error().Msg("more is damaged; a check lists all")
	}
}

// Salvaged is what Open skipped.
func (s *Store) Salvaged() []Damage { return s.damage }

// Stop commits what is queued and refuses the rest: from then on nothing changes, and
// no event comes. Reads go on. It must not be called from the committer's goroutine.
func (s *Store) Stop() {
	s.queue.close()
	<-s.stopped
	s.waking.Wait()
	s.looking.Wait()
}

// Close is Stop, and closes the engine.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.Stop()
		if err := s.engine.Close(); err != nil {
			s.closed = errs.New(errs.IO, "closing: %v", err)
		}
	})
	return s.closed
}

// Submit hands over an intent; in.Done is told later. It never waits for the
// disk.
func (s *Store) Submit(in *Intent) {
	if err := s.queue.put(in); err != nil {
		in.done(Result{Err: err})
	}
}

// Do submits and waits, for tests, commands and the start; it sets in.Done. It
// must not be called from the committer's goroutine.
func (s *Store) Do(in *Intent) Result {
	done := make(chan Result, 1)
	in.Done = func(r Result) { done <- r }
	s.Submit(in)
	return <-done
}

// Err is the final failure of the engine (IO), after which all writes are
// refused with it, or nil.
func (s *Store) Err() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Failed is closed when Err becomes an error.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Observe adds a function that is told of every change, in commit order, after the change
// was acknowledged. It must be called before the first Submit.
func (s *Store) Observe(fn func(Committed)) { s.observers = append(s.observers, fn) }

// Record adds a function that is told of every change as observers are, but before the
// change is acknowledged: for those who keep events of their own, as the rings do. It must
// be called before the first Submit.
func (s *Store) Record(fn func(Committed)) { s.recorders = append(s.recorders, fn) }

// Writable is nil, or why nobody but the mirror may change a VM (ReadOnly).
func (s *Store) Writable() error {
	if s.cfg.ReadOnly == "" {
		return nil
	}
	return errs.New(errs.ReadOnly, "%s", s.cfg.ReadOnly)
}

// changes says whether the kind changes VMs.
func (k OpKind) changes() bool { return k < Note }
