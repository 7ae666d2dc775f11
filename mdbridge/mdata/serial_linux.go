package mdata

import "golang.org/x/sys/unix"

// dropOutput forgets what a terminal has not sent yet: tcflush(3).
func dropOutput(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH) }
