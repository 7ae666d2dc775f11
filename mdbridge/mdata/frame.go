package mdata

import (
	"encoding/base64"
	"hash/crc32"
	"strconv"
)

// Frame is the body of a version 2 frame: "ID CODE" or "ID CODE PAYLOAD".
type Frame struct {
	ID      []byte // the request's, as its sender wrote it: hex digits
	Code    []byte
	Payload []byte // in base64, as sent; AppendDecoded reads it
}

// ParseFrame reads what follows "V2 " in a line. ok is false for a frame that is
// damaged: its length or checksum is not that of the body, its id is not hex digits,
// or the body has another form. It takes what real clients send: doubled blanks in
// the header, a length with leading zeros, a checksum without them or in upper case,
// an id of any length and case, and more bytes after the payload. The Frame's slices
// are parts of rest.
func ParseFrame(rest []byte) (f Frame, ok bool) {
	length, rest := word(rest)
	sum, body := word(rest)
	body = trimLeft(body)
	n, err := strconv.ParseUint(string(length), 10, 32)
	if err != nil || n != uint64(len(body)) {
		return f, false
	}
	crc, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(crc) != crc32.ChecksumIEEE(body) {
		return f, false
	}
	var payload []byte
	f.ID, payload = cut(body)
	f.Code, payload = cut(payload)
	if !isHex(f.ID) || len(f.Code) == 0 || (len(payload) > 0 && payload[0] == ' ') {
		return f, false
	}
	f.Payload, _ = cut(payload)
	return f, true
}

// AppendFrame appends a whole line: a frame with that body, and LF. A payload of
// no bytes is left out, with its blank. The checksum has 8 lower-case digits,
// since cloud-init compares it as text.
func AppendFrame(b, id []byte, code string, payload []byte) []byte {
	n := len(id) + 1 + len(code)
	if len(payload) > 0 {
		n += 1 + base64.StdEncoding.EncodedLen(len(payload))
	}
	b = append(b, "V2 "...)
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, " 00000000 "...)
	at := len(b)
	b = append(b, id...)
	b = append(b, ' ')
	b = append(b, code...)
	if len(payload) > 0 {
		b = append(b, ' ')
		b = base64.StdEncoding.AppendEncode(b, payload)
	}
	putHex(b[at-len("00000000 "):at-1], crc32.ChecksumIEEE(b[at:]))
	return append(b, '\n')
}

// putHex writes the last digits of n that b has room for.
func putHex(b []byte, n uint32) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}

// isHex is true for one digit or more, in either case.
func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return len(b) > 0
}

// word is the first word of b, after any blanks, and what follows it.
func word(b []byte) (first, rest []byte) { return cut(trimLeft(b)) }

// cut splits b at its first blank, which is part of neither.
func cut(b []byte) (first, rest []byte) {
	for i, c := range b {
		if c == ' ' {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// trimLeft passes over the blanks that may be doubled in a header.
func trimLeft(b []byte) []byte {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	return b
}
