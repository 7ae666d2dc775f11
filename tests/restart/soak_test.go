//go:build soak

package restart

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

func TestSoak(t *testing.T) {
	p := soak.Begin(t)
	*restarts = 100
	for i := p.From(0); p.More(); i++ {
		if !t.Run(fmt.Sprint(i), TestPlanned) {
			return
		}
		p.Stopped(i + 1)
		p.Figure("restarts", (i+1)**restarts)
	}
}
