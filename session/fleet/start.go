package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meta9/fs/errs"
)

// Restore restores the sessions of VMs that came to this host before it started, and were
// not served yet. It leaves them in the cluster, too: if this process ends before Start, the
// next one restores them. It tries until ctx ends.
func (f *Fleet) Restore(ctx context.Context) error {
	var came []string
	err := f.insist(ctx, func(ctx context.Context) (err error) {
		came, err = f.cluster.Came(ctx)
		return err
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards f.came
	return each(ctx, came, func(ctx context.Context, uuid string) error {
		if f.cfg.Store.Cell(uuid) == nil {
			return nil // it came after the store was opened: takeOver restores its sessions
		}
		return f.insist(ctx, func(ctx context.Context) error {
			rev, err := f.restoreLeft(ctx, uuid)
			mu.Lock()
			defer mu.Unlock()
			f.came[uuid] = rev
			return err
		})
	})
}

// each calls do for all VMs, some at once: each call waits for the cluster. It returns the first
// error, after which the others' contexts have ended.
func each(ctx context.Context, uuids []string, do func(ctx context.Context, uuid string) error) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(startAtOnce)
	for _, uuid := range uuids {
		all.Go(func() error { return do(ctx, uuid) })
	}
	return all.Wait()
}

// Start comes after Restore, when this process will serve: it deletes from the cluster what was
// restored, and begins to answer other hosts' requests. It tries until ctx ends. Nobody may be
// served before it returns.
func (f *Fleet) Start(ctx context.Context) error {
	f.cfg.Kept()
	if err := f.insist(ctx, f.cluster.Started); err != nil {
		return err
	}
	err := each(ctx, slices.Collect(maps.Keys(f.came)), func(ctx context.Context, uuid string) error {
		if f.cfg.Store.Cell(uuid) == nil {
			return nil // another host has taken it
		}
		err := f.insist(ctx, func(ctx context.Context) error { return f.cluster.Forget(ctx, uuid, f.came[uuid]) })
		if errors.Is(err, errs.Moved) { // another host has taken the VM meanwhile, with its sessions
			err = f.taken(ctx, uuid)
		}
		return err
	})
	if err != nil {
		return err
	}
	f.working.Go(func() { f.cluster.Watch(f.ctx, f.hint, f.comes) })
	f.working.Go(f.look)
	f.working.Go(f.watchLease)
	f.working.Go(f.serveOwned)
	return nil
}

// insist calls do until it succeeds, or until another host has the VM (Moved), or ctx ends: then
// it returns the last error.
func (f *Fleet) insist(ctx context.Context, do func(ctx context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, f.cfg.Patience)
		err := do(try)
		cancel()
		if err == nil || errors.Is(err, errs.Moved) {
			return err
		}
		select {
		case <-time.After(pauseLonger):
		case <-ctx.Done():
			return err
		}
	}
}
