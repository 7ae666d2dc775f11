//go:build soak

package crash

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

// TestSoakImages has every system call fail in turn, and then makes images, each thousand
// of a trace of its own.
func TestSoakImages(t *testing.T) {
	p := soak.Begin(t)
	*failures = 0
	if !t.Run("calls", TestFailingCalls) {
		return
	}
	done := 0
	for i := uint64(0); p.More(); i++ {
		*seed = p.Seed<<32 + i
		if !t.Run(fmt.Sprint(*seed), TestImages) {
			return
		}
		done += *images
		p.Figure("images", done)
		p.Figure("last seed", *seed)
	}
}
