//go:build soak

package guest

import (
	"fmt"
	"testing"

	"meta9/tests/guest/kernel"
	"meta9/tests/guest/machine"
	"meta9/tests/soak"
)

// TestSoak tries the kernel of each suite, the oldest first, as TestKernel does, but
// looks at all keys of a large folder one by one, and opens a key 10,000 times in each
// dialect while it is replaced 5, 50 or 500 times a second, and counts to 500 from two
// mounts. A round is one kernel at one
// rate and takes about ten minutes. The first five rounds see every kernel and every
// rate, 15 rounds every kernel at every rate.
func TestSoak(t *testing.T) {
	rates := []int{5, 50, 500}
	effort.keys, effort.opens, effort.counts = maxKeys, 10_000, 250
	p := soak.Begin(t)
	for i := p.From(0); p.More(); i++ {
		lap := i / len(kernel.Suites)
		suite, rate := kernel.Suites[i%len(kernel.Suites)], rates[(i+2*lap)%len(rates)]
		effort.rates = []int{rate}
		version := kernel.ErrGone.Error()
		t.Run(fmt.Sprintf("%s/%d", suite, rate), func(t *testing.T) { version = tryKernel(t, suite) })
		p.Figure(fmt.Sprintf("%s at %d/s", suite, rate), version)
		p.Stopped(i + 1)
	}
}

// TestSoakTransactions counts in one key from the shells of two guests of one VM.
func TestSoakTransactions(t *testing.T) {
	effort.counts = 250
	p := soak.Begin(t)
	one := bootKernel(t, kernel.Default)
	two := *one
	two.Guest = Boot(t, machine.Options{Connect: "tcp:" + one.few.TCPAddrs[0], Via: machine.User, Debian: true})
	recipes := readRecipes(t)
	for i := p.From(0); p.More(); i++ {
		version := dialects[i%len(dialects)]
		t.Run(fmt.Sprint(version, i), func(t *testing.T) {
			m, other := one.mount(t, one.few, version), two.mount(t, two.few, version)
			install(t, m, "", recipes)
			install(t, other, "other-", recipes)
			m.ok(t, "printf 0 >n")
			counters(t, m, other)
		})
		p.Figure("counted", (i+1)*2*effort.counts)
		p.Stopped(i + 1)
	}
}
