package session

import (
	"fmt"
	"testing"
	"time"
)

// TestMisses: the first are free, then the waits double up to a bound, for this
// address alone; what waits too long is refused; and all is forgotten in time.
func TestMisses(t *testing.T) {
	var ms misses
	now := time.Unix(1e9, 0)
	turn := func(addr string, want time.Duration) {
		t.Helper()
		wait, ok := ms.turn(addr, now)
		if !ok || wait != want {
			t.Errorf("%s waits %v %v, want %v", addr, wait, ok, want)
		}
	}
	for range freeMisses {
		turn("192.0.2.1", 0)
		ms.missed("192.0.2.1", now)
	}
	turn("192.0.2.1", firstDelay)
	turn("192.0.2.1", 2*firstDelay) // after the one that waits already
	turn("192.0.2.2", 0)
	now = now.Add(time.Minute)
	ms.missed("192.0.2.1", now)
	turn("192.0.2.1", 2*firstDelay)
	for range 100 {
		ms.missed("192.0.2.1", now)
	}
	now = now.Add(time.Minute)
	turn("::ffff:192.0.2.1", longestDelay)
	for range 3 {
		ms.turn("192.0.2.1", now)
	}
	ms.turn("192.0.2.1", now)
	if wait, ok := ms.turn("192.0.2.1", now); ok {
		t.Errorf("a queue of %v is not too long", wait)
	}
	now = now.Add(missMemory + time.Second)
	turn("192.0.2.1", 0)
}

// TestMissesPrefix: an IPv6 site has many addresses and counts as one; whoever has
// no address shares one count.
func TestMissesPrefix(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"fe80::1%eth0", "fe80::1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"", "nonsense", true},
	} {
		if same := prefix(c.a) == prefix(c.b); same != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, same)
		}
	}
}

// TestMissesBounded: the table keeps those who missed last.
func TestMissesBounded(t *testing.T) {
	var ms misses
	now := time.Unix(1e9, 0)
	for i := range 2 * missTable {
		now = now.Add(time.Millisecond)
		ms.missed(fmt.Sprintf("10.0.%d.%d", i>>8, i&255), now)
	}
	if n := len(ms.by); n != missTable {
		t.Errorf("%d addresses are remembered", n)
	}
	if ms.by[prefix("10.0.31.255")] == nil || ms.by[prefix("10.0.0.0")] != nil {
		t.Error("the wrong ones are remembered")
	}
}
