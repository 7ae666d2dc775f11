//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package mdata

import (
	"context"
	"errors"
	"runtime"
)

// openSerial says that a serial line cannot be spoken over here: it has no
// deadlines, and no lock by which clients of the protocol keep each other off it.
func openSerial(context.Context, string) (*serial, error) {
	return nil, errors.New("serial lines are not supported on " + runtime.GOOS + "; a unix socket is")
}
