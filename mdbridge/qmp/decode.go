package qmp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
)

// ErrTooLarge is Next's error for a value larger than the Decoder's limit. The stream
// cannot be read further: where the value ends is not known.
var ErrTooLarge = errors.New("JSON token size limit exceeded")

// SyntaxError is Next's error for text that is no JSON, in QEMU's words. The stream goes
// on: the next call of Next skips what is left of the value.
type SyntaxError struct {
	Desc string

	stray bool // a byte at which no token begins or goes on
	ends  bool // it ended the line
}

// Error is what was wrong.
func (e *SyntaxError) Error() string { return e.Desc }

// errSentinel makes Next forget all that came before and begin again.
var errSentinel = errors.New("sentinel")

// sentinel is the byte that makes a peer begin again (section 2.6). No UTF-8 text has
// it.
const sentinel = 0xFF

// Decoder reads JSON values from a stream, one after the other, whatever blanks
// or lines stand between or in them. It takes what QEMU takes: strings in single
// quotes too, and in both kinds \' for a single quote. It keeps the text of a
// value in its canonical form: no blanks, strings in double quotes, everything
// but printable ASCII escaped, numbers as they came. So what it gives can be sent
// back as it is.
//
// Its memory is at most six times the limit: the text, and 16 bytes for each name, in
// slices that double as they grow. Blanks and skipped text are not kept.
//
// After an error of syntax it goes on where QEMU does: past a byte that is in no
// token, at the next bracket, comma, colon or end of line; past any other error,
// where all open brackets are closed. Unlike QEMU it also goes on at a brace at the
// beginning of a line, so that a client can go on after a text that was cut off, and it
// never reads the rest of a value that was nested too deep as more values.
type Decoder struct {
	r         *bufio.Reader
	limit     int
	buf       []byte // the value so far
	names     []span // of the members of the objects that are open
	start     int    // where in buf the last token begins
	depth     int    // brackets that are open
	lineStart bool   // the last token is a brace that begins a line
	skipping  bool   // tokens are skipped, not kept
	seeking   bool   // a stray byte was read: the next token is still to be found
}

// span is a part of Decoder.buf.
type span struct{ from, to int }

// keptBuffer is how much memory an idle Decoder may keep.
const keptBuffer = 64 << 10

// NewDecoder makes a Decoder of values that have at most limit bytes in their
// canonical form.
func NewDecoder(r io.Reader, limit int) *Decoder {
	return &Decoder{r: bufio.NewReader(r), limit: limit}
}

// Next reads the next value; the bytes are the Decoder's, until the next call.
// Errors: *SyntaxError, after which the stream goes on; ErrTooLarge; io.EOF
// between two values and io.ErrUnexpectedEOF inside one; what the reader answers.
func (d *Decoder) Next() ([]byte, error) {
	for {
		err := d.next()
		switch {
		case err == nil:
			return d.buf, nil
		case err == errSentinel:
			d.depth, d.seeking = 0, false
		case err == io.EOF && len(d.buf) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// Held is how many bytes of the value that Next is reading it holds by now.
func (d *Decoder) Held() int { return len(d.buf) }

// next is Next without its handling of the stream's end. It frees a large buffer of the
// value before, which would else be kept as long as the client sends nothing.
func (d *Decoder) next() error {
	d.names, d.buf = d.names[:0], d.buf[:0]
	if cap(d.buf) > keptBuffer {
		d.names, d.buf = nil, nil
	}
	if err := d.resync(); err != nil {
		return err
	}
	tok, err := d.token()
	if err == nil {
		err = d.value(tok)
	}
	if e, ok := err.(*SyntaxError); ok {
		d.fail(e)
	}
	return err
}

// fail notes where resync has to begin. It does not skip yet: Next returns the error
// first, since skipping may wait for more bytes.
func (d *Decoder) fail(e *SyntaxError) {
	d.depth = max(d.depth, 0)
	if e.stray {
		d.depth, d.seeking = 0, !e.ends
	}
	d.restart()
}

// restart begins a new value with the last token, if that is a brace at the beginning of
// a line.
func (d *Decoder) restart() {
	if d.lineStart {
		_ = d.r.UnreadByte()
		d.depth = 0
	}
}

// resync skips what is left of a value that was refused.
func (d *Decoder) resync() error {
	d.skipping = true
	defer func() { d.skipping = false }()
	for d.seeking || d.depth > 0 {
		if d.seeking {
			if err := d.structure(); err != nil {
				return err
			}
			d.seeking = false
			continue
		}
		_, err := d.token()
		e, bad := err.(*SyntaxError)
		switch {
		case bad:
			d.fail(e)
		case err != nil:
			return err
		default:
			d.restart()
		}
	}
	return nil
}

// structure skips to the next bracket, comma or colon, or over the next control
// character but a tab.
func (d *Decoder) structure() error {
	for {
		c, err := d.read()
		switch {
		case err != nil:
			return err
		case structural(c):
			return d.r.UnreadByte()
		case c < ' ' && c != '\t':
			return nil
		}
	}
}

// wrong is an error of grammar.
func wrong(desc string) error { return &SyntaxError{Desc: "JSON parse error, " + desc} }

// value reads the rest of the value that begins with tok.
func (d *Decoder) value(tok token) error {
	switch tok {
	case '{':
		return d.object()
	case '[':
		return d.array()
	case stringToken, numberToken:
		return nil
	case wordToken:
		return d.word()
	}
	return wrong("expecting value")
}

// word returns an error unless the last token is true, false or null.
func (d *Decoder) word() error {
	switch word := string(d.buf[d.start:]); word {
	case "true", "false", "null":
		return nil
	default:
		return wrong("invalid keyword '" + clip(word) + "'")
	}
}

// array reads from behind its bracket to the closing one. bracket bounds the recursion:
// MaxDepth.
func (d *Decoder) array() error {
	tok, err := d.token()
	if err != nil || tok == ']' {
		return err
	}
	for {
		if err := d.value(tok); err != nil {
			return err
		}
		if tok, err = d.token(); err != nil || tok == ']' {
			return err
		}
		if tok != ',' {
			return wrong("expected separator in list")
		}
		if tok, err = d.token(); err != nil {
			return err
		}
	}
}

// object reads from after its brace to the closing one. Names are compared at the
// end, when they are all in buf: a set of them would cost more than the text.
func (d *Decoder) object() error {
	outer := len(d.names)
	tok, err := d.token()
	if err != nil || tok == '}' {
		return err
	}
	for {
		if err := d.pair(tok); err != nil {
			return err
		}
		if tok, err = d.token(); err != nil {
			return err
		}
		if tok == '}' {
			return d.unique(outer)
		}
		if tok != ',' {
			return wrong("expected separator in dict")
		}
		if tok, err = d.token(); err != nil {
			return err
		}
	}
}

// pair reads a member whose name is tok.
func (d *Decoder) pair(tok token) error {
	switch tok {
	case stringToken:
	case '{', '[', numberToken:
		return wrong("key is not a string in object")
	default:
		if err := d.value(tok); err != nil {
			return err
		}
		return wrong("key is not a string in object")
	}
	d.names = append(d.names, span{d.start, len(d.buf)})
	tok, err := d.token()
	if err != nil {
		return err
	}
	if tok != ':' {
		return wrong("missing : in object pair")
	}
	if tok, err = d.token(); err != nil {
		return err
	}
	return d.value(tok)
}

// unique checks that the names from index outer on, those of the object that ends here,
// differ, and removes them.
func (d *Decoder) unique(outer int) error {
	names := d.names[outer:]
	d.names = d.names[:outer]
	text := func(s span) []byte { return d.buf[s.from:s.to] }
	slices.SortFunc(names, func(a, b span) int { return bytes.Compare(text(a), text(b)) })
	for i := 1; i < len(names); i++ {
		if bytes.Equal(text(names[i-1]), text(names[i])) {
			return wrong("duplicate key")
		}
	}
	return nil
}
