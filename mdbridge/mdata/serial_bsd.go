//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package mdata

import "golang.org/x/sys/unix"

// output is FWRITE of sys/fcntl.h, which says which of both queues.
const output = 2

// dropOutput forgets what a terminal has not sent yet: tcflush(3).
func dropOutput(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, output) }
