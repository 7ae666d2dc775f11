// Package ordjson is JSON of which nothing is lost: the order of members and the
// spelling of numbers stay as they were written. encoding/json keeps neither.
//
// It has no state. A Value and what hangs from it is never changed once it is
// made, so that any number of goroutines may share it.
package ordjson

import (
	"bytes"
	"math"
	"strings"
	"unicode/utf8"

	"meta9/fs/errs"
)

// Kind is what a JSON value is.
type Kind uint8

// The kinds of a Value. The zero Value is null.
const (
	Null Kind = iota
	False
	True
	Number
	String
	Array
	Object
)

// Value is one JSON value. It is shared between VMs, so nobody changes what
// hangs from it.
type Value struct {
	Kind    Kind
	Text    string  // the characters of a string, the spelling of a number
	Items   []Value // of an array
	Members Members // of an object
}

// Member is one member of an object.
type Member struct {
	Name  string
	Value Value
}

// Members is the members of a JSON object in the order in which they were given.
// No two have the same name.
type Members []Member

// Get finds a member by its name.
func (o Members) Get(name string) (Value, bool) {
	if i := o.Index(name); i >= 0 {
		return o[i].Value, true
	}
	return Value{}, false
}

// Index is where the member is, or -1. Objects are small, but for tags and
// metadata in odd payloads, and those who walk them use Positions.
func (o Members) Index(name string) int {
	for i := range o {
		if o[i].Name == name {
			return i
		}
	}
	return -1
}

// Text is the member's string, or "" when it is no string or not there.
func (o Members) Text(name string) string {
	v, _ := o.Get(name)
	if v.Kind != String {
		return ""
	}
	return v.Text
}

// With is a new Members in which the member has the value: in its old place, or
// at the end.
func (o Members) With(name string, v Value) Members {
	next := make(Members, len(o), len(o)+1)
	copy(next, o)
	if i := next.Index(name); i >= 0 {
		next[i].Value = v
		return next
	}
	return append(next, Member{name, v})
}

// Positions are the indices of the members by their names.
func (o Members) Positions() map[string]int {
	at := make(map[string]int, len(o))
	for i := range o {
		at[o[i].Name] = i
	}
	return at
}

// Equal says whether two values have the same JSON text. Like that text it
// depends on the order of members and on the spelling of numbers.
func (v Value) Equal(w Value) bool {
	if v.Kind != w.Kind || v.Text != w.Text || len(v.Items) != len(w.Items) {
		return false
	}
	for i := range v.Items {
		if !v.Items[i].Equal(w.Items[i]) {
			return false
		}
	}
	return v.Members.Equal(w.Members)
}

// Equal is Equal for the members of two objects.
func (o Members) Equal(p Members) bool {
	if len(o) != len(p) {
		return false
	}
	for i := range o {
		if o[i].Name != p[i].Name || !o[i].Value.Equal(p[i].Value) {
			return false
		}
	}
	return true
}

// Str is s as a JSON string.
func Str(s string) Value { return Value{Kind: String, Text: s} }

// Member is a member of an object, or null.
func (v Value) Member(name string) Value {
	m, _ := v.Members.Get(name)
	return m
}

// Scalar is the text of a string, number or boolean. ok is false for the rest.
func (v Value) Scalar() (text string, ok bool) {
	switch v.Kind {
	case String, Number:
		return v.Text, true
	case True:
		return "true", true
	case False:
		return "false", true
	}
	return "", false
}

// Texts are the strings of an array.
func (v Value) Texts() []string {
	var list []string
	for _, item := range v.Items {
		if item.Kind == String {
			list = append(list, item.Text)
		}
	}
	return list
}

// AppendJSON appends the value as JavaScript's JSON.stringify writes it: no
// blanks, and no character escaped that JSON does not ask for.
func (v Value) AppendJSON(b []byte) []byte {
	switch v.Kind {
	case String:
		return appendString(b, v.Text)
	case Array:
		b = append(b, '[')
		for i := range v.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = v.Items[i].AppendJSON(b)
		}
		return append(b, ']')
	case Object:
		return v.Members.AppendJSON(b)
	case Null:
		return append(b, "null"...)
	}
	text, _ := v.Scalar()
	return append(b, text...)
}

// AppendJSON is AppendJSON for an object.
func (o Members) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	for i := range o {
		b = AppendName(b, o[i].Name)
		b = o[i].Value.AppendJSON(b)
	}
	return append(b, '}')
}

// AppendName appends a member's name and colon, after a comma unless the object
// has just been opened.
func AppendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendString(b, name), ':')
}

// appendString appends s, which is valid UTF-8, as a JSON string.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		if short := strings.IndexByte(shortEscaped, c); short >= 0 {
			b = append(b, '\\', shortEscapes[short])
			continue
		}
		const hex = "0123456789abcdef"
		b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
	return append(append(b, s[start:]...), '"')
}

// The characters with an escape of two letters, and its second letter. A slash
// needs none but may have one.
const (
	shortEscaped = "\"\\\b\f\n\r\t"
	shortEscapes = `"\bfnrt`
)

// MaxDepth is how deep arrays and objects may be nested in a payload.
const MaxDepth = 64

// Parse reads exactly one JSON value. Everything but its blanks is kept: the order
// of members and the spelling of numbers. A member that appears twice, text that is
// not UTF-8, half of a surrogate pair and a nesting deeper than MaxDepth are errors
// (errs.Invalid), since to go on would lose something. A byte order mark before the
// text is skipped (RFC 8259, 8.1).
func Parse(b []byte) (Value, error) { return ParseMax(b, math.MaxInt) }

// ParseMax is Parse for text that nobody vouches for: more values than most, members
// and items counted, are an error (errs.NoSpace). A Value takes some 70 bytes of
// memory, the text of one as little as two.
func ParseMax(b []byte, most int) (Value, error) {
	if !utf8.Valid(b) {
		return Value{}, errs.New(errs.Invalid, "JSON: the text is not UTF-8")
	}
	p := parser{in: b, most: most, left: most}
	p.at = len(b) - len(bytes.TrimPrefix(b, byteOrderMark))
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	if p.blank(); p.at < len(p.in) {
		return Value{}, p.wrong("the end")
	}
	return v, nil
}

var byteOrderMark = []byte("\ufeff")

// Measure is how many values v is, itself and all that is in it, and how many bytes
// their names and texts have together.
func (v Value) Measure() (values, bytes int) {
	values, bytes = v.Members.Measure()
	for i := range v.Items {
		n, b := v.Items[i].Measure()
		values, bytes = values+n, bytes+b
	}
	return values + 1, bytes + len(v.Text)
}

// Measure is Value.Measure for the members together.
func (o Members) Measure() (values, bytes int) {
	for i := range o {
		n, b := o[i].Value.Measure()
		values, bytes = values+n, bytes+b+len(o[i].Name)
	}
	return values, bytes
}
