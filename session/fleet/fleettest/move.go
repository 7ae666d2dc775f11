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

// Stops has the VM's host stop as planned, again and again, with a guest as in Move. The next
// process of the host has its session, also where the one between was never asked for it,
// and so has another host that claims the VM of one that is stopped.
func Stops(t testing.TB, open func(name string) *Host, uuid string) {
	t.Helper()
	h := open("a")
	Create(h, uuid)
	g := NewGuest(h, uuid, 1)
	if !g.Lock() {
		t.Fatal("the log cannot be locked")
	}
	var want strings.Builder
	next := []string{"a", "a a", "b", "b"}
	for i, names := range next {
		line := fmt.Sprintf("under way %d\n", i)
		want.WriteString(line)
		number := g.Append(line)
		for _, name := range strings.Fields(names) {
			h.Stop()
			h = open(name)
		}
		if h.Store.Cell(uuid) == nil {
			h.Claim(uuid)
		}
		g.HungUp()
		g.Resume(h, number, line)
		if other := NewGuest(h, uuid, 0); other.Lock() {
			t.Errorf("stop %d: the lock was lost", i)
		}
	}
	g.Append("end\n")
	g.Appended()
	g.Events(len(next) + 1)
	if got := Log(h, uuid); got != want.String()+"end\n" {
		t.Errorf("the log is\n%s, want\n%send", got, want.String())
	}
	if n := strings.Count(g.events, `"key-set"`); n != len(next)+1 {
		t.Errorf("%d changes were told of, %d were made:\n%s", n, len(next)+1, g.events)
	}
}
