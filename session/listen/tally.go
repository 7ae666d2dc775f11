package listen

import "sync/atomic"

// Tally counts connections: of one listener, or of those of all VMs that are alike. Any
// number of goroutines may use it; a nil Tally counts nothing.
type Tally struct {
	open           atomic.Int64
	begun, refused atomic.Uint64
}

// TallyStats count from the start on, but for Open, the connections that are open now.
type TallyStats struct {
	Open    int64
	Begun   uint64
	Refused uint64 // those that were not let in
}

// Begin counts a connection that is let in.
func (t *Tally) Begin() {
	if t != nil {
		t.open.Add(1)
		t.begun.Add(1)
	}
}

// End undoes the Open of Begin.
func (t *Tally) End() {
	if t != nil {
		t.open.Add(-1)
	}
}

// Refuse counts one that is not let in.
func (t *Tally) Refuse() {
	if t != nil {
		t.refused.Add(1)
	}
}

// Stats are the counts.
func (t *Tally) Stats() TallyStats {
	return TallyStats{Open: t.open.Load(), Begun: t.begun.Load(), Refused: t.refused.Load()}
}
