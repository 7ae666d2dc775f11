//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package mdata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// openSerial opens the device, waits until nobody else has it locked, and makes it
// raw: a terminal would change bytes of frames, and the host would take its echo for
// requests.
func openSerial(ctx context.Context, path string) (*serial, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutPath(err)
	}
	s := &serial{f}
	if err = s.lock(ctx); err == nil {
		err = s.control(func(fd int) error {
			_, err := term.MakeRaw(fd)
			return err
		})
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// lock takes the lock by which clients of the protocol keep each other off a line.
func (s *serial) lock(ctx context.Context) error {
	for {
		l := unix.Flock_t{Type: unix.F_WRLCK}
		err := s.control(func(fd int) error { return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &l) })
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return err
		}
		select {
		case <-ctx.Done():
			return s.lockHolder()
		case <-time.After(lockPause):
		}
	}
}

// lockHolder is an error that names the process which has the lock.
func (s *serial) lockHolder() error {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	err := s.control(func(fd int) error { return unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &l) })
	if err != nil || l.Pid <= 0 {
		return errors.New("in use: another process has it locked")
	}
	return fmt.Errorf("in use: process %d has it locked", l.Pid)
}

// control calls f with the descriptor. f must not make it blocking: Go's poller would
// lose it, and with that the deadlines.
func (s *serial) control(f func(fd int) error) error {
	rc, err := s.SyscallConn()
	if err != nil {
		return err
	}
	if e := rc.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// Close drops the output that no host has read; the kernel would wait for a host to
// read it.
func (s *serial) Close() error {
	_ = s.control(dropOutput)
	return s.File.Close()
}
