package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// MemberConfig says who this host is.
type MemberConfig struct {
	Cluster   store.Cluster
	Host      string   // its name in the cluster
	Addresses []string // of its admin's listeners, for the admins of other hosts
	Version   string   // of meta9d
	// Instance identifies this meta9d. It stays the same over a restart, and two processes
	// that run at the same time never have the same: a process with the same Instance takes
	// over its predecessor's lease at once.
	Instance string
	TTL      time.Duration // of the lease; 5 s, and at least 2 s
	Log      zerolog.Logger
}

// The times of a lease.
const (
	defaultTTL = 5 * time.Second
	leastTTL   = 2 * time.Second
	sureBefore = time.Second // this long before its end the lease is not relied on any more
	perTTL     = 3           // refreshes per TTL
)

// Member is this host's place in the fleet. Its methods may be called from any goroutine.
type Member struct {
	cfg    MemberConfig
	mu     sync.Mutex
	info   store.HostInfo // mu guards it
	untold atomic.Bool    // the cluster may not have info yet
	until  atomic.Int64   // machineTime up to which the lease is sure, in nanoseconds
	fenced atomic.Bool
	why    atomic.Pointer[error] // of the last refresh; nil: it was answered
	lapsed atomic.Pointer[func(since time.Time)]
	check  atomic.Pointer[func(context.Context) error] // ends what is no longer this host's; nil: it serves nothing yet
	lost   bool                                        // the lease was lost, and check has not succeeded since; only keep's goroutine uses it
	end    context.CancelFunc
	ended  chan struct{}
}

// Join makes this host a living member of the fleet. If an earlier process of another
// Instance has the name, it waits for up to the TTL and a second. Errors: Exists: another
// meta9d has the name; and the cluster's.
func Join(ctx context.Context, cfg MemberConfig) (*Member, error) {
	if cfg.TTL == 0 {
		cfg.TTL = defaultTTL
	}
	if cfg.TTL < leastTTL {
		return nil, errs.New(errs.Invalid, "a lease of %v is too short, %v is the least", cfg.TTL, leastTTL)
	}
	m := &Member{cfg: cfg, ended: make(chan struct{}), info: store.HostInfo{
		Host: cfg.Host, Addresses: cfg.Addresses, Version: cfg.Version, Instance: cfg.Instance, Boot: rand.Text(),
	}}
	patience := time.Now().Add(cfg.TTL + time.Second)
	for {
		err := m.join(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, errs.Exists) || time.Now().After(patience) {
			return nil, err
		}
		select {
		case <-time.After(cfg.TTL / (2 * perTTL)):
		case <-ctx.Done():
			return nil, err
		}
	}
	ctx, m.end = context.WithCancel(context.Background())
	go m.keep(ctx)
	return m, nil
}

// machineTime reads the clock that nobody sets and that goes on while the machine sleeps
// (clock_gettime(2), CLOCK_BOOTTIME), in nanoseconds.
func machineTime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // never fails for this clock
	return ts.Nano()
}

func (m *Member) join(ctx context.Context) error {
	from := machineTime()
	if err := m.cfg.Cluster.Join(ctx, m.says(), m.cfg.TTL); err != nil {
		return err
	}
	if !m.lost {
		m.lives(from, m.cfg.TTL)
	}
	return nil
}

// lives notes that the lease lasts at least ttl from the given machineTime on. If the host was
// not sure until now, it calls lapsed.
func (m *Member) lives(from int64, ttl time.Duration) {
	was := m.until.Swap(from + int64(ttl-min(sureBefore, ttl/4)))
	over := machineTime() - was
	if tell := m.lapsed.Load(); tell != nil && over >= 0 {
		(*tell)(time.Now().Add(-time.Duration(over)))
	}
}

// says is what this host says of itself.
func (m *Member) says() store.HostInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info
}

// drains tells the other hosts whether this one is being drained. After an error they are told
// when the cluster answers.
func (m *Member) drains(ctx context.Context, is bool) error {
	m.mu.Lock()
	m.info.Draining = is
	m.untold.Store(true)
	m.mu.Unlock()
	return m.tell(ctx)
}

// tell has the cluster know what this host says of itself now.
func (m *Member) tell(ctx context.Context) error {
	for {
		said := m.says()
		if err := m.cfg.Cluster.Tell(ctx, said); err != nil {
			return err
		}
		m.mu.Lock()
		same := said.Draining == m.info.Draining
		if same {
			m.untold.Store(false)
		}
		m.mu.Unlock()
		if same {
			return nil
		}
	}
}

// keep refreshes the lease until ctx ends.
func (m *Member) keep(ctx context.Context) {
	defer close(m.ended)
	every := time.NewTicker(m.cfg.TTL / perTTL)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		m.refresh(ctx)
	}
}

// refresh extends the lease, or takes a new one if it is lost. Without a lease other hosts
// may have taken VMs; so the host is sure of a new lease only after it has ended what it
// has of these (check).
func (m *Member) refresh(ctx context.Context) {
	try, cancel := context.WithTimeout(ctx, m.cfg.TTL/2)
	defer cancel()
	from := machineTime()
	ttl, err := m.cfg.Cluster.Refresh(try)
	m.notice(err)
	if errors.Is(err, errs.NotFound) {
		m.lost = true
		m.until.Store(min(m.until.Load(), from))
		m.joinAnew(try)
		return
	}
	if err != nil {
		return // the lease may still be there
	}
	if m.lost {
		check := m.check.Load()
		if check == nil {
			return // New (Fleet) was not called yet
		}
		err = (*check)(try)
	}
	if err == nil {
		m.lost = false
		m.lives(from, ttl)
	}
	if err == nil && m.untold.Load() {
		_ = m.tell(try) // else the next refresh does it
	}
}

// notice notes the result of a refresh, for Why.
func (m *Member) notice(err error) {
	if err == nil {
		m.why.Store(nil)
		return
	}
	m.why.Store(&err)
}

// Why returns why the last refresh of the lease failed; nil: it did not.
func (m *Member) Why() error {
	if err := m.why.Load(); err != nil {
		return *err
	}
	return nil
}

// joinAnew takes a new lease; the refresh after it makes the host sure of it.
func (m *Member) joinAnew(ctx context.Context) {
	err := m.join(ctx)
	m.notice(err)
	const out = "this host is out of its fleet: it serves what it has from memory until another host claims the VM, and every change is refused from then on"
	switch {
	case err == nil:
		m.fenced.Store(false)
		m.cfg.Log.Warn().Str("host", m.cfg.Host).Msg("this host's lease was lost, and it has a new one: others may have taken its VMs")
		m.refresh(ctx)
	case errors.Is(err, errs.Exists):
		m.cfg.Log.Error().Err(err).Msg(out)
	case errors.Is(err, errs.Moved):
		if !m.fenced.Swap(true) {
			m.cfg.Log.Error().Err(err).Msg(out)
		}
		if check := m.check.Load(); check != nil {
			_ = (*check)(ctx) // else the next refresh does it
		}
	}
}

// Host is this host's name.
func (m *Member) Host() string { return m.cfg.Host }

// Instance is what this process and the next one have in common (MemberConfig).
func (m *Member) Instance() string { return m.cfg.Instance }

// Sure tells that this host has its lease, so that no other host has taken one of its VMs.
func (m *Member) Sure() bool { return machineTime() < m.until.Load() }

// Since returns since when the host is not sure of its lease; false: it is sure.
func (m *Member) Since() (time.Time, bool) {
	over := machineTime() - m.until.Load()
	if over < 0 {
		return time.Time{}, false
	}
	return time.Now().Add(-time.Duration(over)), true
}

// Fresh returns nil if what this host has in memory of its VMs is what the cluster has.
// Otherwise the error, an IO, says since when it may be old. It only reads a clock.
func (m *Member) Fresh() error {
	since, unsure := m.Since()
	if !unsure {
		return nil
	}
	return errs.New(errs.IO, "this host has had no answer of its fleet's cluster since %s, and what it has may be old", since.UTC().Format(time.RFC3339))
}

// Fenced tells that the cluster refuses this process a lease, because somebody has fenced
// this host (Fleet.Fence).
func (m *Member) Fenced() bool { return m.fenced.Load() }

// Leave ends the lease, so that others may take this host's VMs at once. Call it once,
// when this process makes no changes any more.
func (m *Member) Leave(ctx context.Context) error {
	m.end()
	<-m.ended
	m.until.Store(0)
	return m.cfg.Cluster.Leave(ctx)
}

// StopRefresh ends the refreshing and leaves the lease as it is: the next process of the same
// Instance takes it over (a live update), or it expires and the host counts as dead.
func (m *Member) StopRefresh() {
	m.end()
	<-m.ended
}
