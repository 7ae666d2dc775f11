package session

import (
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/cpu"
	"meta9/session/wire"
)

// Replies are made in buffers of three sizes. The first comes with the loop's scratch;
// the others are taken from the VM's account for as long as something is in them.
const (
	outSize  = 16 << 10 // what a busy connection has anyhow
	midSize  = 80 << 10 // for what gathers
	bigSize  = wire.MaxMsize + sendSize
	sendSize = 64 << 10 // replies that gather before they are sent
	outSlack = 8 << 10  // room behind a large reply for small ones
	smallest = 9 << 10  // a reply up to this size is never refused for want of room: what a message of 8 KiB holds
)

// buffers keeps free buffers of one size for their next use. Large replies come as fast as
// a VM asks: if a buffer were made for each of them, the garbage collector would run all
// the time, and each of its runs empties a sync.Pool.
type buffers struct {
	free  chan []byte
	least atomic.Int64 // the fewest that were free at any moment since trim
}

// Each keeps about as many as one VM may use at a time.
var (
	midBuffers = buffers{free: make(chan []byte, 64)}
	bigBuffers = buffers{free: make(chan []byte, 64)}
)

// FreeBuffers frees the output buffers that were not needed since its last call, and
// returns their bytes. They are in no VM's account. Call it now and then, so that the
// buffers of a short rush do not stay for ever.
func FreeBuffers() int64 { return midBuffers.trim() + bigBuffers.trim() }

// trim frees as many buffers as were free all the time since the last trim.
func (f *buffers) trim() (bytes int64) {
	defer f.note()
	for n := f.least.Swap(math.MaxInt64); n > 0; n-- {
		select {
		case b := <-f.free:
			bytes += int64(cap(b))
		default:
			return bytes
		}
	}
	return bytes
}

// note notes how many are free now, for trim.
func (f *buffers) note() {
	n := int64(len(f.free))
	for {
		least := f.least.Load()
		if least <= n || f.least.CompareAndSwap(least, n) {
			return
		}
	}
}

// get returns an empty buffer of that size.
func (f *buffers) get(size int) []byte {
	defer f.note()
	select {
	case b := <-f.free:
		return b
	default:
		return make([]byte, 0, size)
	}
}

// put keeps a buffer that is no longer used, unless there are enough.
func (f *buffers) put(b []byte) {
	select {
	case f.free <- b[:0]:
	default:
	}
}

// newBuffer returns an empty buffer for n bytes; sizeFor tells its size.
func newBuffer(n int) []byte {
	switch size := sizeFor(n); size {
	case midSize:
		return midBuffers.get(size)
	case bigSize:
		return bigBuffers.get(size)
	default:
		return make([]byte, 0, size)
	}
}

// discard ends the use of a buffer.
func discard(b []byte) {
	switch cap(b) {
	case midSize:
		midBuffers.put(b)
	case bigSize:
		bigBuffers.put(b)
	}
}

// cost is how many bytes a buffer of that size counts as.
func cost(size int) int64 {
	if size <= outSize {
		return 0
	}
	return int64(size)
}

// sizeFor is the size of newBuffer's buffer for n bytes.
func sizeFor(n int) int {
	switch {
	case n <= midSize:
		return midSize
	case n > bigSize/2 && n <= bigSize:
		return bigSize
	}
	return n
}

// errShort says that there is no room for a reply now: its request has to wait
// (awaitRoomFor).
var errShort = errors.New("no room for a reply")

// errClosed ends the loop of a connection whose transport was closed here.
var errClosed = errors.New("connection closed")

// output is the replies of a connection in the order in which they go out: there
// is one buffer, whoever appends to it, since an Rflush must not overtake the reply
// that it speaks of (flush(5)). The monitor guards it.
type output struct {
	out     []byte // not sent yet
	sending int    // bytes that some goroutine writes just now
	buffer  int    // the size of the buffer that they are in
	writing bool   // one is
	since   int64  // when it began, in Unix nanoseconds, where the buffer counts
	bill    bill   // for the buffers
	need    int64  // what errShort was for
	granted int64  // bytes that a request has waited for, paid and not used yet
	lent    bool   // out is the loop's scratch buffer
	closed  bool   // nothing goes out any more
}

// writes is the state of a write to a transport with a file descriptor. Whoever has set
// output.writing borrows one.
type writes struct {
	try   func(fd uintptr) bool // tryWrite
	b     []byte
	place *cpu.Place
	share *cpu.Share
	err   error

	crowded bool // tryWrite found no free place
	late    bool // it must go on without one
}

var writers = sync.Pool{New: func() any {
	w := new(writes)
	w.try = w.tryWrite
	return w
}}

// large is the size from which a write needs a place: to copy so much into a socket takes
// as long as to make it. A smaller write needs none.
const large = 16 << 10

// write writes b. It holds a place only while it does not wait. rest are the bytes that
// were not written.
func (c *conn) write(b []byte, p *cpu.Place, share *cpu.Share) (rest []byte, err error) {
	if c.in.raw == nil {
		p.Give()
		n, err := c.nc.Write(b)
		return b[n:], err
	}
	w := writers.Get().(*writes)
	*w = writes{try: w.try, b: b, place: p, share: share}
	defer func() {
		*w = writes{try: w.try}
		writers.Put(w)
	}()
	for {
		if err := c.in.raw.Write(w.try); err != nil {
			return w.b, err
		}
		if !w.crowded {
			return w.b, w.err
		}
		w.crowded = false
		w.late = !p.Take(share)
	}
}

// tryWrite writes as much as the socket has room for; false: that was not all. net calls
// it until it returns true, and waits in between. Like tryRead it must not wait for
// anything.
func (w *writes) tryWrite(fd uintptr) bool {
	if !w.place.Held() && len(w.b) >= large && !w.late && !w.place.Try(w.share) {
		w.crowded = true
		return true
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

// send sends the replies, unless another goroutine is sending, which then sends these too.
// The monitor is released during each write and taken again; so is the place, if the peer
// does not take the bytes at once.
func (c *conn) send(p *cpu.Place) {
	c.collect()
	if c.writing {
		return
	}
	c.writing = true
	for len(c.out) > 0 && !c.closed && !c.leaving {
		c.note(nil)
		b := c.out
		c.out, c.sending, c.buffer = nil, len(b), cap(b)
		if cost(cap(b)) > 0 {
			c.since = time.Now().UnixNano()
		}
		c.mu.Unlock()
		rest, err := c.write(b, p, c.share.Load())
		c.mu.Lock()
		if err != nil && c.leaving {
			c.out = slices.Concat(rest, c.out)
			err = nil
		}
		c.sending, c.buffer = 0, 0
		if c.out == nil && !c.closed {
			c.out = b[:0]
		} else {
			c.freeBuffer(b)
		}
		c.settleOut()
		if err != nil {
			c.shut()
		}
		c.moved.Broadcast()
		c.goOnWithStalled()
	}
	c.writing = false
	c.moved.Broadcast()
	if !c.lent && len(c.out) == 0 {
		discard(c.out)
		c.out = nil // an idle connection keeps no buffer
		c.settleOut()
		c.rest()
	}
}

// settleOut adjusts the bill to the buffers that are there now.
func (c *conn) settleOut() {
	due := cost(cap(c.out)) + cost(c.buffer) + c.granted
	switch paid := c.output.bill.paid; {
	case paid > due:
		c.output.bill.keep(due)
	case paid < due: // small replies have made the buffer grow
		c.output.bill.force(due - paid)
	}
}

// shut closes the transport; replies are dropped from now on. The loop, if it
// waits to read, gets an error.
func (c *conn) shut() {
	c.closed = true
	c.dead.Store(true)
	c.out = nil
	c.settleOut()
	_ = c.nc.Close()
	c.wake()
	c.moved.Broadcast()
}

// overloaded tells whether the loop must not read more requests: unsent replies and writes
// that are not durable exceed the limit, or what the VM's account has, or too many changes
// wait. All of these end by themselves, or with the transport. Blocking reads do not, so
// they must not count here: the Tflush that ends them would never be read.
func (c *conn) overloaded() bool {
	l := &c.srv.cfg.Limits
	switch {
	case len(c.out)+c.sending+c.held > l.Unsent, c.changes+c.flushes >= 2*l.Waiting:
		return true
	case c.changes > 0 && c.waits.pays(0) != nil:
		return true
	}
	return c.buffer > 0 && c.output.bill.paid > 0 && c.output.bill.account.Over() > 0
}

// awaitRelief releases the monitor until the connection is no longer overloaded.
func (c *conn) awaitRelief() {
	c.flush()
	c.place.Give()
	for c.overloaded() && !c.closed && !c.leaving {
		c.moved.Wait()
	}
}

// growForSmallReply makes room for a reply of usual size in the output buffer, if there is
// a buffer.
func (c *conn) growForSmallReply() {
	const usual = 512
	if cap(c.out)-len(c.out) < usual && c.out != nil {
		_ = c.grow(usual) // as little as that is never refused
	}
}

// answer appends a reply. One that cannot be encoded becomes an error reply.
func (c *conn) answer(m *wire.Msg) {
	c.growForSmallReply()
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

// refuse appends an error reply for err.
func (c *conn) refuse(tag uint16, err error) {
	c.growForSmallReply()
	from := len(c.out)
	c.srv.stats.Errors.Add(1)
	c.out = wire.AppendError(c.out, tag, err, c.dialect)
	c.keepReply(tag, from)
	c.traceReply(from, wire.NoFid, nil)
}

// empty appends a reply without a body.
func (c *conn) empty(t wire.Type, tag uint16) {
	c.answer(&wire.Msg{Type: t, Tag: tag})
}

// free is how many bytes of data an Rread can have in the buffer as it is.
func (c *conn) free() int { return cap(c.out) - len(c.out) - wire.ReadLen }

// reserve makes room for an Rread of up to n bytes, and returns the room for its data; the
// frame begins at the end of c.out. errShort: there is no memory for it.
func (c *conn) reserve(n int) ([]byte, error) {
	from := len(c.out)
	if c.free() < n {
		if err := c.grow(wire.ReadLen + n); err != nil {
			return nil, err
		}
	}
	return c.out[from+wire.ReadLen : from+wire.ReadLen+n], nil
}

// grow makes room in the output for at least n more bytes. It takes the memory from the
// account before it allocates.
func (c *conn) grow(n int) error {
	size := len(c.out) + n
	if size > outSize || c.lent {
		size = sizeFor(size + outSlack)
	}
	more := cost(size) + cost(c.buffer) + c.granted - c.output.bill.paid
	used := min(c.granted, cost(size))
	switch more -= used; {
	case more <= 0:
	case n <= smallest:
		c.output.bill.force(more)
	default:
		if c.output.bill.ask(more) != nil {
			c.need = more
			return errShort
		}
	}
	c.granted -= used
	old := c.out
	if cost(size) > 0 {
		c.out = append(newBuffer(size), old...)
	} else {
		c.out = append(make([]byte, 0, size), old...)
	}
	c.freeBuffer(old)
	c.settleOut()
	return nil
}

// freeBuffer gives back a buffer that is no longer used: to the scratch if it is the
// scratch's.
func (c *conn) freeBuffer(b []byte) {
	if c.lent && c.in.sc.out == nil && cost(cap(b)) == 0 {
		c.in.sc.out = b[:0]
		return
	}
	discard(b)
}

// answerRead finishes the reply whose n bytes of data are in reserve's room. They were
// read from the file that fid and names lead to.
func (c *conn) answerRead(t wire.Type, tag uint16, n int, fid uint32, names []string) {
	from := len(c.out)
	c.out = c.out[:from+wire.ReadLen+n]
	wire.PutRead(c.out[from:], t, tag, n)
	c.traceReply(from, fid, names)
}
