package listen

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"meta9/fs"
)

// proveAdmin asks the kernel who connected: root, the daemon's own user, or a member of
// the admins' group.
func (cfg Config) proveAdmin(_ context.Context, c net.Conn) (fs.Principal, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return fs.Principal{}, fmt.Errorf("%T is no unix connection", c)
	}
	rc, err := uc.SyscallConn()
	if err != nil {
		return fs.Principal{}, err
	}
	e := rc.Control(func(fd uintptr) { err = cfg.checkAdmin(int(fd)) })
	if e != nil {
		err = e
	}
	return fs.Principal{Admin: err == nil}, err
}

// checkAdmin looks at who the peer was when it connected.
func (cfg Config) checkAdmin(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("SO_PEERCRED: %w", err)
	}
	own := os.Geteuid()
	if cred.Uid == 0 || cred.Uid == uint32(own) {
		return nil
	}
	if cfg.Admins <= 0 {
		return fmt.Errorf("user %d is not the admin: only root and user %d are", cred.Uid, own)
	}
	if cred.Gid == uint32(cfg.Admins) {
		return nil
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return fmt.Errorf("SO_PEERGROUPS: %w", err)
	}
	if slices.Contains(groups, uint32(cfg.Admins)) {
		return nil
	}
	return fmt.Errorf("user %d is not the admin: only root, user %d and members of group %d are; "+
		"a user who was added to a group is in it from his next login on", cred.Uid, own, cfg.Admins)
}

// maxGroups is how many supplementary groups a process can have on Linux (NGROUPS_MAX).
const maxGroups = 65536

// peerGroups are the supplementary groups of the peer (unix(7), SO_PEERGROUPS):
// SO_PEERCRED has only its first. The kernel says ERANGE, and the size in bytes, where
// there is not enough room.
func peerGroups(fd int) ([]uint32, error) {
	for n := 32; ; {
		groups := make([]uint32, n)
		size := uint32(n * 4)
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		got := int(size / 4)
		switch {
		case e == 0:
			return groups[:min(got, n)], nil
		case e == unix.ERANGE && got > n && got <= maxGroups:
			n = got
		default:
			return nil, e
		}
	}
}
