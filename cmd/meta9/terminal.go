package main

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// terminal makes it safe to write values and names to a terminal: it escapes characters
// that move the cursor, change the terminal's state or turn the order of text, in JSON's
// way, so that JSON stays JSON. LF, TAB and CR before LF are not escaped.
//
// A Write must hold whole characters.
type terminal struct{ io.Writer }

// Write writes b, or its visible form.
func (t terminal) Write(b []byte) (int, error) {
	if _, err := t.Writer.Write(visible(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// visible is b, with control characters (C0, DEL, C1) and marks of direction as \uXXXX,
// and bytes that are not UTF-8 as \xXX. It returns b itself where there is none.
func visible(b []byte) []byte {
	var out []byte
	from := 0 // b[from:i] is not in out yet
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		plain := r != utf8.RuneError || n > 1
		if plain && (!steersTerminal(r) || r == '\r' && i+1 < len(b) && b[i+1] == '\n') {
			i += n
			continue
		}
		out = append(out, b[from:i]...)
		if plain {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = fmt.Appendf(out, `\x%02x`, b[i])
		}
		i += n
		from = i
	}
	if out == nil {
		return b
	}
	return append(out, b[from:]...)
}

// steersTerminal tells whether r is a control character (C0, DEL, C1 of ECMA-48), but for
// LF and TAB, or one that turns the order of the text around it (UAX #9).
func steersTerminal(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r))
}
