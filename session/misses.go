package session

import (
	"net/netip"
	"sync"
	"time"
)

// Misses slow down who guesses keys: the first few are free, then each look-up
// from that address waits, whether it will miss or not, and the wait doubles.
const (
	freeMisses   = 3
	firstDelay   = 250 * time.Millisecond
	longestDelay = 4 * time.Second
	longestQueue = 16 * time.Second // look-ups of one address that wait longer than this miss at once
	missMemory   = 10 * time.Minute
	missTable    = 4096 // addresses that are remembered
)

// misses counts look-ups that found nothing by source address. It has a lock of
// its own, which is held for a few instructions.
type misses struct {
	mu sync.Mutex
	by map[netip.Prefix]*guesser
}

type guesser struct {
	count int
	next  time.Time // when the next look-up may be
	last  time.Time // when the last miss was
}

// turn is how long a look-up from addr has to wait; false: too many wait already.
func (ms *misses) turn(addr string, now time.Time) (wait time.Duration, ok bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	g := ms.by[prefix(addr)]
	if g == nil || g.count < freeMisses || now.Sub(g.last) > missMemory {
		return 0, true
	}
	at := g.next
	if at.Before(now) {
		at = now
	}
	if at.Sub(now) > longestQueue {
		return 0, false
	}
	g.next = at.Add(g.delay())
	return g.next.Sub(now), true
}

// delay is the time between two look-ups.
func (g *guesser) delay() time.Duration {
	return min(longestDelay, firstDelay<<min(g.count-freeMisses, 8))
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
