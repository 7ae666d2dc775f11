//go:build !linux

package main

import (
	"errors"
	"net"
)

// serverUID is not known here. meta9d runs on Linux alone, so that its own sockets are
// nowhere else.
func serverUID(*net.UnixConn) (int, error) { return 0, errors.ErrUnsupported }
