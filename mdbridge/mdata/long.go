package mdata

import (
	"bytes"
	"hash/crc32"
	"strconv"
)

// LongFrame takes the bytes of a line that is too long to be kept (Lines.Skip) and
// finds out whether they are an undamaged frame, so that its sender can be told that
// it is too long.
type LongFrame struct {
	head     []byte // the beginning of the line
	headDone bool   // the header was read: what comes is body
	bodyLeft int    // bytes of the body to come
	wantCRC  uint32 // its checksum
	crc      uint32 // of the body so far
	bad      bool
}

// headSize is how much of the line is kept: a header, an id and a code.
const headSize = 256

// Write takes the next bytes. It never fails.
func (f *LongFrame) Write(p []byte) (int, error) {
	n := len(p)
	if !f.headDone {
		room := min(headSize-len(f.head), len(p))
		f.head, p = append(f.head, p[:room]...), p[room:]
		if len(f.head) < headSize {
			return n, nil
		}
		f.headDone = true
		f.addBody(f.parseHead())
	}
	f.addBody(p)
	return n, nil
}

// parseHead reads the header, which an undamaged frame has in its first headSize bytes,
// and returns the rest of those bytes: the beginning of the body.
func (f *LongFrame) parseHead() (body []byte) {
	command, rest := Command(f.head)
	length, rest := word(rest)
	sum, body := word(rest)
	n, err := strconv.ParseUint(string(length), 10, 31)
	crc, err2 := strconv.ParseUint(string(sum), 16, 32)
	f.bad = string(command) != V2 || err != nil || err2 != nil
	f.bodyLeft, f.wantCRC = int(n), uint32(crc)
	return trimLeft(body)
}

// addBody adds bytes of the body to the checksum. Only blanks may follow the body.
func (f *LongFrame) addBody(p []byte) {
	body := p[:min(f.bodyLeft, len(p))]
	f.crc = crc32.Update(f.crc, crc32.IEEETable, body)
	f.bodyLeft -= len(body)
	f.bad = f.bad || len(bytes.Trim(p[len(body):], blanks)) > 0
}

// Frame is called at the end of the line. It returns the frame without its payload; ok
// is false where the line was damaged or no frame.
func (f *LongFrame) Frame() (_ Frame, ok bool) {
	if !f.headDone || f.bad || f.bodyLeft > 0 || f.crc != f.wantCRC {
		return Frame{}, false
	}
	_, rest := Command(f.head)
	_, rest = word(rest)
	_, rest = word(rest)
	id, rest := cut(trimLeft(rest))
	code, rest := cut(rest)
	return Frame{ID: id, Code: code}, isHex(id) && len(code) > 0 && len(rest) > 0
}
