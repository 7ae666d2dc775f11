// Package cluster tests meta9 over real etcd clusters, whose members can be killed and stopped. It is
// a module of its own: etcd's server brings some 130 modules.
package cluster

import (
	"syscall"
	"testing"
	"time"

	"meta9/tests/cluster/members"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) {
	members.Serve()
	testenv.Main(m)
}

// cluster is an etcd cluster of the test's.
type cluster struct {
	*members.Cluster
	t *testing.T
}

// fast is for start.
func fast(c *members.Config) { c.NoSync = true }

// start starts a cluster of n members, which ends with the test.
func start(t *testing.T, n int, change ...func(*members.Config)) *cluster {
	t.Helper()
	cfg := members.Config{TickMS: 50}
	for _, f := range change {
		f(&cfg)
	}
	c, err := members.New(t.TempDir(), n, cfg, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.KillAll)
	return &cluster{c, t}
}

// run starts a member, and waits until it serves.
func (c *cluster) run(i int) {
	c.t.Helper()
	if err := c.StartOne(i); err != nil {
		c.t.Fatal(err)
	}
}

// signal stops (SIGSTOP) or continues (SIGCONT) a member.
func (c *cluster) signal(i int, s syscall.Signal) {
	c.t.Helper()
	if err := c.Signal(i, s); err != nil {
		c.t.Fatal(err)
	}
}
