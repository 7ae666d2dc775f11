package mount

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// tornOf is of how many frames or packets to the guest one is torn; of those of
// more than a page more are, since there are few and most breaks are in them.
const (
	tornOf     = 40
	tornOfLong = 8
	longReply  = 4096
)

// maxLinger is how long one direction of a link may outlive the other.
const maxLinger = 20 * time.Millisecond

// cutter carries bytes between guests and meta9d, and cuts. Its methods may be
// called from any goroutine.
type cutter struct {
	addr  net.Addr // where guests connect
	dial  func() (net.Conn, error)
	unit  unit
	keeps bool // the guest's connection stays when meta9d's is cut

	mu       sync.Mutex
	moved    sync.Cond // on mu: a link came or went
	listener net.Listener
	shut     bool // nobody may connect
	rng      *rand.Rand
	tears    bool // a reply of tornOf is torn
	spares   int  // and of so many only one of those; 0: each
	lines    map[*line]bool
	torn     int // replies
	lost     int // bytes of requests
	conns    int // of guests
	done     sync.WaitGroup
}

// unit tells how many bytes the frame or packet has that begins with head.
type unit struct {
	head int
	size func(head []byte) int
}

// Frames of 9P, and the packets of link.sock (session/packet).
var (
	frames  = unit{4, func(b []byte) int { return int(binary.LittleEndian.Uint32(b)) }}
	packets = unit{21, func(b []byte) int { return 21 + int(binary.LittleEndian.Uint32(b[17:])) + 4 }}
)

// line is a guest's connection and, while there is a link, meta9d's.
type line struct {
	*cutter
	guest net.Conn

	// cutter.mu guards these.
	host net.Conn // nil: there is no link
	mute bool     // no more replies pass
	deaf bool     // no more requests do
}

// newCutter carries what connects to addr to what dial gives. Where addr is a port,
// 0 is a free one.
func newCutter(addr net.Addr, seed uint64, u unit, keeps bool, dial func() (net.Conn, error)) (*cutter, error) {
	c := &cutter{
		addr: addr, dial: dial, unit: u, keeps: keeps,
		rng: rand.New(rand.NewPCG(seed, 1)), lines: make(map[*line]bool),
	}
	c.moved.L = &c.mu
	return c, c.open()
}

// open lets guests connect.
func (c *cutter) open() error {
	l, err := net.Listen(c.addr.Network(), c.addr.String())
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addr, c.listener, c.shut = l.Addr(), l, false
	c.done.Go(func() {
		for {
			guest, err := l.Accept()
			if err != nil {
				return
			}
			c.done.Go(func() { c.serve(guest) })
		}
	})
	return nil
}

// close ends all that there is, and refuses guests from then on.
func (c *cutter) close() {
	c.mu.Lock()
	c.shut = true
	c.listener.Close()
	for ln := range c.lines {
		ln.guest.Close()
		if ln.host != nil {
			ln.host.Close()
		}
	}
	c.moved.Broadcast()
	c.mu.Unlock()
	c.done.Wait()
}

// serve carries one connection of a guest's until it ends.
func (c *cutter) serve(guest net.Conn) {
	ln := &line{cutter: c, guest: guest}
	if !c.enter(ln) {
		guest.Close()
		return
	}
	if c.keeps {
		c.done.Go(ln.up)
	}
	for ln.connect() && c.keeps {
	}
	guest.Close()
	c.mu.Lock()
	delete(c.lines, ln)
	c.moved.Broadcast()
	c.mu.Unlock()
}

func (c *cutter) enter(ln *line) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false
	}
	c.lines[ln] = true
	c.conns++
	return true
}

// connect makes a link and carries it until it is cut; false: the guest is gone.
func (ln *line) connect() bool {
	host, err := ln.dial()
	if err != nil { // meta9d is not there: so much later it may be
		time.Sleep(maxLinger)
		return ln.alive()
	}
	ln.mu.Lock()
	over := !ln.lines[ln]
	ln.host, ln.mute, ln.deaf = host, false, false
	ln.moved.Broadcast()
	ln.mu.Unlock()
	if over {
		host.Close()
		return false
	}
	if !ln.keeps {
		ln.done.Go(ln.up)
	}
	ln.replies(host)
	return true
}

func (ln *line) alive() bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return ln.lines[ln]
}

// up carries requests until the guest closes. While there is no link they are lost.
func (ln *line) up() {
	buf := make([]byte, 64<<10)
	for {
		n, err := ln.guest.Read(buf)
		ln.mu.Lock()
		host, pass := ln.host, n
		if ln.deaf && n > 0 {
			pass = ln.rng.IntN(n) // a request is torn, too
			ln.lost += n - pass
			ln.host = nil
		}
		ln.mu.Unlock()
		if host != nil && pass > 0 {
			_, _ = host.Write(buf[:pass]) // that it is gone is seen by reading
		}
		if err != nil {
			ln.mu.Lock()
			delete(ln.lines, ln)
			ln.moved.Broadcast()
			ln.mu.Unlock()
			if host != nil {
				host.Close()
			}
			return
		}
	}
}

// replies carries what meta9d sends, a frame or packet at a time, until it ends.
func (ln *line) replies(host net.Conn) {
	defer ln.unlink(host)
	in := bufio.NewReaderSize(host, 64<<10)
	for {
		b, err := ln.unit.read(in)
		if err != nil {
			return
		}
		pass, torn := ln.pass(len(b))
		if _, err := ln.guest.Write(b[:pass]); err != nil {
			return
		}
		if torn {
			ln.cut(host, kind{mute: true})
		}
	}
}

// read reads one frame or packet.
func (u unit) read(in *bufio.Reader) ([]byte, error) {
	head, err := in.Peek(u.head)
	if err != nil {
		return nil, err
	}
	size := u.size(head)
	if size < u.head || size > 2<<20 {
		return nil, errors.New("no frame")
	}
	b := make([]byte, size)
	_, err = io.ReadFull(in, b)
	return b, err
}

// pass tells how many of the bytes of a reply the guest gets.
func (ln *line) pass(size int) (n int, torn bool) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	of := tornOf
	if size > longReply {
		of = tornOfLong
	}
	switch {
	case ln.mute:
		return 0, false
	case !ln.tears || ln.rng.IntN(of*max(ln.spares, 1)) > 0:
		return size, false
	}
	ln.torn++
	return 1 + ln.rng.IntN(size-1), true
}

// unlink forgets a link that has ended.
func (ln *line) unlink(host net.Conn) {
	host.Close()
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.host == host {
		ln.host = nil
	}
	ln.moved.Broadcast()
}

// kind is how a link is cut: in which direction first.
type kind struct{ mute, deaf bool }

// cut ends a link.
func (ln *line) cut(host net.Conn, k kind) {
	ln.mu.Lock()
	if ln.host == host {
		ln.mute, ln.deaf = ln.mute || k.mute, ln.deaf || k.deaf
	}
	linger := time.Duration(0)
	if k.mute || k.deaf {
		linger = time.Duration(ln.rng.Int64N(int64(maxLinger)))
	}
	ln.mu.Unlock()
	time.AfterFunc(linger, func() { host.Close() })
}

// linked waits for a link.
func (c *cutter) linked(timeout time.Duration) bool {
	defer time.AfterFunc(timeout, c.moved.Broadcast).Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for end := time.Now().Add(timeout); !c.shut && time.Now().Before(end); c.moved.Wait() {
		if ln, _ := c.any(); ln != nil {
			return true
		}
	}
	return false
}

// chop cuts so many times, at moments that are mean apart, or a little more, and
// when there is a link; false: it did not come back. So many times it is the guest's
// connection that goes, where that stays otherwise.
func (c *cutter) chop(times int, mean time.Duration, guests int) bool {
	c.tearing(true)
	defer c.tearing(false)
	c.mu.Lock()
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 2))
	c.mu.Unlock()
	for i := 0; i < times; {
		if !c.linked(time.Minute) {
			return false
		}
		time.Sleep(time.Duration(rng.Int64N(int64(2 * mean))))
		ln, host := c.now()
		if ln == nil {
			continue // a torn reply came before
		}
		if i++; guests > 0 && i%(times/guests) == 0 {
			ln.guest.Close()
			continue
		}
		ln.cut(host, []kind{{}, {mute: true}, {deaf: true}}[rng.IntN(3)])
	}
	return true
}

// now is linked without waiting.
func (c *cutter) now() (*line, net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.any()
}

// any is a link that is not being cut. mu is held.
func (c *cutter) any() (*line, net.Conn) {
	for ln := range c.lines {
		if ln.host != nil && !ln.mute && !ln.deaf {
			return ln, ln.host
		}
	}
	return nil, nil
}

// hold stops one direction of the link that there is, until it ends.
func (c *cutter) hold(k kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ln, _ := c.any(); ln != nil {
		ln.mute, ln.deaf = k.mute, k.deaf
	}
}

// swallowed tells how many bytes of requests did not pass since hold.
func (c *cutter) swallowed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c *cutter) tearing(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tears = on
}
