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
// order in which they were given. For a guest it lacks the properties that are
// OfHost and the entries that GuestSees hides. BinaryMember comes last, when there is a value for it.
func (v *VM) AppendJSON(b []byte, guest bool) []byte {
	p := ordjson.Pieces{Text: b}
	v.WriteJSON(&p, guest)
	return p.Text
}

// JSONSize is how many bytes AppendJSON appends. It takes the memory of one piece.
func (v *VM) JSONSize(guest bool) (size int) {
	const piece = 32 << 10
	p := ordjson.NewPieces(make([]byte, 0, 2*piece), piece, func(text []byte) error {
		size += len(text)
		return nil
	})
	v.WriteJSON(p, guest)
	return size + len(p.Text)
}

// WriteJSON appends to p what AppendJSON does.
func (v *VM) WriteJSON(p *ordjson.Pieces, guest bool) {
	var binary [NumSpaces]int // values that are for BinaryMember
	p.Text = append(p.Text, '{')
	for i := range v.Props {
		m := &v.Props[i]
		if guest && OfHost(m.Name) {
			continue
		}
		p.Text = ordjson.AppendName(p.Text, m.Name)
		if s, ok := SpaceOf(m.Name); ok {
			binary[s] = v.space(p, s, guest, false)
			continue
		}
		p.Value(m.Value)
	}
	if binary != [NumSpaces]int{} {
		p.Text = append(ordjson.AppendName(p.Text, BinaryMember), '{')
		for s := range NumSpaces {
			if binary[s] > 0 {
				p.Text = ordjson.AppendName(p.Text, s.Member())
				v.space(p, s, guest, true)
			}
		}
		p.Text = append(p.Text, '}')
	}
	p.Text = append(p.Text, '}')
}

// space appends the entries of the space as an object: those that are UTF-8, or the
// others in base64. others is how many were left out as not of that kind.
func (v *VM) space(p *ordjson.Pieces, s Space, guest, binary bool) (others int) {
	p.Text = append(p.Text, '{')
	for e := range v.spaces[s].all() {
		if guest && !v.GuestSees(s, e.Name) {
			continue
		}
		if binary == utf8.ValidString(e.Value) {
			others++
			continue
		}
		p.Text = ordjson.AppendName(p.Text, e.Name)
		if binary {
			appendBase64(p, e.Value)
			continue
		}
		p.Value(e.value())
	}
	p.Text = append(p.Text, '}')
	return others
}

// appendBase64 appends bytes as a string, a part at a time.
func appendBase64(p *ordjson.Pieces, value string) {
	const part = 3 << 13 // without padding but for the last
	p.Text = append(p.Text, '"')
	for len(value) > 0 {
		n := min(len(value), part)
		p.Text = base64.StdEncoding.AppendEncode(p.Text, []byte(value[:n]))
		value = value[n:]
		p.Cut()
	}
	p.Text = append(p.Text, '"')
}

// AppendRecord appends the properties alone as JSON, which Restore reads. The
// entries are stored each by itself.
func (v *VM) AppendRecord(b []byte) []byte { return v.Props.AppendJSON(b) }

// ObjectBeside is the VM as AppendJSON shows it to an admin, to be compared with that
// of w, which may be nil: what both share has the value null, since it is the same and
// may be large.
func (v *VM) ObjectBeside(w *VM) ordjson.Members {
	o := slices.Clone(v.Props)
	var binary ordjson.Members
	for s := range NumSpaces {
		i := o.Index(s.Member())
		if i < 0 {
			continue
		}
		var same *space
		if w != nil {
			same = &w.spaces[s]
		}
		text, encoded := v.spaces[s].objects(same)
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

// objects are the entries that are UTF-8, and the others in base64. Those that the
// other space, which may be nil, has too are null.
func (sp *space) objects(same *space) (text, encoded ordjson.Members) {
	for e := range sp.all() {
		m := ordjson.Member{Name: e.Name}
		shared := same != nil && same.getID(e.ID) == e
		if utf8.ValidString(e.Value) {
			if !shared {
				m.Value = e.value()
			}
			text = append(text, m)
			continue
		}
		if !shared {
			m.Value = ordjson.Str(base64.StdEncoding.EncodeToString([]byte(e.Value)))
		}
		encoded = append(encoded, m)
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
