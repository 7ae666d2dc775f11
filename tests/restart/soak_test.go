//go:build soak

package restart

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

func TestSoak(t *testing.T) {
	p := soak.Begin(t)
	*restarts, *updates = 20, 10
	for i := p.From(0); p.More(); i++ {
		if !t.Run(fmt.Sprintf("%d-restarts", i), TestPlanned) || !t.Run(fmt.Sprintf("%d-updates", i), TestLiveUpdate) {
			return
		}
		p.Stopped(i + 1)
		p.Figure("restarts", (i+1)**restarts)
		p.Figure("live updates", (i+1)**updates)
		p.Figure("longest pause of an update", longestPause)
	}
}
