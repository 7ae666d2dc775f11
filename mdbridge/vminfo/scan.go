package vminfo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// maxSmall bounds what an event has beside its VM and the changes.
const maxSmall = 64 << 10

// NextOf is Next for a caller that needs only the VMs, with memory for one VM whatever
// the service sends: it calls each with one VM of a Ready after the other, and keeps
// neither them nor Changes, VMs and Raw. Of a VM with more than most bytes it gives the
// first most bytes, and over is true.
func (s *Stream) NextOf(most int, each func(vm []byte, over bool) error) (ev *Event, over bool, err error) {
	c, err := s.in.ReadByte()
	switch {
	case err != nil:
		return nil, false, s.endReason(err)
	case c != '{':
		some, _ := s.in.Peek(min(80, s.in.Buffered()))
		return nil, false, fmt.Errorf("%w: %q", ErrNoEvent, append([]byte{c}, some...))
	}
	in := &eventScanner{scanner: scanner{read: s.in.ReadByte}, most: most, each: each}
	if ev, err = in.event(); err == nil {
		err = s.checkReady(ev)
	}
	switch {
	case errors.Is(err, io.EOF):
		err = s.endReason(io.ErrUnexpectedEOF)
	case err != nil:
		err = s.endReason(err)
	}
	return ev, in.over, err
}

// errNotJSON is for a line that is no JSON object.
var errNotJSON = fmt.Errorf("%w: no JSON object on one line", ErrNoEvent)

// eventScanner reads one event.
type eventScanner struct {
	scanner
	most int
	each func([]byte, bool) error

	small  []byte // its members but for its VM, the VMs and the changes
	vm     []byte
	over   bool
	listed bool
}

// event reads what follows the brace that begins an event, up to the line's end.
func (in *eventScanner) event() (*Event, error) {
	err := in.elements('}', func(c byte) error {
		if c != '"' {
			return errNotJSON
		}
		name, over, err := in.value(c, nil, maxSmall)
		if err == nil && over {
			err = errNotJSON
		}
		if err == nil {
			c, err = in.skip()
		}
		if err == nil && c != ':' {
			err = errNotJSON
		}
		if err == nil {
			c, err = in.skip()
		}
		if err != nil {
			return err
		}
		return in.member(string(name), c)
	})
	if err != nil {
		return nil, err
	}
	if c, err := in.skip(); err != nil || c != '\n' {
		if err == nil {
			err = errNotJSON
		}
		return nil, err
	}
	if in.vm != nil && !in.over && !json.Valid(in.vm) {
		return nil, errNotJSON
	}
	text := []byte{'{'}
	if in.vm != nil {
		text = append(text, `"vm":{}`...) // which ParseEvent asks for
		if len(in.small) > 0 {
			text = append(text, ',')
		}
	}
	ev, err := ParseEvent(append(append(text, in.small...), '}'))
	if err == nil && ev.Type == Ready && !in.listed {
		err = errNoArray
	}
	if err != nil {
		return nil, err
	}
	ev.VM, ev.Raw = in.vm, nil
	return ev, nil
}

// member reads the value that begins with c.
func (in *eventScanner) member(name string, c byte) (err error) {
	switch {
	case name == `"vms"` && in.each != nil && !in.listed && c == '"':
		in.listed = true
		return in.list()
	case name == `"vm"`:
		in.vm, in.over, err = in.value(c, in.vm[:0], in.most)
	case name == `"changes"`, name == `"vms"`:
		_, _, err = in.value(c, nil, -1)
	default:
		if len(in.small) > 0 {
			in.small = append(in.small, ',')
		}
		in.small = append(append(in.small, name...), ':')
		var over bool
		if in.small, over, err = in.value(c, in.small, maxSmall); over {
			err = fmt.Errorf("%w: %d bytes beside its VM", ErrNoEvent, maxSmall)
		}
	}
	return err
}

// list gives each the VMs of an array that is the inside of a string.
func (in *eventScanner) list() error {
	inside := &scanner{read: (&unescaper{in: &in.scanner}).read, newlineIsBlank: true}
	c, err := inside.skip()
	if err == nil && c != '[' {
		return errNoArray
	}
	if err == nil {
		err = inside.elements(']', func(c byte) error {
			vm, over, err := inside.value(c, nil, in.most)
			if err == nil && !over && !json.Valid(vm) {
				err = fmt.Errorf("%w: the list of VMs: %.80q is no JSON", ErrNoEvent, vm)
			}
			if err != nil {
				return err
			}
			return in.each(vm, over)
		})
	}
	if errors.Is(err, errStringEnd) {
		return fmt.Errorf("%w: the list of VMs has no end", ErrNoEvent)
	}
	if err != nil {
		return err
	}
	switch _, err = inside.skip(); {
	case err == nil:
		return errNotJSON
	case errors.Is(err, errStringEnd):
		return nil
	}
	return err
}

// scanner takes the text of JSON apart without keeping it. It looks only at strings and
// brackets, so what it returns need not be valid JSON.
type scanner struct {
	read           func() (byte, error)
	newlineIsBlank bool // else it ends the text
	held           bool // back is to be read again
	back           byte
}

func (in *scanner) next() (byte, error) {
	if in.held {
		in.held = false
		return in.back, nil
	}
	return in.read()
}

// skip is the next byte that is no blank.
func (in *scanner) skip() (byte, error) {
	for {
		c, err := in.next()
		if err != nil || c != ' ' && c != '\t' && c != '\r' && (c != '\n' || !in.newlineIsBlank) {
			return c, err
		}
	}
}

// elements calls fn for what is between commas, with the byte that it begins with, up to
// the bracket that ends it.
func (in *scanner) elements(end byte, fn func(c byte) error) error {
	c, err := in.skip()
	if err != nil || c == end {
		return err
	}
	for {
		if err := fn(c); err != nil {
			return err
		}
		if c, err = in.skip(); err != nil || c == end {
			return err
		}
		if c != ',' {
			return errNotJSON
		}
		if c, err = in.skip(); err != nil {
			return err
		}
	}
}

// value appends the value that begins with c to b, as far as b has no more than most
// bytes; over: it has more. With most below 0 nothing is kept.
func (in *scanner) value(c byte, b []byte, most int) (_ []byte, over bool, err error) {
	depth, quoted, escaped := 0, false, false
	for {
		if c == '\n' && !in.newlineIsBlank {
			return nil, false, errNotJSON
		}
		if depth == 0 && !quoted && (c == ',' || c == '}' || c == ']' || c == ':') {
			in.held, in.back = true, c
			return b, over, nil
		}
		if over = over || len(b) >= most; !over {
			b = append(b, c)
		}
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if depth == 0 && !quoted && (c == '"' || c == '}' || c == ']') {
			return b, over, nil
		}
		if c, err = in.next(); err != nil {
			return nil, false, err
		}
	}
}

// errStringEnd is what unescaper.read returns at the closing quote, as io.EOF for a file.
var errStringEnd = errors.New("the end of a string")

// unescaper reads the inside of a JSON string, of which the first quote is read already.
type unescaper struct {
	in   *scanner
	more []byte // that the last escape has left
	buf  [utf8.UTFMax]byte
}

func (u *unescaper) read() (byte, error) {
	if len(u.more) > 0 {
		c := u.more[0]
		u.more = u.more[1:]
		return c, nil
	}
	c, err := u.in.next()
	switch {
	case err != nil:
		return 0, err
	case c == '"':
		return 0, errStringEnd
	case c < ' ':
		return 0, errNotJSON
	case c != '\\':
		return c, nil
	}
	if c, err = u.in.next(); err != nil {
		return 0, err
	}
	switch c {
	case '"', '\\', '/':
		return c, nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		return u.unicode()
	}
	return 0, errNotJSON
}

// unicode reads the digits of \uXXXX, and those of the other half of a pair.
func (u *unescaper) unicode() (byte, error) {
	r, err := u.hex()
	if err != nil {
		return 0, err
	}
	if utf16.IsSurrogate(r) {
		for _, want := range []byte{'\\', 'u'} {
			if c, err := u.in.next(); err != nil || c != want {
				return 0, errors.Join(errNotJSON, err)
			}
		}
		low, err := u.hex()
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return 0, errNotJSON
		}
	}
	u.more = utf8.AppendRune(u.buf[:0], r)
	return u.read()
}

func (u *unescaper) hex() (r rune, err error) {
	for range 4 {
		c, err := u.in.next()
		switch {
		case err != nil:
			return 0, err
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, errNotJSON
		}
	}
	return r, nil
}
