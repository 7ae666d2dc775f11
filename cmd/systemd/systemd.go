// Package systemd is what a service and systemd say to each other: how the service is, and
// which sockets it is given. It keeps nothing.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

// firstFD is the file descriptor of the first socket that systemd gives.
const firstFD = 3

// Sockets gives the file descriptors of the sockets that systemd has for this process
// (sd_listen_fds(3)), once: what this process starts does not take them for its own.
func Sockets() ([]int, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1<<16 {
		return nil, fmt.Errorf("LISTEN_FDS is %q", count)
	}
	fds := make([]int, n)
	for i := range fds {
		fds[i] = firstFD + i
	}
	return fds, nil
}

// Notify tells systemd how the service is (sd_notify(3)): "READY=1",
// "STOPPING=1", "STATUS=...". Where nobody asked for it, nothing happens; nor
// does anything depend on its being heard.
func Notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
