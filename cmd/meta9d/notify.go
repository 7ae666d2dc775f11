package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"meta9/session/listen"
)

// notifyReloading tells systemd that READY=1 is to come again: at a reload, and at a live
// update, after which the main process is still this one.
func notifyReloading() {
	notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now()/int64(time.Microsecond)))
}

// inheritSystemd takes the sockets that systemd listens on for this service
// (sd_listen_fds(3)). A listener finds its own by the address.
func (d *daemon) inheritSystemd() error {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // they are for this program alone
	}
	if pid != strconv.Itoa(os.Getpid()) || d.from != nil {
		return nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1<<16 {
		return misused("LISTEN_FDS is %q", count)
	}
	const first = 3
	for fd := first; fd < first+n; fd++ {
		err := d.inherited.Socket(listen.Passed{FD: fd, Systemd: true})
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return misused("a socket of systemd's: %w", err)
		}
	}
	return nil
}

// notify tells systemd how the service is (sd_notify(3)): "READY=1",
// "STOPPING=1", "STATUS=...". Where nobody asked for it, nothing happens; nor
// does anything depend on its being heard.
func notify(state string) {
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
