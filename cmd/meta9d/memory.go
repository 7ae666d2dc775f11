package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
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
