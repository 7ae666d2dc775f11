package listen

import (
	"context"
	"fmt"
	"net"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"meta9/fs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// privileged is the first port that any user of a guest may take.
const privileged = 1024

// listenVsock listens for guests on every CID that the host has.
func listenVsock(port uint32) (net.Listener, error) {
	nl, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, port, nil)
	if err != nil {
		return nil, reason(err)
	}
	return nl, nil
}

// proveVsock is the VM that has the peer's CID. Only root in the guest gets a
// port below 1024, and the VM's metadata is root's unless the VM's property
// vsock_unprivileged says otherwise.
func (cfg Config) proveVsock(_ context.Context, c net.Conn) (fs.Principal, error) {
	a, ok := c.RemoteAddr().(*vsock.Addr)
	if !ok {
		return fs.Principal{}, fmt.Errorf("%T is no vsock address", c.RemoteAddr())
	}
	v := cfg.ByCID(a.ContextID)
	if v == nil {
		return fs.Principal{}, fmt.Errorf("no VM has the vsock_cid %d", a.ContextID)
	}
	if open, _ := v.Prop(vm.PropVsockUnprivileged); a.Port >= privileged && open.Kind != ordjson.True {
		return fs.Principal{}, fmt.Errorf("VM %s: from port %d; only ports below %d are root's, and its vsock_unprivileged is not set", v.UUID, a.Port, privileged)
	}
	return fs.Principal{VM: v.UUID}, nil
}
