package mirror

import "time"

// SetPings sets how often the upstream is asked for /ping, and how long it may take.
// It is called before Run.
func (m *Mirror) SetPings(every, patience time.Duration) { m.every, m.patience = every, patience }
