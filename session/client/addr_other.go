//go:build !linux

package client

import (
	"context"
	"errors"
	"net"
	"runtime"
	"syscall"
)

// control sets what Linux can set; see there.
func control(string, string, syscall.RawConn) error { return nil }

// dialVsock is Linux's; see there.
func dialVsock(uint32, uint32) dialer {
	return func(context.Context) (net.Conn, error) {
		return nil, errors.New("vsock addresses need Linux, and this is " + runtime.GOOS)
	}
}

// dialPort is Linux's; see there.
func dialPort(string) dialer {
	return func(context.Context) (net.Conn, error) {
		return nil, errors.New("virtio-serial ports have names on Linux alone, and this is " + runtime.GOOS + "; dev:PATH names the device")
	}
}
