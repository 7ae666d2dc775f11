package session

import (
	"fmt"
	"testing"
	"time"
)

// TestMisses: the first are free, then the waits double up to a bound, for this
// address alone, and all is forgotten in time.
func TestMisses(t *testing.T) {
	var ms misses
	now := time.Unix(1e9, 0)
	waits := func(addr string, want time.Duration) {
		t.Helper()
		if wait := ms.delay(addr, now); wait != want {
			t.Errorf("%s waits %v, want %v", addr, wait, want)
		}
	}
	for range freeMisses {
		waits("192.0.2.1", 0)
		ms.missed("192.0.2.1", now)
	}
	waits("192.0.2.1", firstDelay)
	waits("192.0.2.1", firstDelay) // not one behind the other
	waits("192.0.2.2", 0)
	now = now.Add(time.Minute)
	ms.missed("192.0.2.1", now)
	waits("192.0.2.1", 2*firstDelay)
	for range 100 {
		ms.missed("192.0.2.1", now)
	}
	waits("::ffff:192.0.2.1", addressDelay)
	now = now.Add(missMemory + time.Second)
	waits("192.0.2.1", 0)
	if d := delay(1 << 40); d != longestDelay {
		t.Errorf("a connection waits %v after very many misses", d)
	}
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
	for i := range missTable + 256 {
		now = now.Add(time.Millisecond)
		ms.missed(fmt.Sprintf("10.0.%d.%d", i>>8, i&255), now)
	}
	if n := len(ms.by); n != missTable {
		t.Errorf("%d addresses are remembered", n)
	}
	if ms.by[prefix("10.0.16.255")] == nil || ms.by[prefix("10.0.0.0")] != nil {
		t.Error("the wrong ones are remembered")
	}
}
