package session

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"meta9/fs"
	"meta9/fs/cpu"
	"meta9/session/wire"
)

const (
	inSize   = 64 << 10 // input that is read at once
	outSize  = 64 << 10 // replies that gather before they are sent
	keepOut  = wire.MaxMsize + outSize
	keepPart = 4 << 10 // an unfinished frame up to this size is kept in a buffer of its own
	peekSize = 1 << 10 // what is read at first where readiness cannot be asked for
)

// scratch is what a connection borrows while it has input to handle. An idle
// connection has none.
type scratch struct {
	in   []byte
	out  []byte
	msg  wire.Msg
	read wire.Msg // only ever a Tread: see wire.DecodeRead
	work
}

// work is what handlers work in, so that it costs no allocation.
type work struct {
	st  fs.Stat
	dir wire.Dir
}

var scratches = sync.Pool{New: func() any {
	return &scratch{in: make([]byte, inSize), out: make([]byte, 0, outSize+outSize/4)}
}}

// input reads a transport and finds frames in what was read. It is the loop's
// alone.
//
// Where the transport has a file descriptor, nothing is borrowed until there is
// something to read: a read that finds nothing gives the scratch back before the
// goroutine is parked. Elsewhere (tls, pipes) the first bytes go to peek, and the
// scratch is kept while a frame is not whole.
type input struct {
	nc         net.Conn
	raw        syscall.RawConn // nil: there is none
	try        func(fd uintptr) bool
	sc         *scratch // nil: nothing is unread
	start, end int      // the unread bytes of sc.in
	part       []byte   // the unread bytes while sc is given back
	peek       []byte
	skip       int // bytes to come that no one wants: the rest of a frame
	err        error
	place      *cpu.Place        // the loop's
	share      func() *cpu.Share // whose place it is
}

func (in *input) init(nc net.Conn, place *cpu.Place, share func() *cpu.Share) {
	in.nc, in.place, in.share = nc, place, share
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			in.raw, in.try = raw, in.tryRead
		}
	}
}

// fill waits until there is more input than before. Then sc is there.
func (in *input) fill() error {
	if in.raw == nil {
		return in.fillPlain()
	}
	if err := in.raw.Read(in.try); err != nil {
		return err
	}
	return in.err
}

// tryRead reads what there is; false: there is nothing yet. net calls it until it
// is true and waits in between. The rest of a large frame is read with a place, since
// its bytes cost as much as any work; what begins with a read needs none.
func (in *input) tryRead(fd uintptr) bool {
	in.borrow()
	if in.end-in.start > keepPart && !in.place.Held() {
		in.place.Take(in.share())
	}
	n, err := syscall.Read(int(fd), in.sc.in[in.end:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), in.sc.in[in.end:])
	}
	if err == syscall.EAGAIN {
		in.place.Give()
		in.giveBack()
		return false
	}
	in.took(n, err)
	return true
}

func (in *input) fillPlain() error {
	if in.sc != nil && in.start < in.end {
		n, err := in.nc.Read(in.sc.in[in.end:])
		in.took(n, err)
		return in.err
	}
	in.giveBack()
	if in.peek == nil {
		in.peek = make([]byte, peekSize)
	}
	n, err := in.nc.Read(in.peek)
	in.borrow()
	copy(in.sc.in, in.peek[:n])
	in.took(n, err)
	return in.err
}

// took notes the outcome of a read. Bytes that came with an error are handled
// first; the next read gets the error again.
func (in *input) took(n int, err error) {
	in.err = nil
	switch {
	case n > 0:
		in.end += n
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
	in.start, in.end = 0, copy(in.sc.in, in.part)
	in.part = nil
}

// giveBack returns the scratch before a wait. It stays where a large frame is
// under way, since its sender has paid for it by then.
func (in *input) giveBack() {
	sc, unread := in.sc, in.end-in.start
	if sc == nil || unread > keepPart {
		return
	}
	if unread > 0 {
		in.part = append([]byte(nil), sc.in[in.start:in.end]...)
	}
	in.sc, in.start, in.end = nil, 0, 0
	if len(sc.in) > inSize {
		sc.in = make([]byte, inSize)
	}
	if cap(sc.out) > keepOut {
		sc.out = nil
	}
	scratches.Put(sc)
}

// framingError closes a connection: where the next frame begins is not known.
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
		n := min(in.skip, in.end-in.start)
		in.skip -= n
		in.start += n
	}
	b := in.sc.in[in.start:in.end]
	size, t, _, ok := wire.Split(b)
	if !ok {
		in.room(wire.HeaderLen)
		return nil, nil
	}
	if size < wire.HeaderLen || size > msize {
		return nil, framingError{size, msize}
	}
	need := int(size)
	if len(b) < need {
		if need = int(wire.MaxSize(t, d, size)); len(b) < need {
			in.room(need)
			return nil, nil
		}
	}
	in.skip = int(size) - min(int(size), len(b))
	in.start += int(size) - in.skip
	return b[:need], nil
}

// room sees to it that something can be read after the unread bytes, of which a
// frame of need bytes is the first. The buffer grows as its bytes come, so that
// a size alone costs its sender's victim nothing.
func (in *input) room(need int) {
	unread := in.end - in.start
	if unread == 0 {
		in.start, in.end = 0, 0
		return
	}
	if in.start+need <= len(in.sc.in) {
		return
	}
	b := in.sc.in
	if unread == len(b) {
		b = make([]byte, min(2*len(b), max(need, len(b)+1)))
	}
	copy(b, in.sc.in[in.start:in.end])
	in.sc.in, in.start, in.end = b, 0, unread
}

// drop gives back what was borrowed, unread or not: the transport has ended.
func (in *input) drop() {
	in.start, in.end, in.part, in.peek = 0, 0, nil, nil
	in.giveBack()
}
