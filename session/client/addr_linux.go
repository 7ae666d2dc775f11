package client

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ackTime is how long a TCP peer may take to acknowledge data. A parked session lives
// for 30 s by default, from when its server has noticed the loss.
const ackTime = 20 * time.Second

// control makes TCP give up on data that nobody acknowledges after ackTime, which
// keep-alive does not look at. After a migration of its peer a connection would
// otherwise hang for a quarter of an hour.
func control(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ackTime.Milliseconds()))
	})
}
