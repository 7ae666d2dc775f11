package session

import (
	"net/netip"
	"sync"
	"time"
)

// Whoever guesses session keys or MUMBLE messages is slowed down: each try waits before
// it is judged, the longer the more tries have failed, on this connection and from this
// address. The first few are free. Who has only the address in common with a guesser
// waits addressDelay at most, and is judged like anybody else.
const (
	freeMisses   = 3
	firstDelay   = 250 * time.Millisecond // doubled with each further miss
	longestDelay = 4 * time.Second        // for a connection
	addressDelay = time.Second            // for an address
	missMemory   = 10 * time.Minute
	missTable    = 4096 // addresses that are remembered
)

// delay is how long a try waits after so many misses.
func delay(missed int) time.Duration {
	if missed < freeMisses {
		return 0
	}
	return min(longestDelay, firstDelay<<min(missed-freeMisses, 8))
}

// misses counts tries that failed by source address. It has a lock of its own, which
// is held for a few instructions.
type misses struct {
	mu sync.Mutex
	by map[netip.Prefix]*guesser
}

type guesser struct {
	count int
	last  time.Time // when the last miss was
}

// delay is how long a try from addr waits.
func (ms *misses) delay(addr string, now time.Time) time.Duration {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	g := ms.by[prefix(addr)]
	if g == nil || now.Sub(g.last) > missMemory {
		return 0
	}
	return min(addressDelay, delay(g.count))
}

// missed counts a miss.
func (ms *misses) missed(addr string, now time.Time) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	p := prefix(addr)
	g := ms.by[p]
	if g == nil || now.Sub(g.last) > missMemory {
		g = new(guesser)
		ms.remember(p, g, now)
	}
	g.count++
	g.last = now
}

// remember enters g. When the table is full, whoever missed longest ago is
// forgotten.
func (ms *misses) remember(p netip.Prefix, g *guesser, now time.Time) {
	if ms.by == nil {
		ms.by = make(map[netip.Prefix]*guesser)
	}
	if len(ms.by) >= missTable {
		var oldest netip.Prefix
		at := now
		for q, o := range ms.by {
			if o.last.Before(at) {
				oldest, at = q, o.last
			}
		}
		delete(ms.by, oldest)
	}
	ms.by[p] = g
}

// prefix is what one guesser has: an IPv4 address, or the 64 bits that an IPv6
// site hands out.
func prefix(addr string) netip.Prefix {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if a = a.Unmap(); a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits) // bits fit either family
	return p
}
