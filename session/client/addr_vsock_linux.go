package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The ports below rootPorts are root's. meta9d asks for one, unless the VM's
// property vsock_unprivileged says that any will do.
const (
	rootPorts = 1024
	portTries = 64
)

// dialVsock connects to a port of another machine on this host, or of the host.
func dialVsock(cid, port uint32) dialer {
	addr := fileAddr{"vsock", fmt.Sprintf("%d:%d", cid, port)}
	return func(ctx context.Context) (net.Conn, error) {
		fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, errors.New("this kernel has no vsock (the module vmw_vsock_virtio_transport)")
		}
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		bindLow(fd)
		err = unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port})
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			unix.Close(fd)
			return nil, os.NewSyscallError("connect", err)
		}
		f, err := newFile(fd, addr)
		if err != nil {
			return nil, err
		}
		if err = f.connected(ctx); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
}

// bindLow binds a socket to one of root's ports. An error is ignored: some VMs allow any
// port.
func bindLow(fd int) {
	for range portTries {
		err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: 1 + rand.Uint32N(rootPorts-1)})
		if !errors.Is(err, unix.EADDRINUSE) {
			return
		}
	}
}

// connected waits for the end of a connect that is under way.
func (f *file) connected(ctx context.Context) error {
	if err := f.await(ctx, func(revents int16) bool { return revents != 0 }); err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var code int
	err = errors.Join(raw.Control(func(fd uintptr) { code, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) }), err)
	if err == nil && code != 0 {
		err = os.NewSyscallError("connect", unix.Errno(code))
	}
	return err
}
