package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"meta9/fs/vm"
)

// What the requests at one endpoint may use at a time. Further requests wait their turn,
// each at most turnTime.
const (
	maxSmallBytes = 32 << 20         // of answers that are made and sent
	maxLargeBytes = 64 << 20         // the same, of those over largeBytes each
	maxQueries    = 2                // queries whose filters are being applied
	turnTime      = 10 * time.Second // that a request waits
	queryTime     = 10 * time.Second // that the filters of one query may take

	largeBytes = 1 << 20
	listBytes  = 256 << 10 // the least that a list counts for: it keeps old VMs in memory
)

// endpoint is one socket that is served: what its clients may have, and the room for
// their requests. Endpoints share no room, so that clients of the network cannot block
// the admin's socket. Large answers have a room of their own, since a client that does
// not read its answer holds the bytes for a while.
type endpoint struct {
	Access
	small, large, queries *semaphore.Weighted
}

func newEndpoint(a Access) *endpoint {
	return &endpoint{
		Access: a,
		small:  semaphore.NewWeighted(maxSmallBytes), large: semaphore.NewWeighted(maxLargeBytes),
		queries: semaphore.NewWeighted(maxQueries),
	}
}

// room is the semaphore for an answer of n bytes.
func (a *endpoint) room(n int64) (sem *semaphore.Weighted, weight int64) {
	if n > largeBytes {
		return a.large, min(n, maxLargeBytes)
	}
	return a.small, n
}

// turn waits for n of sem. After turnTime it answers the request with an error, and ok is
// false. The caller calls done when it needs the n no more.
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
