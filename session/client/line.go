package client

import (
	"bufio"
	"errors"
	"io"
	"net"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
)

const (
	// stallTime is how long a peer may leave a frame half sent, or not take what is
	// written to it, before the transport counts as lost. A parked session lives for
	// 30 s by default.
	stallTime = 20 * time.Second

	readBuffer = 16 << 10 // read ahead, in bytes; larger frames are read in place
	batchSize  = 64 << 10 // bytes of frames that are written at once, and the last of them
)

// line is one transport of a link. link.mu guards err and answered.
type line struct {
	conn     net.Conn
	rd       *bufio.Reader
	over     chan struct{} // closed when err is set
	err      error         // why it ended
	answered bool          // somebody got an answer on it
}

func newLine(conn net.Conn) *line {
	return &line{conn: conn, rd: bufio.NewReaderSize(conn, readBuffer), over: make(chan struct{})}
}

// end closes the transport because of err; link.mu is held.
func (t *line) end(err error) {
	if t.err == nil {
		t.err = err
		close(t.over)
		t.conn.Close()
	}
}

// hangUp ends the transport t of l because of err, and with it l unless that lasts.
func (l *link) hangUp(t *line, err error) {
	if !l.lasting() {
		l.fail(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.end(err)
}

// down is closed while there is no transport.
func (l *link) down() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line.over
}

// write is the writer's loop: it sends all that has gathered in one write.
func (l *link) write(t *line) {
	var buf []byte
	for {
		select {
		case <-l.kick:
		case <-t.over:
			return
		}
		frames, from := l.batch(kept(buf))
		if len(frames) == 0 { // they went with the last batch
			continue
		}
		t.conn.SetWriteDeadline(time.Now().Add(stallTime))
		if n, err := t.conn.Write(frames); err != nil {
			if n == 0 {
				l.unsend(from)
			}
			l.hangUp(t, err)
			return
		}
		buf = frames
	}
}

// batch takes frames off the queue; from is the number of the first. They are in
// buf's storage, but for a large one, which is not copied, nor kept by kept.
func (l *link) batch(buf []byte) (frames []byte, from uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &l.window
	from = w.Count + 1
	switch {
	case len(w.Queued) > 0 && len(w.Queued[0].Frame) > batchSize:
		buf = w.Send().Frame
	case len(w.Queued) > 0:
		for len(w.Queued) > 0 && len(buf) < batchSize {
			buf = append(buf, w.Send().Frame...)
		}
	default:
		buf, l.last = append(buf, l.last...), nil
	}
	if len(w.Queued) > 0 || l.last != nil {
		l.wake()
	}
	return buf, from
}

// unsend takes back a batch of which not a byte has left.
func (l *link) unsend(from uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.window.Unsend(from)
}

// kept is b's storage for the next frames, unless it is large: an idle link holds
// no large buffer.
func kept(b []byte) []byte {
	if cap(b) > batchSize {
		return nil
	}
	return b[:0]
}

// read is the reader's loop: it gives each reply to its call until t ends.
func (l *link) read(t *line) {
	for {
		frame, err := t.next(l.msize)
		if err == nil {
			err = l.deliver(t, frame)
		}
		if err != nil {
			l.hangUp(t, err)
			return
		}
	}
}

// next reads one frame, for whose beginning it waits as long as it takes. Each has
// storage of its own, so that a reply's data is not copied again.
func (t *line) next(msize uint32) ([]byte, error) {
	header, err := t.rd.Peek(wire.HeaderLen)
	if err != nil {
		return nil, ended(err)
	}
	size, _, _, _ := wire.Split(header)
	if size < wire.HeaderLen || size > msize {
		return nil, errs.New(errs.Protocol, "the server sent a frame of %d bytes, msize is %d", size, msize)
	}
	if t.rd.Buffered() < int(size) {
		t.conn.SetReadDeadline(time.Now().Add(stallTime))
		defer t.conn.SetReadDeadline(time.Time{})
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(t.rd, frame); err != nil {
		return nil, ended(err)
	}
	return frame, nil
}

// ended says in words what io.EOF means here.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server closed it")
	}
	return err
}
