//go:build soak

package linear

import (
	"testing"
	"time"

	"meta9/tests/soak"
)

// TestSoakLinear is TestLinear for as long as a part is, with another seed and a new
// data folder each minute.
func TestSoakLinear(t *testing.T) {
	p := soak.Begin(t)
	var all, kills int
	var drops int64
	for i := uint64(0); p.More(); i++ {
		end := time.Now().Add(min(time.Minute, p.Left()))
		seed := p.Seed<<32 + i
		ops, w := run(t, seed, func(int) bool { return time.Now().Before(end) })
		if t.Failed() {
			t.Logf("seed %d", seed)
			return
		}
		all, kills, drops = all+ops, kills+len(w.dead), drops+w.drops.Load()
		p.Figure("operations", all)
		p.Figure("seeds", i+1)
		p.Figure("kills", kills)
		p.Figure("lost connections", drops)
		p.Figure("anomalies", 0)
		w.srv.Kill()
	}
}
