package fleettest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Move moves the VM, which is at a, between a and b, times moves in all. Its guest has
// open files, a lock, a read that waits and an append without an answer. It returns how
// long the moves took, the shortest first.
func Move(t testing.TB, a, b *Host, uuid string, times int) (took []time.Duration) {
	t.Helper()
	g := NewGuest(a, uuid, 1)
	if !g.Lock() {
		t.Fatal("the log cannot be locked")
	}
	var want strings.Builder
	for i := range times {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		answered, line := fmt.Sprintf("answered %d\n", i), fmt.Sprintf("under way %d\n", i)
		want.WriteString(answered + line)
		g.Append(answered)
		g.Appended()
		number := g.Append(line)
		took = append(took, to.Claim(uuid))
		g.HungUp()
		// The old owner may notice later than others that it has given the VM away.
		from.Until("the end of the VM there", func() bool { return from.Store.Cell(uuid) == nil })
		g.Resume(to, number, line)
		if other := NewGuest(to, uuid, 0); other.Lock() {
			t.Errorf("move %d: the lock was lost", i)
		}
	}
	h := a
	if times%2 == 1 {
		h = b
	}
	g.Append("end\n")
	g.Appended()
	g.Events(2*times + 1)
	if got := Log(h, uuid); got != want.String()+"end\n" {
		t.Errorf("the log is\n%s, want\n%send", got, want.String())
	}
	if n := strings.Count(g.events, `"key-set"`); n != 2*times+1 {
		t.Errorf("%d changes were told of, %d were made:\n%s", n, 2*times+1, g.events)
	}
	slices.Sort(took)
	return took
}
