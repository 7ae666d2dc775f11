//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Where a daemon's log goes.
const (
	syslogSocket = "/dev/log"
	kernelLog    = "/dev/kmsg"

	daemonInfo = 3<<3 | 6 // facility and severity, as both have them
)

// systemLog writes lines to syslog, or to the kernel's log where there is none. It
// never waits: who reads them may be waiting for the mount.
type systemLog struct{ tag, socket, kernel string }

func (l *systemLog) Write(line []byte) (int, error) {
	text := fmt.Appendf(nil, "<%d>%s%s", daemonInfo, l.tag, line)
	if !l.toSyslog(text) {
		l.toKernel(text)
	}
	return len(line), nil
}

func (l *systemLog) toSyslog(text []byte) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	err = unix.Sendto(fd, text, unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: l.socket})
	return err == nil || errors.Is(err, unix.EAGAIN) // its reader is slow: a line less
}

func (l *systemLog) toKernel(text []byte) {
	if f, err := os.OpenFile(l.kernel, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
		_, _ = f.Write(text)
		f.Close()
	}
}
