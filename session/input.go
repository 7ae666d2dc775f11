package session

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"meta9/fs"
	"meta9/session/wire"
)

const (
	inSize     = 16 << 10 // input that is read at once
	smallFrame = 8 << 10  // a frame up to this size is read and handled without asking the account
	keepPart   = 4 << 10  // the unread part of a frame, up to this size, is kept in a buffer of its own
	peekSize   = 1 << 10  // what is read at first where readiness cannot be asked for

	scratchBytes = inSize + outSize + 4<<10 // what one scratch counts in memory limits
)

// scratch is what a connection borrows while it has input to handle. An idle
// connection has none.
type scratch struct {
	in   []byte
	out  []byte
	msg  wire.Msg
	read wire.Msg // only ever a Tread: see wire.DecodeRead
	work
	unread
}

// unread is the state of an input that has borrowed a scratch.
type unread struct {
	start, end int       // the unread bytes of in
	need       int       // how many of them the frame at hand will be
	bill       bill      // for the scratch
	ahead      bill      // for the request of the frame at hand
	wants      frameCost // what awaitRoom has to wait for; zero: nothing
	refusal    error     // why the frame at hand is refused unread
}

// work is memory that handlers use, so that it is not allocated for each request.
type work struct {
	st  fs.Stat
	dir wire.Dir
}

var scratches = sync.Pool{New: func() any {
	return &scratch{in: make([]byte, inSize), out: make([]byte, 0, outSize)}
}}

// input reads a transport and finds frames in what was read. It is the loop's
// alone.
//
// Where the transport has a file descriptor, nothing is borrowed until there is
// something to read: a read that finds nothing gives the scratch back before the
// goroutine is parked. Elsewhere (tls, pipes) the first bytes go to peek, and the
// scratch is kept while a frame is not whole.
//
// A frame that is not small is taken from the account before it is read: once for its
// own bytes and once for what its request may hold of them (ahead). Where the account
// does not have that, next stops there, and awaitRoom waits for it.
type input struct {
	c       *conn           // for the loop's place and the account
	moving  atomic.Int64    // when something of a large frame came last, in Unix nanoseconds
	raw     syscall.RawConn // nil: there is none
	try     func(fd uintptr) bool
	sc      *scratch // nil: nothing is unread, but for part
	part    []byte   // the unread bytes while sc is given back
	peek    []byte
	skip    int // this many of the next bytes are dropped: the rest of a frame
	later   int // the same, after the unread bytes of part: see Handed.Skip
	err     error
	crowded bool // tryRead found no free place
	late    bool // it must go on without one
}

func (in *input) init(c *conn) {
	in.c = c
	if sc, ok := c.nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			in.raw, in.try = raw, in.tryRead
		}
	}
}

// fill waits until there is new input. Then sc is set.
func (in *input) fill() error {
	if in.raw == nil {
		return in.fillPlain()
	}
	for in.late = false; ; {
		if err := in.raw.Read(in.try); err != nil {
			return err
		}
		if !in.crowded {
			return in.err
		}
		in.crowded = false
		in.late = !in.c.place.Take(in.c.share.Load())
	}
}

// tryRead reads what is there; false: there is nothing yet. net calls it until it returns
// true, and waits for the descriptor in between. The rest of a large frame is read with a
// place, because copying its bytes costs as much as any work; other reads need none.
// tryRead must not wait for anything: whoever closes the connection waits until it has
// returned.
func (in *input) tryRead(fd uintptr) bool {
	in.borrow()
	if in.sc.end-in.sc.start > keepPart && !in.c.place.Held() && !in.late && !in.c.place.Try(in.c.share.Load()) {
		in.crowded = true
		return true
	}
	n, err := syscall.Read(int(fd), in.space())
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), in.space())
	}
	if err == syscall.EAGAIN {
		in.c.place.Give()
		in.giveBack()
		return false
	}
	in.took(n, err)
	return true
}

func (in *input) fillPlain() error {
	in.c.place.Give()
	if in.sc != nil && in.sc.start < in.sc.end {
		n, err := in.c.nc.Read(in.space())
		in.took(n, err)
		return in.err
	}
	in.giveBack()
	if in.peek == nil {
		in.peek = make([]byte, peekSize)
	}
	n, err := in.c.nc.Read(in.peek)
	in.borrow()
	copy(in.sc.in, in.peek[:n])
	in.took(n, err)
	return in.err
}

// took notes the result of a read. Bytes that came with an error are handled first; the
// next read gets the error again.
func (in *input) took(n int, err error) {
	in.err = nil
	switch {
	case n > 0:
		in.sc.end += n
		if in.sc.ahead.paid > 0 {
			in.moving.Store(time.Now().UnixNano())
		}
	case err == nil:
		in.err = io.EOF
	default:
		in.err = err
	}
}

func (in *input) borrow() {
	if in.sc != nil {
		return
	}
	in.sc = scratches.Get().(*scratch)
	in.sc.bill.account = in.c.account.Load()
	in.sc.ahead.account = in.sc.bill.account
	in.sc.bill.force(scratchBytes)
	if len(in.part) > len(in.sc.in) { // of another process
		in.sc.in = make([]byte, len(in.part))
	}
	in.sc.start, in.sc.end = 0, copy(in.sc.in, in.part)
	in.part = nil
}

// giveBack gives the scratch back before a wait. It keeps the scratch while a large frame
// is being read, since its sender has paid for it by then.
func (in *input) giveBack() {
	sc := in.sc
	if sc == nil || sc.end-sc.start > keepPart {
		return
	}
	if sc.start < sc.end {
		in.part = append([]byte(nil), sc.in[sc.start:sc.end]...)
	}
	in.sc = nil
	if len(sc.in) > inSize {
		sc.in = make([]byte, inSize)
	}
	if sc.out == nil {
		sc.out = make([]byte, 0, outSize)
	}
	in.moving.Store(0)
	sc.ahead.keep(0)
	sc.bill.keep(0)
	sc.unread = unread{}
	scratches.Put(sc)
}

// framingError closes a connection: it is not known where the next frame begins.
type framingError struct{ size, msize uint32 }

func (e framingError) Error() string {
	return fmt.Sprintf("a frame says that it has %d bytes; %d to %d are allowed", e.size, wire.HeaderLen, e.msize)
}

// next takes the next frame out of the input; nil: it is not whole yet, and there
// is room to read on. Its size is judged by the header, before any memory is taken
// for it. Of a frame that is longer than its type can use, only what can be used is
// kept: Decode ignores the rest, as other servers do.
func (in *input) next(d wire.Dialect, msize uint32) ([]byte, error) {
	if in.skip > 0 {
		n := min(in.skip, in.sc.end-in.sc.start)
		in.skip -= n
		in.sc.start += n
	}
	b := in.sc.in[in.sc.start:in.sc.end]
	size, t, _, ok := wire.Split(b)
	if !ok {
		in.room(wire.HeaderLen)
		return nil, nil
	}
	if size < wire.HeaderLen || size > msize {
		return nil, framingError{size, msize}
	}
	need := int(size)
	if need > smallFrame && !in.pays(t, int64(wire.MaxSize(t, d, size))) {
		return nil, nil
	}
	if len(b) < need {
		if need = int(wire.MaxSize(t, d, size)); len(b) < need {
			in.room(need)
			return nil, nil
		}
	}
	in.skip = int(size) - min(int(size), len(b))
	in.sc.start += int(size) - in.skip
	return b[:need], nil
}

// frameCost is what the account must grant for the frame that is being read.
type frameCost struct {
	more            int64 // bytes to be taken
	buffer, request int64 // what bill and ahead are then
}

// asks returns what the account must still grant for a frame of that size.
func (in *input) asks(size int64) frameCost {
	a := frameCost{buffer: scratchBytes + max(0, size-inSize, int64(len(in.sc.in))-inSize), request: size}
	a.more = max(0, a.buffer-in.sc.bill.paid) + max(0, a.request-in.sc.ahead.paid)
	return a
}

// pays takes what a frame of that size needs from the account; false: it must wait. While
// it waits it holds nothing for an earlier frame; otherwise connections that wait could
// wait for each other.
func (in *input) pays(t wire.Type, size int64) bool {
	a := in.asks(size)
	switch {
	case a.more == 0:
		return true
	case t == wire.Tversion:
		in.sc.bill.account.Force(a.more)
	case in.sc.refusal != nil:
		return false
	case in.sc.bill.account.Try(a.more) != nil:
		in.shrink()
		in.sc.wants = in.asks(size)
		return false
	}
	in.paid(a)
	return true
}

// shrink gives up the memory of an earlier large frame. The unread bytes fit into what is
// left, because space never lets a read go beyond a frame that is paid for.
func (in *input) shrink() {
	in.sc.ahead.keep(0)
	in.moving.Store(0)
	if unread := in.sc.end - in.sc.start; len(in.sc.in) > inSize && unread <= inSize {
		b := make([]byte, inSize)
		copy(b, in.sc.in[in.sc.start:in.sc.end])
		in.sc.in, in.sc.start, in.sc.end = b, 0, unread
		in.sc.bill.keep(scratchBytes)
	}
}

// space is where the next bytes are read to. It ends with the frame at hand if that is
// large, so that no bytes of the next frame are in its buffer.
func (in *input) space() []byte {
	end := len(in.sc.in)
	if end > inSize {
		end = min(end, in.sc.start+max(in.sc.need, inSize))
	}
	return in.sc.in[in.sc.end:end]
}

// paid notes what was taken from the account.
func (in *input) paid(a frameCost) {
	in.sc.bill.paid = max(in.sc.bill.paid, a.buffer)
	in.sc.ahead.paid = max(in.sc.ahead.paid, a.request)
}

// skipFrame drops the frame at hand, whose header was read.
func (in *input) skipFrame() (t wire.Type, tag uint16) {
	in.sc.refusal = nil
	b := in.sc.in[in.sc.start:in.sc.end]
	size, t, tag, _ := wire.Split(b)
	in.skip = int(size) - min(int(size), len(b))
	in.sc.start += int(size) - in.skip
	return t, tag
}

// room makes room behind the unread bytes, the first of which are a frame of need bytes.
// The buffer grows only when it is full: a frame that only claims to be large takes no
// memory.
func (in *input) room(need int) {
	in.sc.need = need
	unread := in.sc.end - in.sc.start
	if unread == 0 {
		in.sc.start, in.sc.end = 0, 0
		return
	}
	if in.sc.start+need <= len(in.sc.in) {
		return
	}
	b := in.sc.in
	if unread == len(b) {
		b = make([]byte, need)
	}
	copy(b, in.sc.in[in.sc.start:in.sc.end])
	in.sc.in, in.sc.start, in.sc.end = b, 0, unread
}

// drop gives back all that was borrowed, because the transport has ended.
func (in *input) drop() {
	if in.sc != nil {
		in.sc.start, in.sc.end = 0, 0
	}
	in.part, in.peek = nil, nil
	in.giveBack()
}
