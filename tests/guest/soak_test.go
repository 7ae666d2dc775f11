//go:build soak

package guest

import (
	"fmt"
	"testing"

	"meta9/tests/guest/kernel"
	"meta9/tests/soak"
)

// TestSoak tries the kernel of each suite, the oldest first, as TestKernel does, but
// looks at all keys of a large folder one by one, and opens a key 10,000 times in each
// dialect: in a round at 5 replacements a second, then at 50, then at 500. A round
// takes about ten minutes.
func TestSoak(t *testing.T) {
	rates := []int{5, 50, 500}
	effort.keys, effort.opens = maxKeys, 10_000
	p := soak.Begin(t)
	for i := p.From(0); p.More(); i++ {
		suite, rate := kernel.Suites[i/len(rates)%len(kernel.Suites)], rates[i%len(rates)]
		effort.rates = []int{rate}
		version := kernel.ErrGone.Error()
		t.Run(fmt.Sprintf("%s/%d", suite, rate), func(t *testing.T) { version = tryKernel(t, suite) })
		p.Figure(fmt.Sprintf("%s at %d/s", suite, rate), version)
		p.Stopped(i + 1)
	}
}
