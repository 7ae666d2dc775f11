package mdata

import (
	"bytes"
	"errors"
	"io"
)

// A Lines starts with a buffer of firstBuffer bytes. A buffer of more than keepBuffer
// bytes is replaced by a small one once it holds less than firstBuffer.
const (
	firstBuffer = 4 << 10
	keepBuffer  = 16 << 10
)

// What Lines.Next returns instead of a line: ErrLong for a line over the limit,
// ErrSkipped at the end of a line that was skipped.
var (
	ErrLong    = errors.New("the line is too long")
	ErrSkipped = errors.New("the line was skipped")
)

// Lines cuts a stream into lines. Whatever comes in, its buffer never outgrows
// the limit (or firstBuffer): a longer line is the caller's to allow or to skip.
type Lines struct {
	r     io.Reader
	limit int
	buf   []byte // buf[at:] was read and not returned yet
	at    int
	seen  int       // bytes of buf[at:] that are known to hold no LF
	skip  io.Writer // takes the bytes of the line that is being skipped; nil: none is
}

// NewLines reads r's lines of at most limit bytes, not counting the LF.
func NewLines(r io.Reader, limit int) *Lines { return &Lines{r: r, limit: limit} }

// Limit sets how long a line may be from now on, also the line that was ErrLong. A
// lower limit shrinks the buffer; bytes that were read stay.
func (l *Lines) Limit(limit int) {
	l.limit = limit
	if size := l.Pending() + firstBuffer; limit < cap(l.buf) && size < cap(l.buf) {
		l.move(size)
	}
}

// Pending is how many bytes were read and not returned yet.
func (l *Lines) Pending() int { return len(l.buf) - l.at }

// Rest is what Pending counts; false: the line is being dropped, and its end is to come.
func (l *Lines) Rest() ([]byte, bool) { return l.buf[l.at:], l.skip == nil }

// Skip drops the line that has begun, up to its LF, which need not have come yet. to
// takes the line's bytes without the LF, and must take them all.
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
// called again. Bytes at the end of the stream without an LF are no line.
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

// drop hands n bytes to l.skip and frees their place, so that a line that never ends
// costs no memory.
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

// fill reads once, after making room. A Reader that returns no bytes and no error
// would be asked for ever: io.ErrNoProgress.
func (l *Lines) fill() error {
	l.room()
	n, err := l.r.Read(l.buf[len(l.buf):cap(l.buf)])
	l.buf = l.buf[:len(l.buf)+n]
	switch {
	case n > 0:
		return nil // an error comes again with the next read
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

// move copies what is pending into a new buffer of that size.
func (l *Lines) move(size int) {
	l.buf = append(make([]byte, 0, size), l.buf[l.at:]...)
	l.at = 0
}
