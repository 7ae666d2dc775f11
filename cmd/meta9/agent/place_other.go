//go:build unix && !linux

package agent

import "golang.org/x/sys/unix"

// passing opens a folder to go on from it.
const passing = unix.O_RDONLY
