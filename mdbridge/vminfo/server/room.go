package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"meta9/fs/vm"
)

// What the requests of one listener may take of the daemon at a time. Those past it
// wait their turn, each at most turnTime.
const (
	maxSmallBytes = 32 << 20         // of answers that are made and sent
	maxLargeBytes = 64 << 20         // the same, of those over largeBytes each
	maxQueries    = 2                // whose filters are tried
	turnTime      = 10 * time.Second // that a request waits
	queryTime     = 10 * time.Second // that the filters of one query may take

	largeBytes = 1 << 20
	listBytes  = 256 << 10 // that a list counts for at least: it keeps VMs as they were
)

// entrance is one listener: what it lets its clients have, and the room that there is
// for their requests. Listeners share none, so that those of the network cannot lock
// the admin's socket. Large answers have a room of their own, since a client that
// does not read one holds its bytes for a while.
type entrance struct {
	Access
	small, large, queries *semaphore.Weighted
}

func newEntrance(a Access) *entrance {
	return &entrance{
		Access: a,
		small:  semaphore.NewWeighted(maxSmallBytes), large: semaphore.NewWeighted(maxLargeBytes),
		queries: semaphore.NewWeighted(maxQueries),
	}
}

// room is what n bytes of answers are taken from.
func (a *entrance) room(n int64) (sem *semaphore.Weighted, weight int64) {
	if n > largeBytes {
		return a.large, min(n, maxLargeBytes)
	}
	return a.small, n
}

// turn waits for n of what sem bounds. Where that is not to be had in time it answers
// the request itself, and ok is false. Call done when it is free again.
func (s *Server) turn(w http.ResponseWriter, r *http.Request, sem *semaphore.Weighted, n int64) (done func(), ok bool) {
	ctx, cancel := context.WithTimeout(r.Context(), turnTime)
	defer cancel()
	if err := sem.Acquire(ctx, n); err != nil {
		s.refused.Add(1)
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("too many requests: this one had no turn within %v", turnTime))
		return nil, false
	}
	return func() { sem.Release(n) }, true
}

// answerBytes is about the memory that the JSON of the largest of these VMs takes while
// it is made: a byte of a value may be written as six (\u0001), and the buffer doubles
// as it grows.
func answerBytes(rows ...*vm.VM) (most int64) {
	for _, m := range rows {
		most = max(most, 12*m.Size())
	}
	return most
}
