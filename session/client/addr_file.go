//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// file is a net.Conn of a device or a socket that package net does not support. Go's poller
// waits for it, so that it has deadlines, and Close ends reads and writes that wait.
type file struct {
	*os.File
	addr fileAddr
}

// fileAddr is the address of a file, as it was given.
type fileAddr struct{ kind, rest string }

func (a fileAddr) Network() string { return a.kind }
func (a fileAddr) String() string  { return a.rest }

func (f *file) LocalAddr() net.Addr  { return f.addr }
func (f *file) RemoteAddr() net.Addr { return f.addr }

// newFile takes over fd, which does not block.
func newFile(fd int, addr fileAddr) (*file, error) {
	f := &file{os.NewFile(uintptr(fd), addr.kind+":"+addr.rest), addr}
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s cannot be waited for: it is no port, terminal or socket", f.Name())
	}
	return f, nil
}

// await calls done with the events of poll(2), each time that they may have changed, until
// done returns true or ctx ends.
func (f *file) await(ctx context.Context, done func(revents int16) bool) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	err = raw.Write(func(fd uintptr) bool {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		_, err := unix.Poll(set, 0)
		return err == nil && done(set[0].Revents)
	})
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}
