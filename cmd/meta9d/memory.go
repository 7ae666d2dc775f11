package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"meta9/fs/budget"
)

// After a busy time (many connections, a large value) the heap holds what is no
// longer used until the next collection, which without allocations is two minutes
// away, and the system gets it back later still. So a daemon that has become
// quiet collects once and gives all back at once.
const (
	quietTime  = 10 * time.Second
	quietBytes = 1 << 20 // allocated in quietTime; more is busy
)

// lull tells when a busy time is over.
type lull struct {
	last uint64 // bytes ever allocated, when it was asked last
	busy bool
}

// due is asked every quietTime with the bytes that were ever allocated.
func (t *lull) due(allocated uint64) bool {
	delta := allocated - t.last
	t.last = allocated
	if delta > quietBytes {
		t.busy = true
		return false
	}
	was := t.busy
	t.busy = false
	return was
}

// freeMemory runs until ctx ends.
func freeMemory(ctx context.Context) {
	tick := time.NewTicker(quietTime)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var t lull
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		if t.due(sample[0].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}

// A heap of which half is garbage is no bound that could be given. So the garbage that
// may gather before a collection is: half of what stays, as the store does, an eighth
// of what requests hold, which is large pieces that cost a collection little, and some
// that is always allowed. It is never more than what Go would allow.
const freeGarbage = 16 << 20

// gcPercent is GOGC for so many bytes that live, of which requests hold some.
func gcPercent(live, held int64) int {
	if live <= 0 {
		return 100
	}
	held = min(held, live)
	garbage := (live-held)/2 + held/8 + freeGarbage
	return int(max(10, min(100, 100*garbage/live)))
}

// gcMark is garbage, whose finalizer runs after each collection.
type gcMark struct{ _ [16]byte }

// paceGC sets GOGC anew after each collection, until stop, unless the environment has.
func paceGC(b *budget.Budget) (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	var ended atomic.Bool
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	was := debug.SetGCPercent(100)
	now := 100
	var pace func(*gcMark)
	arm := func() { runtime.SetFinalizer(new(gcMark), pace) }
	pace = func(*gcMark) {
		if ended.Load() {
			return
		}
		metrics.Read(sample)
		if p := gcPercent(int64(sample[0].Value.Uint64()), b.Stats().Used); p < now-now/8 || p > now+now/8 {
			now = p
			debug.SetGCPercent(p)
		}
		arm()
	}
	arm()
	return func() {
		ended.Store(true)
		debug.SetGCPercent(was)
	}
}
