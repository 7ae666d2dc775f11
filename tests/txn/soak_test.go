//go:build soak

package txn

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

func TestSoak(t *testing.T) {
	p := soak.Begin(t)
	*adds = 10_000
	for i := p.From(0); p.More(); i++ {
		if !t.Run(fmt.Sprint(i), TestCounter) {
			return
		}
		p.Figure("adds", (i+1)**adds)
		p.Stopped(i + 1)
	}
}
