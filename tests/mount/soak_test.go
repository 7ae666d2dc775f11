//go:build soak

package mount

import (
	"fmt"
	"testing"

	"meta9/tests/guest"
	"meta9/tests/guest/kernel"
	"meta9/tests/soak"
)

// TestSoak does all that this package tests of meta9 mount on the oldest and on the
// newest kernel, and then on those between.
func TestSoak(t *testing.T) {
	suites := []string{"bullseye", "sid", "trixie", "forky", kernel.Default}
	tests := []struct {
		name string
		do   func(t *testing.T)
	}{
		{"life", TestLife},
		{"plain", TestPlain},
		{"lost", TestLost},
		{"broken", TestBroken},
	}
	p := soak.Begin(t)
	*seed = p.Seed
	effort.fuseCuts, freshWrites = 200, 1000
	for i := p.From(0); p.More(); i++ {
		suite, test := suites[i/len(tests)%len(suites)], tests[i%len(tests)]
		*guest.Kernel = suite
		t.Run(suite+"/"+test.name, test.do)
		p.Figure(suite, fmt.Sprint(i%len(tests)+1, " of ", len(tests)))
		p.Stopped(i + 1)
	}
}

// TestSoakMoments is what a guest sees of its own and of meta9d's moments: it is set back 20
// times under load, and meta9d is updated 50 times under its mounts.
func TestSoakMoments(t *testing.T) {
	p := soak.Begin(t)
	randomSetBacks, *updates = 20, 50
	back, updated := 0, 0
	for i := p.From(0); p.More(); i++ {
		*seed = p.Seed<<20 + uint64(i)
		if !t.Run(fmt.Sprint(i, " set back"), TestSetBack) || !t.Run(fmt.Sprint(i, " updated"), TestUpdated) {
			return
		}
		back, updated = back+setBacks+randomSetBacks, updated+*updates
		p.Stopped(i + 1)
		p.Figure("set back", back)
		p.Figure("live updates", updated)
		p.Figure("longest pause of an update", longestUpdate)
	}
}
