package mdata

import (
	"bytes"
	"errors"
	"io"
)

// firstBuffer is the size of a Lines' buffer at first. One of more than
// keepBuffer is given up when there is little in it.
const (
	firstBuffer = 4 << 10
	keepBuffer  = 16 << 10
)

// What Lines.Next gives instead of a line: ErrLong for one that is longer than it
// may be, ErrSkipped where one has ended that was skipped.
var (
	ErrLong    = errors.New("the line is too long")
	ErrSkipped = errors.New("the line was skipped")
)

// Lines cuts a stream into lines. Whatever comes in, its buffer never outgrows
// the limit (or firstBuffer): a longer line is the caller's to allow or to skip.
type Lines struct {
	r     io.Reader
	limit int
	buf   []byte // buf[at:] was read and not given out
	at    int
	seen  int       // bytes of buf[at:] that are known to hold no LF
	skip  io.Writer // gets what comes of a skipped line, up to its LF; nil: none is skipped
}

// NewLines reads r's lines of at most limit bytes, not counting the LF.
func NewLines(r io.Reader, limit int) *Lines { return &Lines{r: r, limit: limit} }

// Limit sets how long a line may be from now on, the one that was ErrLong too. A
// lower limit gives back the memory beyond it; what is there stays.
func (l *Lines) Limit(limit int) {
	l.limit = limit
	if size := l.Pending() + firstBuffer; limit < cap(l.buf) && size < cap(l.buf) {
		l.move(size)
	}
}

// Pending is how many bytes were read and not given out.
func (l *Lines) Pending() int { return len(l.buf) - l.at }

// Skip drops the line that has begun up to its LF, which may still be to come; to
// gets its bytes without the LF, and must take them all.
func (l *Lines) Skip(to io.Writer) {
	l.skip = to
	if l.find() < 0 {
		l.drop(l.Pending())
	}
}

// Ready tells whether Next has something to give without reading.
func (l *Lines) Ready() bool {
	return l.find() >= 0 || l.skip == nil && l.Pending() > l.limit
}

// Next is the next line without its LF, valid until the next call. It is ErrLong,
// and stays so, for a line longer than the limit, until Limit or Skip, and once
// ErrSkipped after Skip. Other errors are the reader's, after which Next may be
// called again. What the stream ends in without an LF is no line.
func (l *Lines) Next() ([]byte, error) {
	for {
		n := l.find()
		switch {
		case l.skip != nil && n >= 0:
			l.drop(n)
			l.at, l.skip = l.at+1, nil
			return nil, ErrSkipped
		case l.skip != nil:
			l.drop(l.Pending())
		case n > l.limit, n < 0 && l.Pending() > l.limit:
			return nil, ErrLong
		case n >= 0:
			line := l.buf[l.at : l.at+n]
			l.at, l.seen = l.at+n+1, 0
			return line, nil
		}
		if err := l.fill(); err != nil {
			return nil, err
		}
	}
}

// drop gives n bytes to skip. It keeps nothing of them, so that a line without an
// end costs no memory.
func (l *Lines) drop(n int) {
	_, _ = l.skip.Write(l.buf[l.at : l.at+n])
	l.at, l.seen = l.at+n, 0
}

// find is the length of the next line; -1: its LF is not there yet.
func (l *Lines) find() int {
	n := bytes.IndexByte(l.buf[l.at+l.seen:], '\n')
	if n >= 0 {
		return l.seen + n
	}
	l.seen = l.Pending()
	return -1
}

// fill reads once, after making room. A Reader that gives nothing at all is at
// its end (io.ErrNoProgress).
func (l *Lines) fill() error {
	l.room()
	n, err := l.r.Read(l.buf[len(l.buf):cap(l.buf)])
	l.buf = l.buf[:len(l.buf)+n]
	switch {
	case n > 0:
		return nil // an error comes again
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

// room makes space for a read: one byte more than the limit is enough to know
// that a line is too long.
func (l *Lines) room() {
	switch size := cap(l.buf); {
	case size > keepBuffer && l.Pending() < firstBuffer:
		l.move(firstBuffer)
	case l.Pending() == size:
		l.move(max(firstBuffer, min(2*size, l.limit+1)))
	case l.at > 0:
		l.buf = l.buf[:copy(l.buf, l.buf[l.at:])]
		l.at = 0
	}
}

// move goes on in a new buffer.
func (l *Lines) move(size int) {
	l.buf = append(make([]byte, 0, size), l.buf[l.at:]...)
	l.at = 0
}
