//go:build soak

package oracle

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

func TestSoak(t *testing.T) {
	p := soak.Begin(t)
	done := 0
	for i := uint64(0); p.More(); i++ {
		*seed = p.Seed<<32 + i
		if !t.Run(fmt.Sprint(*seed), TestOracle) {
			return
		}
		done += requests
		p.Figure("requests", done)
		p.Figure("last seed", *seed)
	}
}
