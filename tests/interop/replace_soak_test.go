//go:build soak

package interop

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

// TestSoakReplaced is TestReplaced with 10,000 opens of each way, at 5, 50 and 500
// replacements a second in turn.
func TestSoakReplaced(t *testing.T) {
	p := soak.Begin(t)
	paces := []int{5, 50, 500}
	var opens, replacements int64
	for i := p.From(0); p.More(); i++ {
		pace := paces[i%len(paces)]
		t.Run(fmt.Sprintf("%d a second", pace), func(t *testing.T) {
			read, written := replaced(t, pace, 10_000)
			opens, replacements = opens+read, replacements+written
		})
		p.Stopped(i + 1)
		p.Figure("opens", opens)
		p.Figure("replacements", replacements)
	}
}
