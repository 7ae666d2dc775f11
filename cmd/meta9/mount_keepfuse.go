//go:build linux && !386 && !arm

package main

import (
	"context"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"meta9/session/keep"
	"meta9/session/keep/fusefs"
)

// errNotBuilt says that this program has no FUSE.
var errNotBuilt error

// fuseProcs is how many of Go's processors a mount by FUSE has at least. Two threads
// wait in reads of /dev/fuse, each with one. Where no other is idle, the runtime takes
// them away after 20 us each time, which wakes a thread of its own at each request: on
// one CPU a request takes a tenth longer.
const fuseProcs = 4

// mountFUSE mounts by FUSE: as root by mount(2), as anybody else by fusermount3.
func (m *mounting) mountFUSE(run context.Context, k *keep.Keeper, served chan<- error) error {
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), fuseProcs))
	calls := k.Calls(run)
	context.AfterFunc(run, calls.Close)
	umask, _ := strconv.ParseUint(m.opt.umask, 8, 9) // which was looked at
	fsys, err := fusefs.New(calls, os.Getenv("USER"), m.opt.fullAname(), uint32(umask), !m.opt.noCache)
	var done <-chan struct{}
	if err == nil {
		done, err = fsys.Mount(fusefs.Options{
			Source: m.source, Dir: m.dir, Direct: mayMount(), Flags: m.opt.flags | unix.MS_NOSUID | unix.MS_NODEV, Words: m.fuseWords(),
			AllowOther: mayMount() || m.opt.allowOther, Data: int(m.opt.msize), Log: m.keeperLog(),
		})
	}
	go func() {
		select {
		case <-done:
		case <-run.Done():
		}
		calls.Close()
		served <- nil
	}()
	return err
}
