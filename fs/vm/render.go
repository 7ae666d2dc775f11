package vm

import (
	"encoding/base64"
	"unicode/utf8"
)

// BinaryMember is the member of a VM's JSON that carries the values that are not
// UTF-8, in base64: {"customer_metadata":{NAME:BASE64},"internal_metadata":{...}}.
const BinaryMember = "__meta9_binary"

// AppendJSON appends the whole VM as one compact JSON object, its members in the
// order in which they were given. For a guest it lacks the entries that
// GuestSees hides. BinaryMember comes last, when there is a value for it.
func (v *VM) AppendJSON(b []byte, guest bool) []byte {
	b = append(b, '{')
	for i := range v.Props {
		m := &v.Props[i]
		b = appendName(b, m.Name)
		if s, ok := spaceOf(m.Name); ok {
			b, _ = v.appendSpace(b, s, guest, false)
			continue
		}
		b = m.Value.AppendJSON(b)
	}
	return append(v.appendBinary(b, guest), '}')
}

// appendBinary appends BinaryMember, or nothing.
func (v *VM) appendBinary(b []byte, guest bool) []byte {
	start := len(b)
	b = append(appendName(b, BinaryMember), '{')
	empty := true
	for s := range NumSpaces {
		before := len(b)
		var n int
		b, n = v.appendSpace(appendName(b, s.Member()), s, guest, true)
		if n == 0 {
			b = b[:before]
			continue
		}
		empty = false
	}
	if empty {
		return b[:start]
	}
	return append(b, '}')
}

// appendSpace appends the entries of the space as an object: those that are
// UTF-8, or the others in base64. n is how many.
func (v *VM) appendSpace(b []byte, s Space, guest, binary bool) (_ []byte, n int) {
	b = append(b, '{')
	for _, e := range v.spaces[s].byID {
		if binary == utf8.ValidString(e.Value) || guest && !v.GuestSees(s, e.Name) {
			continue
		}
		n++
		b = appendName(b, e.Name)
		if binary {
			b = base64.StdEncoding.AppendEncode(append(b, '"'), []byte(e.Value))
			b = append(b, '"')
			continue
		}
		b = e.value().AppendJSON(b)
	}
	return append(b, '}'), n
}

// AppendRecord appends the properties alone as JSON, which Restore reads. The
// entries are stored each by itself.
func (v *VM) AppendRecord(b []byte) []byte { return v.Props.appendJSON(b) }
