//go:build !386 && !arm

package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hugelgupf/p9/linux"

	"meta9/session/keep"
)

// errnoOf is a server's errno as this system has it.
func errnoOf(e linux.Errno) fuse.Status { return fuse.Status(e) }

// patient is the interrupt of what a program does not expect to be interrupted, such as a
// write: a signal that it handles does not end the wait, one that kills it does. The
// kernel tells of the first signal alone.
func patient(cancel <-chan struct{}, who *fuse.Caller) keep.Interrupt {
	pid := who.Pid
	return keep.Interrupt{C: cancel, Final: func() bool { return dying(pid) }}
}

// sigkill is its bit in a mask of pending signals. Whatever kills a process, each of its
// threads has that pending then.
const sigkill = 1 << (9 - 1)

// dying tells whether a thread is about to end; proc(5) says so. One that is not there
// is; of one that the kernel does not name (another name space) nothing is known.
func dying(pid uint32) bool {
	if pid == 0 {
		return true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	_, mask, _ := bytes.Cut(b, []byte("\nSigPnd:\t"))
	mask, _, _ = bytes.Cut(mask, []byte("\n"))
	pending, err := strconv.ParseUint(string(mask), 16, 64)
	return err != nil || pending&sigkill != 0
}
