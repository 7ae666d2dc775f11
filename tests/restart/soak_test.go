//go:build soak

package restart

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

// TestSoak: the rounds are of the kinds of the tests here, most of them of TestMixed.
func TestSoak(t *testing.T) {
	p := soak.Begin(t)
	*restarts, *updates, *kills = 20, 10, 50
	kinds := []struct {
		name string
		do   func(t *testing.T)
	}{{"mixed", TestMixed}, {"killed", TestKilled}, {"mixed again", TestMixed}, {"planned", TestPlanned}, {"mixed once more", TestMixed}, {"updated", TestLiveUpdate}}
	planned, updated, killed := 0, 0, 0
	for i := p.From(0); p.More(); i++ {
		mixedSeed = p.Seed<<20 + uint64(i)
		kind := kinds[i%len(kinds)]
		if !t.Run(fmt.Sprint(i, " ", kind.name), kind.do) {
			return
		}
		switch kind.name {
		case "killed":
			killed += *kills
		case "planned":
			planned += *restarts
		case "updated":
			updated += *updates
		}
		p.Stopped(i + 1)
		m := &mixedSum
		p.Figure("kills", killed+m.kills)
		p.Figure("planned restarts", planned+m.restarts)
		p.Figure("live updates", updated+m.updates)
		p.Figure("sessions of session/client resumed in the mixed rounds", m.resumed)
		p.Figure("requests under way at a kill that were done, and answered by a receipt", foundDone+m.receipts)
		p.Figure("that were not done, state 3", foundUndone+m.undone)
		p.Figure("sent once more in 9P2000.e", m.again)
		p.Figure("mixed rounds: changes of session/client, each once", m.changes)
		p.Figure("events, none lost", m.events)
		p.Figure("steps of programs under meta9 mount", m.lines)
		p.Figure("commands", m.commands)
		p.Figure("longest pause of an update", longestPause)
		if m.kills > 0 && (m.resumed == 0 || foundDone+m.receipts == 0 || foundUndone+m.undone == 0) {
			t.Errorf("nothing was hit: %+v", *m)
		}
	}
}
