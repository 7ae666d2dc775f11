package backoff_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"meta9/backoff"
)

func TestPause(t *testing.T) {
	b := backoff.Backoff{First: 100 * time.Millisecond, Last: time.Second}
	for tries, longest := range map[int]time.Duration{0: 0, 1: b.First, 2: 2 * b.First, 4: 8 * b.First, 5: b.Last, 1 << 40: b.Last} {
		for range 100 {
			if p := b.Pause(tries); p > longest || p < longest/2 {
				t.Errorf("after %d tries %v, at most %v", tries, p, longest)
			}
		}
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b := backoff.Backoff{First: 500 * time.Millisecond, Last: time.Hour}
		if begin := time.Now(); !b.Wait(ctx, 0) || !b.Wait(ctx, 1) || time.Since(begin) < b.First/2 {
			t.Errorf("waited for %v", time.Since(begin))
		}
		if begin := time.Now(); b.Wait(ctx, 9) || time.Since(begin) > time.Second {
			t.Errorf("waited for %v past the end", time.Since(begin))
		}
		if b.Wait(ctx, 0) {
			t.Error("no pause, though ctx has ended")
		}
	})
}
