//go:build soak

package structure

import (
	"fmt"
	"testing"

	"meta9/tests/soak"
)

// TestSoakImages makes images, each thousand of folders of its own.
func TestSoakImages(t *testing.T) {
	p := soak.Begin(t)
	*images = 1000
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
