package qmp

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// token is a kind of token: a structural character stands for itself.
type token byte

// The other kinds.
const (
	stringToken token = '"'
	numberToken token = '0'
	wordToken   token = 'a'
)

// structural tells the characters that are tokens by themselves. They are also
// where reading goes on after a stray byte.
func structural(c byte) bool { return strings.IndexByte("{}[]:,", c) >= 0 }

// blank tells the blanks of JSON (RFC 8259), which are fewer than Unicode's.
func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func digit(c byte) bool { return '0' <= c && c <= '9' }

// letter tells what words are made of: only true, false and null are any.
func letter(c byte) bool { return 'a' <= c && c <= 'z' }

// clip shortens a token that an error quotes: it may be as long as the limit.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// read is the next byte of the stream. All that is consumed goes through it, so
// that a sentinel is found wherever it stands; peek only looks.
func (d *Decoder) read() (byte, error) {
	c, err := d.r.ReadByte()
	if err == nil && c == sentinel {
		err = errSentinel
	}
	return c, err
}

// peek looks at the next byte; 0, which no token has, is also the end.
func (d *Decoder) peek() byte {
	c, err := d.r.ReadByte()
	if err != nil {
		return 0
	}
	_ = d.r.UnreadByte()
	return c
}

// put adds to the value.
func (d *Decoder) put(c byte) error {
	switch {
	case d.skipping:
		return nil
	case len(d.buf) >= d.limit:
		return ErrTooLarge
	}
	d.buf = append(d.buf, c)
	return nil
}

// take reads a byte into the value.
func (d *Decoder) take() (byte, error) {
	c, err := d.read()
	if err != nil {
		return c, err
	}
	return c, d.put(c)
}

// stray is the error for a byte at which no token begins or goes on. It has been
// read; what of its token came before is in the value.
func (d *Decoder) stray(c byte) error {
	text := clip(string(d.buf[d.start:]))
	return &SyntaxError{
		Desc:  "JSON parse error, stray '" + text + string([]byte{c}) + "'",
		stray: true, ends: c < ' ' && c != '\t',
	}
}

// token reads the next token into the value.
func (d *Decoder) token() (token, error) {
	c, err := d.skipBlanks()
	if err != nil {
		return 0, err
	}
	d.start = len(d.buf)
	switch {
	case c == '"', c == '\'':
		return stringToken, d.str(c)
	case c == '-', digit(c):
		return numberToken, d.number(c)
	case letter(c):
		return wordToken, d.letters(c)
	case structural(c):
		return token(c), d.bracket(c)
	}
	return 0, d.stray(c)
}

// skipBlanks reads the byte after blanks. d.first is then whether that byte is a brace at
// the beginning of a line: after an error the decoder goes on there (restart).
func (d *Decoder) skipBlanks() (byte, error) {
	for before := byte(0); ; {
		in, _ := d.r.Peek(d.r.Buffered())
		n := 0
		for n < len(in) && blank(in[n]) {
			before = in[n]
			n++
		}
		_, _ = d.r.Discard(n)
		c, err := d.read()
		if err != nil {
			return 0, err
		}
		if !blank(c) {
			d.lineStart = before == '\n' && c == '{'
			return c, nil
		}
		before = c
	}
}

// bracket counts one, or takes a comma or a colon.
func (d *Decoder) bracket(c byte) error {
	switch c {
	case '{', '[':
		d.depth++
	case '}', ']':
		d.depth--
	}
	if d.depth > MaxDepth && !d.skipping {
		return &SyntaxError{Desc: "JSON nesting depth limit exceeded"}
	}
	return d.put(c)
}

// letters reads a word that begins with c. The caller checks whether JSON has it; after
// an unknown word the stream goes on behind it.
func (d *Decoder) letters(c byte) error {
	err := d.put(c)
	for err == nil && letter(d.peek()) {
		_, err = d.take()
	}
	return err
}

// number reads one that begins with c, by the grammar of RFC 8259. Its text is kept
// as it is: a client may know its commands by numbers that no float64 holds.
func (d *Decoder) number(c byte) error {
	err := d.put(c)
	if err == nil && c == '-' {
		c, err = d.take()
	}
	switch {
	case err != nil:
		return err
	case !digit(c):
		return d.misplaced(c)
	case c != '0':
		err = d.digits()
	case digit(d.peek()):
		err = d.readStray()
	}
	if err == nil && d.peek() == '.' {
		err = d.fraction()
	}
	if c := d.peek(); err == nil && c|0x20 == 'e' {
		err = d.exponent()
	}
	return err
}

// misplaced is stray for a byte that is in the value already.
func (d *Decoder) misplaced(c byte) error {
	if len(d.buf) > d.start {
		d.buf = d.buf[:len(d.buf)-1]
	}
	return d.stray(c)
}

// readStray reads the next byte and returns stray's error for it.
func (d *Decoder) readStray() error {
	c, err := d.read()
	if err != nil {
		return err
	}
	return d.stray(c)
}

// fraction reads a point and what must follow it.
func (d *Decoder) fraction() error {
	if _, err := d.take(); err != nil {
		return err
	}
	return d.someDigits()
}

// exponent reads an e, a sign if there is one, and what must follow.
func (d *Decoder) exponent() error {
	if _, err := d.take(); err != nil {
		return err
	}
	if c := d.peek(); c == '+' || c == '-' {
		if _, err := d.take(); err != nil {
			return err
		}
	}
	return d.someDigits()
}

// someDigits reads one digit or more.
func (d *Decoder) someDigits() error {
	if !digit(d.peek()) {
		return d.readStray()
	}
	return d.digits()
}

// digits reads as many as there are, maybe none.
func (d *Decoder) digits() error {
	for digit(d.peek()) {
		if _, err := d.take(); err != nil {
			return err
		}
	}
	return nil
}

// str reads a string up to its closing quote. It returns an error in the string only
// then, so that the stream goes on behind the quote.
func (d *Decoder) str(quote byte) error {
	err := d.put('"')
	var bad string
	for err == nil {
		if err = d.plain(quote); err != nil {
			break
		}
		var c byte
		if c, err = d.read(); err != nil {
			break
		}
		what := ""
		switch {
		case c == quote:
			if err = d.put('"'); err == nil && bad != "" && !d.skipping {
				err = wrong(bad)
			}
			return err
		case c == '\\':
			what, err = d.escape()
		case c < ' ', c == 0xFE:
			err = d.stray(c)
		case c < utf8.RuneSelf:
			err = d.putRune(rune(c))
		default:
			what, err = d.multibyte(c)
		}
		if bad == "" {
			bad = what
		}
	}
	return err
}

// plain copies the part of a string that is buffered already and has no escapes.
func (d *Decoder) plain(quote byte) error {
	in, _ := d.r.Peek(d.r.Buffered())
	n := 0
	for n < len(in) && in[n] >= ' ' && in[n] < 0x7F && in[n] != '"' && in[n] != quote && in[n] != '\\' {
		n++
	}
	if !d.skipping {
		if n > d.limit-len(d.buf) {
			return ErrTooLarge
		}
		d.buf = append(d.buf, in[:n]...)
	}
	_, _ = d.r.Discard(n)
	return nil
}

// putRune adds a character of a string to the value.
func (d *Decoder) putRune(r rune) error {
	if d.skipping {
		return nil
	}
	d.buf = appendRune(d.buf, r)
	if len(d.buf) > d.limit {
		return ErrTooLarge
	}
	return nil
}

// multibyte reads the rest of a UTF-8 character that begins with c. bad says what is
// wrong with the character; the string is read to its end all the same.
func (d *Decoder) multibyte(c byte) (bad string, err error) {
	text := append(make([]byte, 0, utf8.UTFMax), c)
	for !utf8.FullRune(text) {
		if c, err = d.read(); err != nil {
			return "", err
		}
		text = append(text, c)
	}
	r, size := utf8.DecodeRune(text)
	if r != utf8.RuneError || size > 1 {
		return "", d.putRune(r)
	}
	if len(text) > 1 {
		_ = d.r.UnreadByte() // it may be the closing quote
	}
	return "invalid UTF-8 sequence in string", nil
}

// escapes are the letters after a backslash, and what they stand for.
const (
	escapes = `"'\/bfnrt`
	escaped = "\"'\\/\b\f\n\r\t"
)

// escape reads what follows a backslash.
func (d *Decoder) escape() (bad string, err error) {
	c, err := d.read()
	switch {
	case err != nil:
		return "", err
	case c == 'u':
		return d.unicode()
	case c < ' ', c == 0xFE:
		return "", d.stray(c)
	}
	if i := strings.IndexByte(escapes, c); i >= 0 {
		return "", d.putRune(rune(escaped[i]))
	}
	return "invalid escape sequence in string", nil
}

// unicode reads what follows \u, and the second half when it is half of a pair. It
// reads byte by byte and never asks for more than it looks at: the rest may not
// have been sent yet, or never be.
func (d *Decoder) unicode() (bad string, err error) {
	r, text := d.hex4()
	if utf16.IsSurrogate(r) && d.peek() == '\\' {
		_, _ = d.r.ReadByte()
		if d.peek() != 'u' {
			_, err = d.escape()
			return invalidRune(text), err
		}
		_, _ = d.r.ReadByte()
		low, more := d.hex4()
		r, text = utf16.DecodeRune(r, low), text+more
		if r == utf8.RuneError {
			r = -1
		}
	}
	if r < 0 || utf16.IsSurrogate(r) {
		return invalidRune(text), nil
	}
	return "", d.putRune(r)
}

// invalidRune is QEMU's text for an escape that is no character.
func invalidRune(text string) string { return text + " is not a valid Unicode character" }

// hex4 reads four digits. With fewer, r is negative. text is the digits as written.
func (d *Decoder) hex4() (r rune, text string) {
	b := []byte(`\u`)
	for range 4 {
		c := d.peek()
		switch {
		case digit(c):
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return -1, string(b)
		}
		_, _ = d.r.ReadByte()
		b = append(b, c)
	}
	return r, string(b)
}
