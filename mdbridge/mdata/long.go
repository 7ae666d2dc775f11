package mdata

import (
	"bytes"
	"hash/crc32"
	"strconv"
)

// LongFrame takes the bytes of a line that is too long to be kept (Lines.Skip), and
// finds out whether it is a good frame, so that its sender can be told.
type LongFrame struct {
	head []byte // the beginning of the line
	open bool   // the header was read: what comes is body
	left int    // bytes of the body to come
	want uint32 // its checksum
	crc  uint32 // of the body so far
	bad  bool
}

// headSize is how much of the line is kept: a header, an id and a code.
const headSize = 256

// Write takes the next bytes. It never fails.
func (f *LongFrame) Write(p []byte) (int, error) {
	n := len(p)
	if !f.open {
		room := min(headSize-len(f.head), len(p))
		f.head, p = append(f.head, p[:room]...), p[room:]
		if len(f.head) < headSize {
			return n, nil
		}
		f.open = true
		f.take(f.begin())
	}
	f.take(p)
	return n, nil
}

// begin reads the header, which a good frame has in its first bytes however long
// its body is, and gives what follows it of the head.
func (f *LongFrame) begin() (body []byte) {
	command, rest := Command(f.head)
	length, rest := word(rest)
	sum, body := word(rest)
	n, err := strconv.ParseUint(string(length), 10, 31)
	crc, err2 := strconv.ParseUint(string(sum), 16, 32)
	f.bad = string(command) != V2 || err != nil || err2 != nil
	f.left, f.want = int(n), uint32(crc)
	return trimLeft(body)
}

// take sums up the body. Behind it there may be blanks.
func (f *LongFrame) take(p []byte) {
	body := p[:min(f.left, len(p))]
	f.crc = crc32.Update(f.crc, crc32.IEEETable, body)
	f.left -= len(body)
	f.bad = f.bad || len(bytes.Trim(p[len(body):], blanks)) > 0
}

// Frame is the frame without its payload, at the end of the line; ok is false for
// what is damaged or no frame.
func (f *LongFrame) Frame() (_ Frame, ok bool) {
	if !f.open || f.bad || f.left > 0 || f.crc != f.want {
		return Frame{}, false
	}
	_, rest := Command(f.head)
	_, rest = word(rest)
	_, rest = word(rest)
	id, rest := cut(trimLeft(rest))
	code, rest := cut(rest)
	return Frame{ID: id, Code: code}, isHex(id) && len(code) > 0 && len(rest) > 0
}
