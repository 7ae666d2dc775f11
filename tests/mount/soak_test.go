//go:build soak

package mount

import (
	"fmt"
	"strings"
	"testing"

	"meta9/tests/guest"
	"meta9/tests/guest/kernel"
	"meta9/tests/soak"
)

// TestSoak does all that this package tests of meta9 mount on the kernel that tests boot, on
// the oldest and on the newest, and then on those between. FUSE on the suite's cloud kernel
// comes first: it is what make test cuts less often.
func TestSoak(t *testing.T) {
	suites := []string{kernel.Default, "bullseye", "sid", "trixie", "forky"}
	tests := []struct {
		name string
		do   func(t *testing.T)
	}{
		{"cloud", TestCloud},
		{"life", TestLife},
		{"plain", TestPlain},
		{"lost", TestLost},
		{"broken", TestBroken},
	}
	p := soak.Begin(t)
	*seed = p.Seed
	effort.fuseCuts, freshWrites = 200, 1000
	passed := make(map[string][]string) // the names of tests, by suite
	for i := p.From(0); p.More(); i++ {
		suite, test := suites[i/len(tests)%len(suites)], tests[i%len(tests)]
		*guest.Kernel = suite
		if !t.Run(suite+"/"+test.name, test.do) {
			return
		}
		passed[suite] = append(passed[suite], test.name)
		p.Figure(suite, strings.Join(passed[suite], ", "))
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
