package vm

import (
	"encoding/base64"
	"slices"
	"unicode/utf8"

	"meta9/fs/vm/ordjson"
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
		b = ordjson.AppendName(b, m.Name)
		if s, ok := SpaceOf(m.Name); ok {
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
	b = append(ordjson.AppendName(b, BinaryMember), '{')
	empty := true
	for s := range NumSpaces {
		before := len(b)
		var n int
		b, n = v.appendSpace(ordjson.AppendName(b, s.Member()), s, guest, true)
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
	for e := range v.spaces[s].all() {
		if binary == utf8.ValidString(e.Value) || guest && !v.GuestSees(s, e.Name) {
			continue
		}
		n++
		b = ordjson.AppendName(b, e.Name)
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
func (v *VM) AppendRecord(b []byte) []byte { return v.Props.AppendJSON(b) }

// Object is the VM as AppendJSON shows it to an admin.
func (v *VM) Object() ordjson.Members {
	o := slices.Clone(v.Props)
	var binary ordjson.Members
	for s := range NumSpaces {
		i := o.Index(s.Member())
		if i < 0 {
			continue
		}
		text, encoded := v.spaces[s].objects()
		o[i].Value = ordjson.Value{Kind: ordjson.Object, Members: text}
		if len(encoded) > 0 {
			binary = append(binary, ordjson.Member{Name: s.Member(), Value: ordjson.Value{Kind: ordjson.Object, Members: encoded}})
		}
	}
	if len(binary) > 0 {
		o = append(o, ordjson.Member{Name: BinaryMember, Value: ordjson.Value{Kind: ordjson.Object, Members: binary}})
	}
	return o
}

// objects are the entries that are UTF-8, and the others in base64.
func (sp *space) objects() (text, encoded ordjson.Members) {
	for e := range sp.all() {
		if !utf8.ValidString(e.Value) {
			b64 := base64.StdEncoding.EncodeToString([]byte(e.Value))
			encoded = append(encoded, ordjson.Member{Name: e.Name, Value: ordjson.Str(b64)})
			continue
		}
		text = append(text, ordjson.Member{Name: e.Name, Value: e.value()})
	}
	return text, encoded
}

// value is the entry's value in JSON.
func (e *Entry) value() ordjson.Value {
	switch {
	case e.Kind == Number:
		return ordjson.Value{Kind: ordjson.Number, Text: e.Value}
	case e.Kind == Bool && e.Value == "true":
		return ordjson.Value{Kind: ordjson.True}
	case e.Kind == Bool:
		return ordjson.Value{Kind: ordjson.False}
	}
	return ordjson.Str(e.Value)
}
