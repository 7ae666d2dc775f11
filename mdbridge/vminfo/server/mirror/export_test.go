package mirror

import "time"

// SetPings sets how often the upstream is asked for /ping, and how long it may take.
// It is called before Run.
func (m *Mirror) SetPings(every, patience time.Duration) { m.every, m.patience = every, patience }

// SetMost sets how many VMs it takes. It is called before Run.
func (m *Mirror) SetMost(n int) { m.most = n }

// Clash is clash, of a Mirror that does not run.
func (m *Mirror) Clash(uuid string, text []byte) { m.clash(uuid, text) }

// Waiting is how many VMs wait for their names, and how many bytes they have.
func (m *Mirror) Waiting() (vms, bytes int) { return len(m.clashes), m.waiting }

// The bounds of what waits.
const (
	MaxClashes    = maxClashes
	MaxClashBytes = maxClashBytes
)
