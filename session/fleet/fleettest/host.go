// Package fleettest makes hosts of a fleet in one process, and guests that move between
// them, for tests over any store.Cluster.
package fleettest

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/budget"
	"meta9/fs/store"
	"meta9/session"
	"meta9/session/fleet"
)

// Patience is how long a test waits for an event that must come.
const Patience = 30 * time.Second

// Engine is what a host needs of its cluster.
type Engine interface {
	store.Shared
	store.Cluster
}

// Host is a host, without listeners.
type Host struct {
	T      testing.TB
	Name   string
	Engine Engine
	Member *fleet.Member
	Store  *store.Store
	Server *session.Server
	Fleet  *fleet.Fleet

	budget *budget.Budget
	served sync.WaitGroup
	over   bool
}

// Open starts a host, which ends with the test. change may change its configuration.
func Open(t testing.TB, e Engine, name string, change func(*fleet.MemberConfig, *fleet.Config)) *Host {
	t.Helper()
	h := &Host{T: t, Name: name, Engine: e, budget: budget.New(budget.Limits{})}
	mc := fleet.MemberConfig{Cluster: e, Host: name, Instance: name, Version: "test", Addresses: []string{"test:" + name}, Log: zerolog.Nop()}
	cfg := fleet.Config{Key: make([]byte, 32), Name: "test", Log: zerolog.Nop()}
	if change != nil {
		change(&mc, &cfg)
	}
	var err error
	if h.Member, err = fleet.Join(t.Context(), mc); err != nil {
		t.Fatal(err)
	}
	if h.Store, err = store.Open(e, store.Config{}); err != nil {
		t.Fatal(err)
	}
	tree := fs.New(h.Store, fs.Config{Log: zerolog.Nop(), Budget: h.budget})
	h.Server = session.New(session.Config{Tree: tree, Log: zerolog.Nop(), Lifetime: time.Hour, Budget: h.budget, Silence: 10 * time.Millisecond})
	cfg.Member, cfg.Store, cfg.Tree, cfg.Server = h.Member, h.Store, tree, h.Server
	h.Fleet = fleet.New(cfg)
	if err := h.Fleet.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Fleet.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// Close stops the host in the right order.
func (h *Host) Close() {
	if h.over {
		return
	}
	h.over = true
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	h.Fleet.Stop()
	if err := h.Server.Drain(ctx); err != nil {
		h.T.Errorf("host %s: drain: %v", h.Name, err)
	}
	h.served.Wait()
	h.Store.Stop()
	if err := h.Member.Leave(ctx); err != nil {
		h.T.Errorf("host %s: leave: %v", h.Name, err)
	}
	if err := h.Store.Close(); err != nil {
		h.T.Errorf("host %s: close: %v", h.Name, err)
	}
}

// Stop ends the host as a planned stop does: it leaves the sessions of its VMs.
func (h *Host) Stop() {
	h.T.Helper()
	h.over = true
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := h.Server.Freeze(ctx); err != nil {
		h.T.Errorf("host %s: freeze: %v", h.Name, err)
	}
	h.Fleet.Stop()
	h.served.Wait()
	h.Store.Stop()
	if _, lost, why := h.Fleet.Leave(); lost > 0 {
		h.T.Errorf("host %s: %d sessions are lost: %v", h.Name, lost, why)
	}
	if err := h.Member.Leave(ctx); err != nil {
		h.T.Errorf("host %s: leave: %v", h.Name, err)
	}
	if err := h.Store.Close(); err != nil {
		h.T.Errorf("host %s: close: %v", h.Name, err)
	}
}

// Kill ends the host as a crash does, as others see it: nobody ends its lease.
func (h *Host) Kill() {
	h.over = true
	h.Member.StopRefresh()
	h.Fleet.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	_ = h.Server.Drain(ctx)
	h.served.Wait()
	_ = h.Store.Close()
}

// Do runs an intent, which must succeed.
func (h *Host) Do(in store.Intent) store.Result {
	h.T.Helper()
	r := h.Store.Do(&in)
	if r.Err != nil {
		h.T.Fatalf("host %s: %v", h.Name, r.Err)
	}
	return r
}

// Claim claims the VM, which must succeed, and returns how long that took.
func (h *Host) Claim(uuid string) time.Duration {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	from := time.Now()
	if err := h.Fleet.Claim(ctx, uuid); err != nil {
		h.T.Fatalf("host %s: %v", h.Name, err)
	}
	return time.Since(from)
}

// dial connects a guest of the VM, as a listener would.
func (h *Host) dial(uuid string) net.Conn {
	h.T.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		h.T.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "guest")
		ends[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			h.T.Fatal(err)
		}
	}
	h.served.Add(1)
	go func() {
		if err := h.Fleet.Arrive(ends[0], uuid); err != nil {
			_ = ends[0].Close()
			h.served.Done()
			return
		}
		h.Server.Go(ends[0], session.Peer{Who: fs.Principal{VM: uuid}, Via: "test", Resumes: true}, h.served.Done)
	}()
	return ends[1]
}

// Until waits until ok returns true.
func (h *Host) Until(what string, ok func() bool) {
	h.T.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.T.Fatalf("host %s: %s never came: %+v", h.Name, what, h.Fleet.Status())
		}
	}
}
