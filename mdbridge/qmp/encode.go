package qmp

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// lineEnd ends every message of a server (section 2.1.1).
const lineEnd = "\r\n"

// Marshal is v in JSON that is strict ASCII, as a server's must be.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
	return appendASCII(make([]byte, 0, len(text)), text), nil
}

// appendASCII appends JSON text with everything escaped that is not printable
// ASCII, which can only be in its strings.
func appendASCII(b, text []byte) []byte {
	for len(text) > 0 {
		if c := text[0]; c < 0x7F {
			b = append(b, c)
			text = text[1:]
			continue
		}
		r, n := utf8.DecodeRune(text)
		b = appendRune(b, r)
		text = text[n:]
	}
	return b
}

// AppendString appends s as a JSON string in ASCII. What is not UTF-8 in it
// becomes U+FFFD.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		b = appendRune(b, r)
	}
	return append(b, '"')
}

// appendRune appends a character of a JSON string in ASCII.
func appendRune(b []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(b, '\\', byte(r))
	case r >= ' ' && r < 0x7F:
		return append(b, byte(r))
	case r > 0xFFFF:
		high, low := utf16.EncodeRune(r)
		return appendUnit(appendUnit(b, high), low)
	}
	return appendUnit(b, r)
}

// appendUnit appends a unit of UTF-16.
func appendUnit(b []byte, r rune) []byte {
	const hex = "0123456789ABCDEF"
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// AppendGreeting appends the greeting of a server without capabilities; version
// is JSON in ASCII.
func AppendGreeting(b, version []byte) []byte {
	b = append(b, `{"QMP": {"version": `...)
	b = append(b, version...)
	return append(b, `, "capabilities": []}}`+lineEnd...)
}

// AppendReturn appends the answer to a command that was done. ret and id are JSON
// in ASCII; without an id there was none.
func AppendReturn(b, ret, id []byte) []byte {
	b = append(b, `{"return": `...)
	b = append(b, ret...)
	return appendID(b, id)
}

// AppendError appends the answer to a command that failed. id is JSON in ASCII;
// without one there was none, or it could not be read.
func AppendError(b []byte, e *Error, id []byte) []byte {
	b = AppendString(append(b, `{"error": {"class": `...), e.Class)
	b = AppendString(append(b, `, "desc": `...), e.Desc)
	return appendID(append(b, '}'), id)
}

func appendID(b, id []byte) []byte {
	if len(id) > 0 {
		b = append(append(b, `, "id": `...), id...)
	}
	return append(b, '}', '\r', '\n')
}

// AppendEvent appends an event; its data is JSON in ASCII, or nil.
func AppendEvent(b []byte, e *Event) []byte {
	b = strconv.AppendInt(append(b, `{"timestamp": {"seconds": `...), e.Timestamp.Seconds, 10)
	b = strconv.AppendInt(append(b, `, "microseconds": `...), e.Timestamp.Microseconds, 10)
	b = AppendString(append(b, `}, "event": `...), e.Name)
	if len(e.Data) > 0 {
		b = append(append(b, `, "data": `...), e.Data...)
	}
	return append(b, '}', '\r', '\n')
}
