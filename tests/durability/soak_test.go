//go:build soak

package durability

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

func TestSoakKill(t *testing.T) {
	p := soak.Begin(t)
	done := 0
	for i := uint64(0); p.More(); i++ {
		*seed = p.Seed<<32 + i
		if !t.Run(fmt.Sprint(*seed), TestKill) {
			return
		}
		done += *kills
		p.Figure("kills", done)
		p.Figure("last seed", *seed)
	}
}
