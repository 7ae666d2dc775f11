//go:build freebsd || darwin

package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hugelgupf/p9/linux"

	"meta9/session/keep"
)

// errnos are those of Linux that are other numbers here, as far as a server says them.
var errnos = map[linux.Errno]syscall.Errno{
	linux.EAGAIN: syscall.EAGAIN, linux.ENAMETOOLONG: syscall.ENAMETOOLONG, linux.ENOLCK: syscall.ENOLCK,
	linux.ENOSYS: syscall.ENOSYS, linux.ENOTEMPTY: syscall.ENOTEMPTY, linux.EPROTO: syscall.EPROTO,
	linux.EOPNOTSUPP: syscall.EOPNOTSUPP, linux.ECONNREFUSED: syscall.ECONNREFUSED, linux.ESTALE: syscall.ESTALE,
	linux.EDQUOT: syscall.EDQUOT, linux.ECANCELED: syscall.ECANCELED, linux.EMSGSIZE: syscall.EMSGSIZE,
}

// lastCommon is the last errno that all systems have the same number for, ERANGE, but for
// EAGAIN.
const lastCommon = 34

// errnoOf is a server's errno as this system has it.
func errnoOf(e linux.Errno) fuse.Status {
	if here, ok := errnos[e]; ok {
		return fuse.Status(here)
	}
	if e > lastCommon {
		return fuse.EIO
	}
	return fuse.Status(e)
}

// patient is the interrupt of what a program does not expect to be interrupted. Here it
// is not known which signals kill.
func patient(cancel <-chan struct{}, _ *fuse.Caller) keep.Interrupt {
	return keep.Interrupt{C: cancel}
}
