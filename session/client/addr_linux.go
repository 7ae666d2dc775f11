package client

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// control makes TCP give up on data that nobody acknowledges after stallTime, which
// keep-alive does not look at. After a migration of its peer a connection would
// otherwise hang for a quarter of an hour.
func control(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stallTime.Milliseconds()))
	})
}
