package debounce

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWait looks at when a run begins, by the clock.
func TestWait(t *testing.T) {
	const quiet = 100 * time.Millisecond
	for _, tt := range []struct {
		what  string
		pause time.Duration
		do    func(c *Changes)
		took  time.Duration
	}{
		{"one", 0, func(c *Changes) { c.Came() }, quiet},
		{"at once", 0, func(c *Changes) { c.Now() }, 0},
		{"two", 0, func(c *Changes) { c.Came(); time.Sleep(quiet / 2); c.Came() }, 3 * quiet / 2},
		{"without end", 0, func(c *Changes) {
			for range 100 {
				c.Came()
				time.Sleep(quiet / 2)
			}
		}, 10 * quiet},
		{"none, after a failure", time.Second, func(*Changes) {}, time.Second},
		{"one, after a failure", time.Hour, func(c *Changes) { c.Came() }, quiet},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(quiet)
				time.Sleep(time.Minute) // what came last is long ago
				began := time.Now()
				var doing sync.WaitGroup
				defer doing.Wait()
				doing.Go(func() { tt.do(c) })
				if !c.Wait(t.Context(), tt.pause) || time.Since(began) != tt.took {
					t.Errorf("it took %v, want %v", time.Since(began), tt.took)
				}
			})
		})
	}
}

// TestWaitOnce: what came before the run, and while it was waited for, is one.
func TestWaitOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(time.Second)
		c.Came()
		c.Came()
		if !c.Wait(t.Context(), 0) {
			t.Fatal("the context has not ended")
		}
		ctx, end := context.WithTimeout(t.Context(), time.Hour)
		defer end()
		if c.Wait(ctx, 0) {
			t.Error("a second run")
		}
		c.Came()
		if c.Wait(ctx, 0) {
			t.Error("a run after the end")
		}
	})
}
