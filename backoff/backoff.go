// Package backoff makes the pauses between the tries of what fails. It keeps nothing:
// whoever tries counts his tries.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the longest that the first and the last pauses take; each is twice as
// long as the one before.
type Backoff struct{ First, Last time.Duration }

// Pause is how long to wait after so many tries: not at all after 0. A random part of
// up to half is taken off, so that those who failed together do not try together.
func (b Backoff) Pause(tries int) time.Duration {
	if tries == 0 {
		return 0
	}
	pause := min(b.First<<min(tries-1, 16), b.Last)
	return pause - rand.N(pause/2)
}

// Wait waits for Pause; false: ctx ended.
func (b Backoff) Wait(ctx context.Context, tries int) bool {
	pause := b.Pause(tries)
	if pause == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
