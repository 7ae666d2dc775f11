//go:build linux

package main

import (
	"context"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a mount that was taken away may wait for a server that is
// away, too. Umount(8) hangs for as long, and so would a machine that shuts down.
const patience = 10 * time.Second

// transports counts the connections that are up: one, or none.
type transports struct{ up atomic.Int32 }

// counted is dial, counted.
func (t *transports) counted(dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		nc, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		t.up.Add(1)
		return &transport{Conn: nc, down: sync.OnceFunc(func() { t.up.Add(-1) })}, nil
	}
}

// transport is one of them.
type transport struct {
	net.Conn
	down func()
}

func (t *transport) Close() error {
	t.down()
	return t.Conn.Close()
}

// watch ends the session of a mount that is no longer in its place, once there was
// no server for a while: nobody would come to see what is asked of it. Files that
// are still open after umount -l are served for as long as there is one.
func (end *mounted) watch() {
	if err := end.displaced(); err != nil {
		return
	}
	for away := time.Duration(0); away < patience; time.Sleep(time.Second) {
		if away += time.Second; end.links.up.Load() > 0 {
			away = 0
		}
	}
	end.stop()
}

// displaced waits until the mount is no longer in its place.
func (end *mounted) displaced() error {
	table, err := os.Open(mountTablePath)
	if err != nil {
		return err
	}
	defer table.Close()
	for {
		list, err := mountTable()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(e mountEntry) bool { return e.id == end.id }) {
			return nil
		}
		set := []unix.PollFd{{Fd: int32(table.Fd()), Events: unix.POLLPRI}} // the table has changed since; see proc(5)
		if _, err := unix.Poll(set, -1); err != nil && err != unix.EINTR {
			return err
		}
	}
}
