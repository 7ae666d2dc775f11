//go:build soak

package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"meta9/tests/soak"
)

// TestSoakMigrations has a guest migrate 20 times a round.
func TestSoakMigrations(t *testing.T) {
	const moves = 20
	p := soak.Begin(t)
	var beyond []time.Duration
	var rest time.Duration
	for i := p.From(0); p.More(); i++ {
		ok := t.Run(fmt.Sprint(i), func(t *testing.T) {
			m := newMigrated(t, p.Seed<<20+uint64(i))
			m.cancelled()
			rest = max(rest, m.rest())
			for range moves {
				beyond = append(beyond, m.move().beyond)
			}
			m.end()
		})
		if !ok {
			return
		}
		p.Stopped(i + 1)
		slices.Sort(beyond)
		p.Figure("migrations", len(beyond))
		p.Figure("pause beyond QEMU's own, p50", beyond[len(beyond)/2])
		p.Figure("p99", beyond[(len(beyond)*99+99)/100-1])
		p.Figure("longest", beyond[len(beyond)-1])
		p.Figure("an append at rest, longest", rest)
	}
}
