package fleet_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/session/fleet"
)

// awayCluster is a cluster that loses the lease, and then does not answer, while away.
type awayCluster struct {
	store.Cluster
	away  atomic.Bool
	tries chan struct{} // to join
}

func (c *awayCluster) Refresh(ctx context.Context) (time.Duration, error) {
	if c.away.Load() {
		return 0, errs.New(errs.NotFound, "no lease")
	}
	return c.Cluster.Refresh(ctx)
}

func (c *awayCluster) Join(ctx context.Context, h store.HostInfo, ttl time.Duration) error {
	if c.away.Load() {
		select {
		case c.tries <- struct{}{}:
		case <-ctx.Done():
		}
		return errs.New(errs.Busy, "the cluster does not answer")
	}
	return c.Cluster.Join(ctx, h, ttl)
}

// TestAwayIsNotFenced: a host whose cluster does not answer after its lease was lost has not
// been fenced by anybody.
func TestAwayIsNotFenced(t *testing.T) {
	c := &awayCluster{Cluster: storetest.NewFleet().Host("a"), tries: make(chan struct{})}
	m, err := fleet.Join(t.Context(), fleet.MemberConfig{Cluster: c, Host: "a", Instance: "1", TTL: 2 * time.Second, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Leave(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	c.away.Store(true)
	for range 2 { // when the second comes, what the first got is judged
		select {
		case <-c.tries:
		case <-time.After(time.Minute):
			t.Fatal("the host does not try to join again")
		}
	}
	if m.Fenced() {
		t.Error("it says that it is fenced")
	}
	c.away.Store(false)
}
