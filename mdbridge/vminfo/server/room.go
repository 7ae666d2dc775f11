package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"meta9/fs/budget"
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
//
// What answers take is counted in the daemon's memory, too: the admin's on a unix socket,
// elsewhere one account of all networks' clients.
type endpoint struct {
	Access
	small, large, queries *semaphore.Weighted
	bytes                 *budget.Account
}

// network is the account of the clients of all networks, which no VM's UUID can be.
const network = "http"

func newEndpoint(a Access, b *budget.Budget) *endpoint {
	bytes := b.Admin()
	if a.Addr != nil && a.Addr.Network() != "unix" {
		bytes = b.Account(network).Unasked() // held as long as the daemon runs
	}
	return &endpoint{
		Access: a, bytes: bytes,
		small: semaphore.NewWeighted(maxSmallBytes), large: semaphore.NewWeighted(maxLargeBytes),
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

// take waits for n of sem, and for as much of the account if sem is that of large answers.
// The caller calls done when it needs them no more.
func (a *endpoint) take(ctx context.Context, sem *semaphore.Weighted, n int64) (done func(), err error) {
	if err := sem.Acquire(ctx, n); err != nil {
		return nil, err
	}
	if sem == a.queries {
		return func() { sem.Release(n) }, nil
	}
	counted := min(n, a.bytes.Share())
	if sem == a.small {
		a.bytes.Force(counted) // large ones must not hold them up
	} else if err := a.bytes.Await(ctx, counted); err != nil {
		sem.Release(n)
		return nil, err
	}
	return func() {
		a.bytes.Release(counted)
		sem.Release(n)
	}, nil
}

// turn waits for n of sem. After turnTime it answers the request with an error, and ok is
// false. The caller calls done when it needs the n no more.
func (s *Server) turn(w http.ResponseWriter, r *http.Request, a *endpoint, sem *semaphore.Weighted, n int64) (done func(), ok bool) {
	ctx, cancel := context.WithTimeout(r.Context(), turnTime)
	defer cancel()
	done, err := a.take(ctx, sem, n)
	if err != nil {
		s.refused.Add(1)
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("too many requests: this one had no turn within %v", turnTime))
		return nil, false
	}
	return done, true
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
