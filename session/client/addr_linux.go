package client

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ackTime is how long a TCP peer may take to acknowledge data. A parked session lives
// for 30 s by default, from when its server has noticed the loss.
const ackTime = 20 * time.Second

// control makes TCP give up after ackTime on data that is not acknowledged; keep-alive is
// for idle connections only. Without it, a connection whose peer has moved to another
// host hangs for a quarter of an hour.
func control(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ackTime.Milliseconds()))
	})
}
