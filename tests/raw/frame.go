// Package raw speaks 9P byte by byte: it builds frames and takes them apart by
// hand, with none of meta9's codec, so that the black-box tests and the bench
// cannot share a mistake with what they test. Only the numbers of the message
// types come from there.
//
// A Conn belongs to one goroutine at a time.
package raw

import (
	"encoding/binary"
	"fmt"

	"meta9/session/wire"
)

// NoTag and NoFid are the protocol's "none".
const (
	NoTag uint16 = 0xffff
	NoFid uint32 = 0xffffffff
)

// HeaderLen is size[4] type[1] tag[2].
const HeaderLen = 7

// Data is bytes with their count[4] before them; a plain []byte goes in as it is.
type Data []byte

// Frame is one whole frame, its size field true.
func Frame(t wire.Type, tag uint16, fields ...any) []byte {
	return Append(nil, t, tag, fields...)
}

// Append adds a frame to b. A field is written by its type: numbers little-endian,
// string as [s], []string as a count[2] of them, Data with its count[4], []byte bare.
func Append(b []byte, t wire.Type, tag uint16, fields ...any) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(t))
	b = binary.LittleEndian.AppendUint16(b, tag)
	for _, f := range fields {
		b = appendField(b, f)
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func appendField(b []byte, field any) []byte {
	le := binary.LittleEndian
	switch f := field.(type) {
	case uint8:
		return append(b, f)
	case uint16:
		return le.AppendUint16(b, f)
	case uint32:
		return le.AppendUint32(b, f)
	case uint64:
		return le.AppendUint64(b, f)
	case string:
		return append(le.AppendUint16(b, uint16(len(f))), f...)
	case []string:
		b = le.AppendUint16(b, uint16(len(f)))
		for _, s := range f {
			b = appendField(b, s)
		}
		return b
	case Data:
		return append(le.AppendUint32(b, uint32(len(f))), f...)
	case []byte:
		return append(b, f...)
	}
	panic(fmt.Sprintf("raw: a field of type %T", field))
}

// Reply is a frame that came: its body is what follows the tag.
type Reply struct {
	Type wire.Type
	Tag  uint16
	Body []byte
}

// Error is an error reply: the text of an Rerror, the errno of an Rlerror.
type Error struct {
	Text  string
	Errno uint32 // of an Rlerror, or of an Rerror that carries one
}

func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("errno %d", e.Errno)
	}
	return e.Text
}

// Err is an *Error where r is an error reply, else nil.
func (r Reply) Err() error {
	switch r.Type {
	case wire.Rerror:
		text, rest := r.cutString()
		e := &Error{Text: text}
		if len(rest) >= 4 {
			e.Errno = binary.LittleEndian.Uint32(rest)
		}
		return e
	case wire.Rlerror:
		return &Error{Errno: r.U32(0)}
	}
	return nil
}

// cutString takes a string off the front of the body; a body too short for it
// gives what is there.
func (r Reply) cutString() (string, []byte) {
	if len(r.Body) < 2 {
		return "", nil
	}
	n := min(int(binary.LittleEndian.Uint16(r.Body)), len(r.Body)-2)
	return string(r.Body[2 : 2+n]), r.Body[2+n:]
}

// U32 is the number at offset off of the body, 0 where the body ends before it.
func (r Reply) U32(off int) uint32 {
	if len(r.Body) < off+4 {
		return 0
	}
	return binary.LittleEndian.Uint32(r.Body[off:])
}

// Data is what an Rread or Rsread carries: the bytes after count[4].
func (r Reply) Data() []byte {
	if len(r.Body) < 4 {
		return nil
	}
	return r.Body[4:]
}
