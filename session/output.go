package session

import (
	"errors"
	"syscall"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/cpu"
	"meta9/session/wire"
)

// errClosed ends the loop of a connection whose transport was closed here.
var errClosed = errors.New("connection closed")

// output is the replies of a connection in the order in which they go out: there
// is one buffer, whoever appends to it, since an Rflush must not overtake the reply
// that it speaks of (flush(5)). The monitor guards it.
type output struct {
	out     []byte // not sent yet
	sending int    // bytes that some goroutine writes just now
	writing bool   // one is
	lent    bool   // out is the loop's scratch buffer
	closed  bool   // nothing goes out any more
	writes  writes // of whoever writes
}

// writes is what is written at one time where the transport has a file descriptor. It
// is whoever's set output.writing.
type writes struct {
	try   func(fd uintptr) bool
	b     []byte
	place *cpu.Place
	share *cpu.Share
	err   error
}

// large is how much is not written without a place: to copy it into a socket takes as
// long as to make it. Less goes out, whoever has no turn.
const large = 16 << 10

// write writes b. It holds a place only while it need not wait.
func (c *conn) write(b []byte, p *cpu.Place, share *cpu.Share) error {
	w := &c.writes
	if c.in.raw == nil {
		p.Give()
		_, err := c.nc.Write(b)
		return err
	}
	if w.try == nil {
		w.try = w.tryWrite
	}
	w.b, w.place, w.share, w.err = b, p, share, nil
	err := c.in.raw.Write(w.try)
	if err == nil {
		err = w.err
	}
	*w = writes{try: w.try}
	return err
}

// tryWrite writes what there is room for; false: not all of it. net calls it until it
// is true and waits in between.
func (w *writes) tryWrite(fd uintptr) bool {
	if !w.place.Held() && len(w.b) >= large {
		w.place.Take(w.share)
	}
	for len(w.b) > 0 {
		n, err := syscall.Write(int(fd), w.b)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			w.place.Give()
			return false
		case err != nil:
			w.err = err
			return true
		default:
			w.b = w.b[n:]
		}
	}
	return true
}

// flush is the loop's send.
func (c *conn) flush() { c.send(&c.place) }

// send sends the replies unless another goroutine is at it, which then sends
// these too. The monitor is given up during each write and taken again; so is the
// place where the peer does not take them at once.
func (c *conn) send(p *cpu.Place) {
	c.collect()
	if c.writing {
		return
	}
	c.writing = true
	for len(c.out) > 0 && !c.closed {
		b := c.out
		c.out, c.sending = nil, len(b)
		share := c.share
		c.mu.Unlock()
		err := c.write(b, p, share)
		c.mu.Lock()
		c.sending = 0
		if c.out == nil {
			c.out = b[:0]
		}
		if err != nil {
			c.shut()
		}
		c.moved.Broadcast()
		c.unstall()
	}
	c.writing = false
	c.moved.Broadcast()
	if !c.lent && len(c.out) == 0 {
		c.out = nil // an idle connection keeps no buffer
		c.rest()
	}
}

// shut closes the transport; replies are dropped from now on. The loop, if it
// waits to read, gets an error.
func (c *conn) shut() {
	c.closed = true
	c.out = nil
	_ = c.nc.Close()
	c.moved.Broadcast()
}

// overloaded tells whether the loop must not take in more: replies are not sent
// or writes not durable past the limit, or too many changes wait. All of these
// end by themselves, or with the transport; blocking reads do not, and so must not
// count here, or the Tflush that ends them would never be read.
func (c *conn) overloaded() bool {
	l := &c.srv.cfg.Limits
	return len(c.out)+c.sending+c.held > l.Unsent || c.changes+c.flushes >= 2*l.Waiting
}

// relieve gives the monitor up until the connection is no longer overloaded.
func (c *conn) relieve() {
	c.flush()
	c.place.Give()
	for c.overloaded() && !c.closed {
		c.moved.Wait()
	}
}

// answer appends a reply. What has no frame becomes an error reply.
func (c *conn) answer(m *wire.Msg) {
	from := len(c.out)
	b, err := wire.Append(c.out, m, c.dialect)
	if err != nil {
		b = wire.AppendError(b, m.Tag, err, c.dialect)
	}
	c.out = b
	c.keepReply(m.Tag, from)
	c.traceReply(from, wire.NoFid, nil)
}

// The replies to Tversion, Tauth and Tattach, which every connection begins with, are
// made in functions of their own: a Msg is 900 bytes of the stack, and under all that
// those requests call it would make a stack of 4 KiB grow.

//go:noinline
func (c *conn) answerVersion(tag uint16) {
	c.answer(&wire.Msg{Type: wire.Rversion, Tag: tag, Msize: c.msize, Version: c.dialect.String()})
}

//go:noinline
func (c *conn) answerQID(t wire.Type, tag uint16, q p9.QID) {
	c.answer(&wire.Msg{Type: t, Tag: tag, QID: q})
}

// refuse appends the error reply that err is.
func (c *conn) refuse(tag uint16, err error) {
	from := len(c.out)
	c.srv.stats.Errors.Add(1)
	c.out = wire.AppendError(c.out, tag, err, c.dialect)
	c.keepReply(tag, from)
	c.traceReply(from, wire.NoFid, nil)
}

// empty appends a reply that says no more than that it was done.
func (c *conn) empty(t wire.Type, tag uint16) {
	c.answer(&wire.Msg{Type: t, Tag: tag})
}

// reserve makes room for an Rread of up to n bytes and gives the room for its
// data; the frame begins at the end of c.out.
func (c *conn) reserve(n int) []byte {
	from := len(c.out)
	if free := cap(c.out) - from; free < wire.ReadLen+n {
		b := make([]byte, from, from+wire.ReadLen+n+outSize)
		copy(b, c.out)
		c.out = b
	}
	return c.out[from+wire.ReadLen : from+wire.ReadLen+n]
}

// answerRead finishes the reply whose n bytes of data are in reserve's room. They
// are from what fid and names lead to.
func (c *conn) answerRead(t wire.Type, tag uint16, n int, fid uint32, names []string) {
	from := len(c.out)
	c.out = c.out[:from+wire.ReadLen+n]
	wire.PutRead(c.out[from:], t, tag, n)
	c.traceReply(from, fid, names)
}
