// Package descriptors keeps the last file descriptors that the process may open for
// its admin and for itself: whoever opens one for somebody else gives it back when it
// is one of those. It keeps no state and may be used from anywhere.
package descriptors

import (
	"fmt"
	"net"
	"syscall"
)

// Reserved is how many are kept.
const Reserved = 64

// Limit is how many descriptors the process may have open (RLIMIT_NOFILE). The Go
// runtime has raised it to the hard limit before main.
func Limit() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("the limit of descriptors: %w", err)
	}
	return l.Cur, nil
}

// ErrReserved is why a connection is not kept.
var ErrReserved = fmt.Errorf("too many descriptors are in use; the last %d are the admin's", Reserved)

// Check is ErrReserved if x, which was just opened (a connection, a listener), has one
// of the last descriptors. The system gives the lowest number that is free (POSIX, open
// and accept), so that all below x's are in use, by whomever. What tells no number is
// let through.
func Check(x any) error {
	for {
		inner, ok := x.(interface{ NetConn() net.Conn }) // as *tls.Conn
		if !ok {
			break
		}
		x = inner.NetConn()
	}
	c, ok := x.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var number uintptr
	limit, err := Limit()
	if err != nil || raw.Control(func(fd uintptr) { number = fd }) != nil {
		return nil
	}
	if uint64(number)+Reserved >= limit {
		return ErrReserved
	}
	return nil
}
