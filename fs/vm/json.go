package vm

import (
	"strings"
	"unicode/utf8"

	"meta9/fs/errs"
)

// ValueKind is what a JSON value is.
type ValueKind uint8

// The kinds of a Value. The zero Value is null.
const (
	Null ValueKind = iota
	False
	True
	NumberValue
	StringValue
	Array
	ObjectValue
)

// Value is one JSON value. It is shared between VMs, so nobody changes what
// hangs from it.
type Value struct {
	Kind    ValueKind
	Text    string  // the characters of a string, the spelling of a number
	Items   []Value // of an array
	Members Object  // of an object
}

// Member is one member of an object.
type Member struct {
	Name  string
	Value Value
}

// Object is the members of a JSON object in the order in which they were given.
// No two have the same name.
type Object []Member

// Get finds a member by its name.
func (o Object) Get(name string) (Value, bool) {
	if i := o.index(name); i >= 0 {
		return o[i].Value, true
	}
	return Value{}, false
}

// index is where the member is, or -1. Objects are small, but for tags and
// metadata in odd payloads, and those who walk them use positions.
func (o Object) index(name string) int {
	for i := range o {
		if o[i].Name == name {
			return i
		}
	}
	return -1
}

// text is the member's string, or "" when it is no string or not there.
func (o Object) text(name string) string {
	v, _ := o.Get(name)
	if v.Kind != StringValue {
		return ""
	}
	return v.Text
}

// with is a new Object in which the member has the value: in its old place, or
// at the end.
func (o Object) with(name string, v Value) Object {
	next := make(Object, len(o), len(o)+1)
	copy(next, o)
	if i := next.index(name); i >= 0 {
		next[i].Value = v
		return next
	}
	return append(next, Member{name, v})
}

// positions are the indices of the members by their names.
func (o Object) positions() map[string]int {
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
	return v.Members.equal(w.Members)
}

// equal is Equal for the members of two objects.
func (o Object) equal(p Object) bool {
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

// str is s as a JSON string.
func str(s string) Value { return Value{Kind: StringValue, Text: s} }

// member is a member of an object, or null.
func (v Value) member(name string) Value {
	m, _ := v.Members.Get(name)
	return m
}

// scalar is the text of a string, number or boolean. ok is false for the rest.
func (v Value) scalar() (text string, ok bool) {
	switch v.Kind {
	case StringValue, NumberValue:
		return v.Text, true
	case True:
		return "true", true
	case False:
		return "false", true
	}
	return "", false
}

// texts are the strings of an array.
func texts(v Value) []string {
	var list []string
	for _, item := range v.Items {
		if item.Kind == StringValue {
			list = append(list, item.Text)
		}
	}
	return list
}

// AppendJSON appends the value as JavaScript's JSON.stringify writes it: no
// blanks, and no character escaped that JSON does not ask for.
func (v Value) AppendJSON(b []byte) []byte {
	switch v.Kind {
	case StringValue:
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
	case ObjectValue:
		return v.Members.appendJSON(b)
	case Null:
		return append(b, "null"...)
	}
	text, _ := v.scalar()
	return append(b, text...)
}

// appendJSON is AppendJSON for an object.
func (o Object) appendJSON(b []byte) []byte {
	b = append(b, '{')
	for i := range o {
		b = appendName(b, o[i].Name)
		b = o[i].Value.AppendJSON(b)
	}
	return append(b, '}')
}

// appendName appends a member's name and colon, after a comma unless the object
// has just been opened.
func appendName(b []byte, name string) []byte {
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

// ParseValue reads exactly one JSON value. Everything but its blanks is kept:
// the order of members and the spelling of numbers. A member that appears twice,
// text that is not UTF-8, half of a surrogate pair and a nesting deeper than
// MaxDepth are errors (errs.Invalid), since to go on would lose something.
func ParseValue(b []byte) (Value, error) {
	if !utf8.Valid(b) {
		return Value{}, errs.New(errs.Invalid, "JSON: the text is not UTF-8")
	}
	p := parser{in: b}
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	if p.blank(); p.at < len(p.in) {
		return Value{}, p.wrong("the end")
	}
	return v, nil
}
