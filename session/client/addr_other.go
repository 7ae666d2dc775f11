//go:build !linux

package client

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// control sets what Linux can set; see there.
func control(string, string, syscall.RawConn) error { return nil }

// What guests dial is Linux's; see there.

func dialVsock(uint32, uint32) dialer { return onlyLinux }
func dialPort(string) dialer          { return onlyLinux }
func dialDevice(string) dialer        { return onlyLinux }

func onlyLinux(context.Context) (net.Conn, error) {
	return nil, errors.New("such addresses need Linux")
}
