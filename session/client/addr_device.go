//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package client

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"meta9/session/packet"
)

const (
	// hostTime is how long the host may take to open its end of a device, and then to
	// answer. Both together are less than redial's time for a greeting.
	hostTime = 4 * time.Second

	// comeTime is how long to wait for a port that is not there: at boot ports appear some
	// time after their driver. And for a port that another process has open: it may be a
	// mount that was just unmounted and is still ending its session.
	comeTime = 2 * time.Second
	comeStep = 50 * time.Millisecond
)

// dialDevice opens a port or a terminal.
func dialDevice(path string) dialer {
	find := func() (string, error) { return path, nil }
	guest := new(packet.Guest)
	return func(ctx context.Context) (net.Conn, error) {
		return openDevice(ctx, guest, find, fileAddr{"dev", path})
	}
}

// openDevice opens a device, waits for its other end, and begins a link on it.
func openDevice(ctx context.Context, guest *packet.Guest, find func() (string, error), addr fileAddr) (net.Conn, error) {
	fd, err := openOnce(ctx, find)
	if err != nil {
		return nil, err
	}
	if term.IsTerminal(fd) {
		if _, err := term.MakeRaw(fd); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	f, err := newFile(fd, addr)
	if err != nil {
		return nil, err
	}
	nobody, cancel := context.WithTimeoutCause(ctx, hostTime, errNobody)
	defer cancel()
	if err := f.await(nobody, func(revents int16) bool { return revents&unix.POLLHUP == 0 }); err != nil {
		f.Close()
		return nil, err
	}
	silent, cancel := context.WithTimeoutCause(ctx, hostTime, errNoPackets)
	defer cancel()
	nc, err := guest.Dial(silent, f)
	if errors.Is(err, io.EOF) {
		err = errNoPackets
	}
	return nc, err
}

// Why a device cannot be used. A port that the host has closed takes no bytes, and reads
// as at its end.
var (
	errNoPort    = errors.New("no virtio-serial port")
	errNobody    = errors.New("nobody has the host's end of the port open")
	errNoPackets = errors.New("the host's end does not answer in packets; is it link.sock, and meta9d there?")
	errBusy      = errors.New("the port is busy: another mount has it, or another program")
)

// openOnce opens a device that can be open once at a time.
func openOnce(ctx context.Context, find func() (string, error)) (int, error) {
	step := time.NewTicker(comeStep)
	defer step.Stop()
	for start := time.Now(); ; {
		fd, err := tryOpen(find)
		if err == nil || time.Since(start) > comeTime || !errors.Is(err, errBusy) && !errors.Is(err, errNoPort) {
			return fd, err
		}
		select {
		case <-step.C:
		case <-ctx.Done():
			return -1, context.Cause(ctx)
		}
	}
}

func tryOpen(find func() (string, error)) (int, error) {
	path, err := find()
	if err != nil {
		return -1, err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return -1, errBusy
	case err != nil:
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}
