package session

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// poller waits for input on the connections that sleep, by an epoll(7) of its own: Go's
// poller would need a goroutine for each. It has one goroutine, which waits for the epoll
// in Go's poller, as for any descriptor.
//
// A connection is in conns as long as it sleeps. An event for a connection that is not
// there is ignored: somebody else has woken the connection, or the event is about a
// descriptor that is closed here and still open elsewhere.
type poller struct {
	awaken func(c *conn) // goes on with a connection that has slept

	mu    sync.Mutex       // nothing else is taken with it
	conns map[uint64]*conn // by id
	file  *os.File         // the epoll; nil: none was needed yet
	fd    int              // of file
	spent bool             // its goroutine has ended by itself: no connection may sleep any more
	done  chan struct{}    // closed when its goroutine has ended
}

// add waits for input on c, which is woken then. false: it cannot, and c stays awake.
func (p *poller) add(c *conn) bool {
	p.mu.Lock()
	if p.spent || p.file == nil && p.open() != nil {
		p.mu.Unlock()
		return false
	}
	if p.conns == nil {
		p.conns = make(map[uint64]*conn)
	}
	p.conns[c.id] = c
	p.mu.Unlock()
	// EPOLLONESHOT: its entry stays, and is used again.
	e := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(c.id), Pad: int32(c.id >> 32)}
	var err error
	closed := c.in.raw.Control(func(fd uintptr) {
		err = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, int(fd), &e)
		if err == syscall.EEXIST {
			err = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_MOD, int(fd), &e)
		}
	})
	// If it is not there, somebody has woken it meanwhile, and its new loop finds the close.
	return closed == nil && err == nil || p.remove(c.id) == nil
}

// open makes the epoll. p.mu is held.
func (p *poller) open() error {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	return p.use(fd)
}

// use starts with an epoll, and owns it. p.mu is held.
func (p *poller) use(fd int) error {
	if err := syscall.SetNonblock(fd, true); err != nil { // otherwise Go's poller does not take it
		_ = syscall.Close(fd)
		return err
	}
	f := os.NewFile(uintptr(fd), "epoll")
	// NewFile does not say whether Go's poller has taken it; a deadline needs that, too.
	err := f.SetReadDeadline(time.Time{})
	var raw syscall.RawConn
	if err == nil {
		raw, err = f.SyscallConn()
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	p.file, p.fd, p.done = f, fd, make(chan struct{})
	go p.loop(raw)
	return nil
}

// loop wakes connections until close. If it ends otherwise, all that sleep are woken, and
// from then on each has its goroutine.
func (p *poller) loop(raw syscall.RawConn) {
	defer close(p.done)
	defer p.end()
	var events [64]syscall.EpollEvent
	_ = raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(fd), events[:], 0)
			if err == syscall.EINTR {
				continue
			}
			if n <= 0 {
				return err != nil // on an error it ends
			}
			for _, e := range events[:n] {
				p.wake(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
			}
		}
	})
}

// end is the end of loop.
func (p *poller) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return // close
	}
	p.spent = true
	for _, c := range p.conns {
		go p.awaken(c)
	}
	clear(p.conns)
}

// wake wakes a connection, if it sleeps.
func (p *poller) wake(id uint64) {
	if c := p.remove(id); c != nil {
		go p.awaken(c)
	}
}

// remove takes the connection with that id out; nil: it does not sleep.
func (p *poller) remove(id uint64) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[id]
	delete(p.conns, id)
	return c
}

// count is how many sleep.
func (p *poller) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// close ends the goroutine. No connection sleeps any more.
func (p *poller) close() {
	p.mu.Lock()
	f := p.file
	p.file = nil
	p.mu.Unlock()
	if f != nil {
		_ = f.Close()
		<-p.done
	}
}
