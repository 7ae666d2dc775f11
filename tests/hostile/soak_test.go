//go:build soak

package hostile

import (
	"testing"
	"time"

	"meta9/tests/soak"
)

// TestSoakSessions is TestSessions for as long as one likes, in rounds of half a minute
// after each of which everything must be given back.
func TestSoakSessions(t *testing.T) {
	p := soak.Begin(t)
	f := newFuzzed(t)
	before, err := f.goroutines()
	if err != nil {
		t.Fatal(err)
	}
	var most, sessions int64
	many := 0
	for i := p.From(0); p.More(); i++ {
		stop := make(chan struct{})
		sampled := make(chan struct{})
		go func() {
			defer close(sampled)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
				}
				if n, err := f.goroutines(); err == nil {
					many = max(many, n)
				}
				anon, _ := f.Anon()
				most = max(most, anon)
			}
		}()
		f.round(p.Seed, uint64(i), min(30*time.Second, max(p.Left(), time.Second)))
		close(stop)
		<-sampled
		f.settled(before)
		sessions = f.said.Load()
		// 64 connections of each VM and protocol, with what each may need.
		if limit := before + hostileVMs*3*(64+64); many > limit {
			t.Errorf("%d goroutines, and %d is what the connections that there may be need", many, limit)
		}
		p.Stopped(i + 1)
		p.Figure("sessions", sessions)
		p.Figure("most memory, MiB", most>>20)
		p.Figure("most goroutines", many)
	}
}
