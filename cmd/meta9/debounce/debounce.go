// Package debounce makes one run of several changes: of those that come within a moment of each
// other, and of those that come during the run before. `meta9 watch` and `meta9 agent` need it.
// Any number of goroutines may say that something came; one waits.
package debounce

import (
	"context"
	"sync"
	"time"
)

// Changes are what came and was not dealt with yet. Make them by New.
type Changes struct {
	quiet time.Duration
	wake  chan struct{} // holds one thing while there is something to do

	mu   sync.Mutex
	last time.Time // when something came last
}

// New makes Changes that are dealt with when none has come for quiet, but after ten times as
// long at the latest.
func New(quiet time.Duration) *Changes {
	return &Changes{quiet: quiet, wake: make(chan struct{}, 1)}
}

// Came says that something came.
func (c *Changes) Came() {
	c.mu.Lock()
	c.last = time.Now()
	c.mu.Unlock()
	c.Now()
}

// Now says that there is something to do, for which nothing more need be waited for.
func (c *Changes) Now() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Wait waits for something to do, but no longer than pause (0: for ever), after which what has
// failed is tried again; then until nothing more comes. What has come by then is in this run.
// false: ctx has ended.
func (c *Changes) Wait(ctx context.Context, pause time.Duration) bool {
	var again <-chan time.Time
	if pause > 0 {
		again = time.After(pause)
	}
	select {
	case <-c.wake:
	case <-again:
	case <-ctx.Done():
		return false
	}
	for end := time.Now().Add(10 * c.quiet); ; {
		c.mu.Lock()
		left := min(c.quiet-time.Since(c.last), time.Until(end))
		c.mu.Unlock()
		if left <= 0 {
			break
		}
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return false
		}
	}
	select {
	case <-c.wake:
	default:
	}
	return true
}
