package cpu

import (
	"io"
	"net"
	"syscall"
	"time"
)

// Reader reads a connection of a VM's, which pays for what that takes: the kernel needs longer
// for many short pieces than any program does for what is in them. One goroutine at a time
// uses it, with no place: Read and Pay wait while the VM has to rest.
type Reader struct {
	c     net.Conn
	share func() *Share   // nil: the VM is gone
	raw   syscall.RawConn // nil: c has no descriptor
	try   func(fd uintptr) bool

	to   []byte
	n    int
	err  error
	took time.Duration
}

// A read takes readTime beside what is measured, for the goroutine that it wakes. At
// most Slice of the measured time counts: other goroutines may have had the CPU meanwhile.
const readTime = 3 * time.Microsecond

// NewReader makes a Reader of c. share gives the VM's.
func NewReader(c net.Conn, share func() *Share) *Reader {
	r := &Reader{c: c, share: share}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			r.raw, r.try = raw, r.tryRead
		}
	}
	return r
}

// Read is io.Reader's.
func (r *Reader) Read(b []byte) (n int, err error) {
	r.took = readTime
	if r.raw == nil || len(b) == 0 {
		n, err = r.c.Read(b)
	} else {
		r.to, r.n, r.err = b, 0, nil
		if err = r.raw.Read(r.try); err == nil {
			err = r.err
		}
		n, r.to = r.n, nil
	}
	if n > 0 {
		r.Pay(r.took)
	}
	return n, err
}

// Pay is Share.Pay, for what else is done with what was read.
func (r *Reader) Pay(took time.Duration) {
	if s := r.share(); s != nil {
		s.Pay(took)
	}
}

// tryRead reads what is there; false: there is nothing yet.
func (r *Reader) tryRead(fd uintptr) bool {
	from := time.Now()
	n, err := syscall.Read(int(fd), r.to)
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), r.to)
	}
	r.took += min(time.Since(from), Slice)
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		r.err = err
	case n == 0:
		r.err = io.EOF
	default:
		r.n = n
	}
	return true
}
