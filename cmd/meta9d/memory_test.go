package main

import "testing"

// TestLull: once after each busy time, and never while it lasts.
func TestLull(t *testing.T) {
	const some, much = quietBytes / 2, 2 * quietBytes
	var l lull
	var allocated uint64
	for i, step := range []struct {
		delta uint64
		due   bool
	}{
		{0, false},
		{some, false}, // never busy
		{much, false},
		{much, false},
		{some, true},
		{some, false},
		{0, false},
		{much, false},
		{0, true},
		{0, false},
	} {
		allocated += step.delta
		if due := l.due(allocated); due != step.due {
			t.Errorf("step %d: due %v", i, due)
		}
	}
}
