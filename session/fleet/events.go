package fleet

import (
	"time"

	"meta9/fs/ring"
)

// The types of events.
const (
	Taken    = "vm-taken"    // this host got it from its living owner
	Claimed  = "vm-claimed"  // this host took it from a dead owner, or from nobody
	Given    = "vm-given"    // to another host
	Lost     = "vm-lost"     // another host has taken it
	Refused  = "ask-refused" // a request of another host
	Failed   = "failed"      // a hand-over to another host
	Fenced   = "fenced"
	Stale    = "stale"             // the lease is not sure: reads may be old from Since on
	Current  = "current"           // the lease is sure again
	Sessions = "sessions-restored" // at the start, of a VM that came before
)

// Event is one thing that happened to this host in its fleet.
type Event struct {
	Position uint64 // grows, also over restarts: Unix microseconds
	Date     time.Time
	Type     string
	VM       string // UUID
	From, To string // hosts
	What     string
	Sessions int           // that went with the VM
	Took     time.Duration // until the VM was served, or had left
	Since    time.Time     // of Stale and Current
}

// Events returns the newest events.
func (f *Fleet) Events() *ring.Ring[Event] { return f.events }

// tell adds an event and logs it.
func (f *Fleet) tell(e Event) {
	f.mu.Lock()
	e.Date = time.Now()
	f.last = max(f.last+1, uint64(e.Date.UnixMicro()))
	e.Position = f.last
	woken := f.events.Add(e, nil)
	f.mu.Unlock()
	for _, w := range woken {
		w.Wake()
	}
	line := f.cfg.Log.Info()
	if e.Type == Failed || e.Type == Lost || e.Type == Stale {
		line = f.cfg.Log.Warn()
	}
	if e.VM != "" {
		line = line.Str("vm", e.VM)
	}
	if e.From != "" || e.To != "" {
		line = line.Str("from", e.From).Str("to", e.To)
	}
	if e.Took > 0 {
		line = line.Int("sessions", e.Sessions).Dur("took", e.Took)
	}
	if e.What != "" {
		line = line.Str("what", e.What)
	}
	line.Msg("fleet: " + e.Type)
}
