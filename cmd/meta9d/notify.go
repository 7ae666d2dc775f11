package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"meta9/cmd/systemd"
	"meta9/session/listen"
)

// notifyReloading tells systemd that READY=1 is to come again: at a reload, and at a live
// update, after which the main process is still this one.
func notifyReloading() {
	systemd.Notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now()/int64(time.Microsecond)))
}

// inheritSystemd takes the sockets that systemd listens on for this service
// (sd_listen_fds(3)). A listener finds its own by the address.
func (d *daemon) inheritSystemd() error {
	fds, err := systemd.Sockets()
	if err != nil {
		return misused("%w", err)
	}
	if d.from != nil {
		return nil
	}
	for _, fd := range fds {
		err := d.inherited.Socket(listen.Passed{FD: fd, Systemd: true})
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return misused("a socket of systemd's: %w", err)
		}
	}
	return nil
}
