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
	"meta9/session"
)

// After a busy time (many connections, a large value) the heap holds unused memory until
// the next collection. Without allocations that comes after two minutes, and the system
// gets the memory back even later. So a daemon that has become quiet collects once and
// returns the memory to the system.
const (
	quietTime  = 10 * time.Second
	quietBytes = 1 << 20 // allocated in quietTime; more is busy
)

// lull detects the end of a busy time.
type lull struct {
	last uint64 // bytes ever allocated, when it was asked last
	busy bool
}

// due is called every quietTime with the number of bytes that were ever allocated. True: a
// busy time has just ended.
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

// stackBytes is about what a connection gives up when it falls asleep (package session).
// That counts as allocated: nothing else may happen by which its memory is returned.
const stackBytes = 4 << 10

// freeMemory runs until ctx ends. asleep is how many connections sleep. Output buffers that
// nobody needs go also while the daemon is busy: some VM may have it so all the time.
func freeMemory(ctx context.Context, asleep func() int) {
	tick := time.NewTicker(quietTime)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var t lull
	most := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		most = max(most, asleep()) // beyond it, they come and go
		freed := session.FreeBuffers()
		if t.due(sample[0].Value.Uint64() + uint64(most)*stackBytes) {
			debug.FreeOSMemory()
		} else if freed > quietBytes {
			t.busy = true // or they wait for the next collection
		}
	}
}

// By default Go lets garbage grow to as much as there is live memory, so that limits.memory
// would bound only half of the heap. Here the garbage before a collection is at most a
// quarter of the live memory that a collection must scan for pointers, which is what it
// costs; a sixteenth of the rest, such as large values; half of what is neither requests' of
// VMs nor small, such as a large store or the streams of an admin; and freeGarbage. It is
// never more than twice the live memory: a collection of a small heap costs as much as one
// of the program's own data.
const (
	freeGarbage = 14 << 20
	small       = 128 << 20
)

// gcPercent is GOGC for live bytes, of which scan bytes may hold pointers, and of which the
// requests of VMs hold held.
func gcPercent(live, scan, held int64) int {
	if live <= 0 {
		return 100
	}
	scan = min(scan, live)
	garbage := scan/4 + (live-scan)/16 + max(0, live-held-small)/2 + freeGarbage
	return int(max(10, min(200, 100*garbage/live)))
}

// gcMark is an object without references: its finalizer runs after each collection.
type gcMark struct{ _ [16]byte }

// paceGC sets GOGC after each collection, until stop, unless the environment sets GOGC.
func paceGC(b *budget.Budget) (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	var ended atomic.Bool
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
	was := debug.SetGCPercent(100)
	now := 100
	var pace func(*gcMark)
	arm := func() { runtime.SetFinalizer(new(gcMark), pace) }
	pace = func(*gcMark) {
		if ended.Load() {
			return
		}
		metrics.Read(sample)
		if p := gcPercent(int64(sample[0].Value.Uint64()), int64(sample[1].Value.Uint64()), b.Stats().Used); p < now-now/8 || p > now+now/8 {
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
