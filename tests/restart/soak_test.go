//go:build soak

package restart

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

func TestSoak(t *testing.T) {
	p := soak.Begin(t)
	*restarts, *updates, *kills = 20, 10, 50
	for i := p.From(0); p.More(); i++ {
		if !t.Run(fmt.Sprintf("%d-restarts", i), TestPlanned) || !t.Run(fmt.Sprintf("%d-updates", i), TestLiveUpdate) ||
			!t.Run(fmt.Sprintf("%d-kills", i), TestKilled) || !t.Run(fmt.Sprintf("%d-idle", i), TestKilledIdle) {
			return
		}
		p.Stopped(i + 1)
		p.Figure("restarts", (i+1)**restarts)
		p.Figure("kills", (i+1)**kills)
		p.Figure("requests under way at a kill that were done, and answered by a receipt", foundDone)
		p.Figure("requests that were not done, state 3", foundUndone)
		p.Figure("live updates", (i+1)**updates)
		p.Figure("longest pause of an update", longestPause)
	}
}
