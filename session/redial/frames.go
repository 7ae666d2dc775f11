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
	nc    net.Conn // for deadlines; nil: there are none
	fresh bool     // each frame has storage of its own
	ahead [][]byte // frames that were read already
	buf   []byte   // not fresh: the last frame's
}

// NewFrames reads frames from r, each with storage of its own, and without deadlines.
func NewFrames(r io.Reader) *Frames {
	return &Frames{rd: bufio.NewReaderSize(r, readAhead), fresh: true}
}

// Next reads one frame of at most limit bytes. It waits without limit for the frame to
// begin; on a transport its end must then come within silenceTime. Errors: io.EOF for the
// end of the stream between two frames, io.ErrUnexpectedEOF within one, errs.Protocol for
// a size that no frame may have. A frame in shared storage is valid until the next call.
func (f *Frames) Next(limit uint32) ([]byte, error) {
	if len(f.ahead) > 0 {
		frame := f.ahead[0]
		f.ahead = f.ahead[1:]
		return frame, nil
	}
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

// storage is a buffer for a frame of that size.
func (f *Frames) storage(size int) []byte {
	if f.fresh {
		return make([]byte, size)
	}
	if size > cap(f.buf) {
		f.buf = make([]byte, size)
	}
	return f.buf[:size]
}
