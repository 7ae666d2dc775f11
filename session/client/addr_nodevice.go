//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package client

import (
	"context"
	"errors"
	"net"
	"runtime"
)

// dialDevice fails: this system has no deadlines for devices.
func dialDevice(string) dialer {
	return func(context.Context) (net.Conn, error) {
		return nil, errors.New("devices cannot be dialled on " + runtime.GOOS)
	}
}
