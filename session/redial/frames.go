package redial

import (
	"bufio"
	"errors"
	"io"
	"net"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// readAhead is how many bytes are read ahead; larger frames are read in place.
const readAhead = 32 << 10

// Frames reads the frames of a byte stream.
type Frames struct {
	rd    *bufio.Reader
	nc    net.Conn // nil: a frame may take as long as it likes
	fresh bool     // each frame has storage of its own
	buf   []byte   // not fresh: the last frame's
}

// NewFrames reads frames from r. Each has storage of its own, and is waited for as long
// as it takes.
func NewFrames(r io.Reader) *Frames {
	return &Frames{rd: bufio.NewReaderSize(r, readAhead), fresh: true}
}

// Next reads one frame of at most limit bytes. It waits as long as it takes for the
// frame to begin; on a transport its end must come within silenceTime. io.EOF is the
// end of the stream between two frames, within one it is io.ErrUnexpectedEOF. A size
// that no frame may have is errs.Protocol. A frame in shared storage lives until the
// next.
func (f *Frames) Next(limit uint32) ([]byte, error) {
	header, err := f.rd.Peek(wire.HeaderLen)
	if err != nil {
		if len(header) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	size, _, _, _ := wire.Split(header)
	if size < wire.HeaderLen || size > limit {
		return nil, errs.New(errs.Protocol, "a frame of %d bytes came, %d is the limit", size, limit)
	}
	if f.nc != nil && f.rd.Buffered() < int(size) {
		_ = f.nc.SetReadDeadline(time.Now().Add(silenceTime))
		defer f.nc.SetReadDeadline(time.Time{})
	}
	frame := f.storage(int(size))
	_, err = io.ReadFull(f.rd, frame)
	return frame, err
}

// storage is room for a frame.
func (f *Frames) storage(size int) []byte {
	if f.fresh {
		return make([]byte, size)
	}
	if size > cap(f.buf) {
		f.buf = make([]byte, size)
	}
	return f.buf[:size]
}
