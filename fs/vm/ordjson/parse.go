package ordjson

import (
	"slices"
	"unicode/utf16"
	"unicode/utf8"

	"meta9/fs/errs"
)

// parser reads JSON text from left to right. It copies what it keeps, so that a
// small value does not hold the whole payload in memory.
type parser struct {
	in   []byte // valid UTF-8
	at   int
	most int // values that may be read
	left int // of them
}

// wrong is the error for a place where something else was expected.
func (p *parser) wrong(want string) error {
	if p.at >= len(p.in) {
		return errs.New(errs.Invalid, "JSON: the text ends where %s is expected", want)
	}
	r, _ := utf8.DecodeRune(p.in[p.at:])
	return errs.New(errs.Invalid, "JSON: %q at byte %d, where %s is expected", r, p.at, want)
}

// blank skips what JSON takes for blanks, which is less than Unicode does.
func (p *parser) blank() {
	for p.at < len(p.in) {
		switch p.in[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// next skips blanks and looks at the byte after them; 0 is the end.
func (p *parser) next() byte {
	p.blank()
	return p.peek()
}

// peek is the byte at the place that was reached; 0 is the end, or a NUL, which
// no rule of the grammar takes.
func (p *parser) peek() byte {
	if p.at < len(p.in) {
		return p.in[p.at]
	}
	return 0
}

// take steps over c when it is next after blanks.
func (p *parser) take(c byte) bool {
	if p.next() != c {
		return false
	}
	p.at++
	return true
}

// value reads any value; the outermost has depth 0. Recursion is bounded here,
// since a payload of brackets would otherwise take the stack.
func (p *parser) value(depth int) (Value, error) {
	if depth > MaxDepth {
		return Value{}, errs.New(errs.Invalid, "JSON: nested deeper than %d", MaxDepth)
	}
	if p.left--; p.left < 0 {
		return Value{}, errs.New(errs.NoSpace, "JSON: more than %d values", p.most)
	}
	switch c := p.next(); c {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		s, err := p.str()
		return Value{Kind: String, Text: s}, err
	case 't':
		return p.word("true", True)
	case 'f':
		return p.word("false", False)
	case 'n':
		return p.word("null", Null)
	default:
		if c == '-' || digit(c) {
			return p.number()
		}
		return Value{}, p.wrong("a value")
	}
}

// word reads one of the three literal names.
func (p *parser) word(word string, k Kind) (Value, error) {
	if len(p.in)-p.at < len(word) || string(p.in[p.at:p.at+len(word)]) != word {
		return Value{}, p.wrong("a value")
	}
	p.at += len(word)
	return Value{Kind: k}, nil
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// number reads by the grammar of RFC 8259: no leading zero or plus, digits on
// both sides of a point.
func (p *parser) number() (Value, error) {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	if p.peek() == '0' {
		p.at++
	} else if !p.digits() {
		return Value{}, p.wrong("a digit")
	}
	if p.peek() == '.' {
		p.at++
		if !p.digits() {
			return Value{}, p.wrong("a digit")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.at++
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		if !p.digits() {
			return Value{}, p.wrong("a digit")
		}
	}
	return Value{Kind: Number, Text: string(p.in[start:p.at])}, nil
}

// digits steps over digits; it is false where there is none.
func (p *parser) digits() bool {
	start := p.at
	for digit(p.peek()) {
		p.at++
	}
	return p.at > start
}

// array reads from an opening bracket on.
func (p *parser) array(depth int) (Value, error) {
	v := Value{Kind: Array}
	p.at++
	if p.take(']') {
		return v, nil
	}
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return Value{}, err
		}
		v.Items = append(v.Items, item)
		if p.take(']') {
			return v, nil
		}
		if !p.take(',') {
			return Value{}, p.wrong("a comma or ]")
		}
	}
}

// object reads from an opening brace on. A member that is given twice is an
// error: JavaScript would keep the last, and whoever wrote the first would never
// learn of it.
func (p *parser) object(depth int) (Value, error) {
	v := Value{Kind: Object}
	var seen names
	p.at++
	if p.take('}') {
		return v, nil
	}
	// Most objects are gathered on the stack, and so have just the memory that they
	// need: those of VMs stay for long.
	var few [fewNames]Member
	members := few[:0]
	for {
		m, err := p.member(depth)
		if err != nil {
			return Value{}, err
		}
		if seen.twice(members, m.Name) {
			return Value{}, errs.New(errs.Invalid, "JSON: the member %q is given twice", m.Name)
		}
		members = append(members, m)
		if p.take('}') {
			v.Members = slices.Clone(members)
			return v, nil
		}
		if !p.take(',') {
			return Value{}, p.wrong("a comma or }")
		}
	}
}

// member reads a name, a colon and a value.
func (p *parser) member(depth int) (Member, error) {
	if p.next() != '"' {
		return Member{}, p.wrong("the name of a member")
	}
	name, err := p.str()
	if err != nil {
		return Member{}, err
	}
	if !p.take(':') {
		return Member{}, p.wrong("a colon")
	}
	v, err := p.value(depth + 1)
	return Member{name, v}, err
}

// names finds a name that an object has twice: by looking through the members
// while they are few, and by a set after that, so that a large payload costs no
// quadratic time.
type names map[string]struct{}

// fewNames is about where looking through names and a map cost the same.
const fewNames = 16

// twice says whether an object that has these members has the name already. It
// is asked once for every member, in order.
func (n *names) twice(have Members, name string) bool {
	if len(have) < fewNames {
		return have.Index(name) >= 0
	}
	if *n == nil {
		*n = make(names, 2*len(have))
		for i := range have {
			(*n)[have[i].Name] = struct{}{}
		}
	}
	_, twice := (*n)[name]
	(*n)[name] = struct{}{}
	return twice
}

// str reads a string; most have no escape and are copied once.
func (p *parser) str() (string, error) {
	p.at++
	start := p.at
	for ; p.at < len(p.in); p.at++ {
		switch c := p.in[p.at]; {
		case c == '"':
			s := string(p.in[start:p.at])
			p.at++
			return s, nil
		case c == '\\':
			return p.escaped(append([]byte(nil), p.in[start:p.at]...))
		case c < ' ':
			return "", p.wrong("an escape (control characters are escaped in a string)")
		}
	}
	return "", p.wrong("a closing quote")
}

// escaped reads the rest of a string from its first escape on.
func (p *parser) escaped(b []byte) (string, error) {
	for p.at < len(p.in) {
		c := p.in[p.at]
		if c < ' ' {
			return "", p.wrong("an escape (control characters are escaped in a string)")
		}
		p.at++
		switch c {
		case '"':
			return string(b), nil
		case '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, c)
		}
	}
	return "", p.wrong("a closing quote")
}

// escape reads what follows a backslash.
func (p *parser) escape() (rune, error) {
	c := p.peek()
	for i := range len(shortEscapes) {
		if c == shortEscapes[i] {
			p.at++
			return rune(shortEscaped[i]), nil
		}
	}
	switch c {
	case '/':
		p.at++
		return '/', nil
	case 'u':
		return p.unicode()
	}
	return 0, p.wrong("an escape")
}

// unicode reads uXXXX, and the second half when it is half of a pair.
func (p *parser) unicode() (rune, error) {
	r, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if p.peek() == '\\' && p.at+1 < len(p.in) && p.in[p.at+1] == 'u' {
		p.at++
		low, err := p.hex4()
		if err != nil {
			return 0, err
		}
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, nil
		}
	}
	return 0, errs.New(errs.Invalid, `JSON: \u%04x before byte %d is half of a surrogate pair`, r, p.at)
}

// hex4 reads u and four digits.
func (p *parser) hex4() (rune, error) {
	p.at++
	var r rune
	for range 4 {
		c := p.peek()
		switch {
		case digit(c):
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, p.wrong("a hexadecimal digit")
		}
		p.at++
	}
	return r, nil
}
