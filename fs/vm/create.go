package vm

import (
	"encoding/base64"

	"meta9/fs/errs"
)

// setting is one metadata value that is given to a VM.
type setting struct {
	space Space
	name  string
	value string
	kind  Kind
}

// Create makes a VM of a payload in the shape of vmadm's: one JSON object with a
// uuid. Unknown properties are kept. The metadata's order is that of creation.
// The one Change is Created. The error is Invalid, and names the field and the
// rule, or NameTooLong, TooLarge or NoSpace for a key.
func Create(payload []byte, st Stamp, lim Limits) (*VM, []Change, error) {
	props, sets, err := readPayload(payload)
	if err != nil {
		return nil, nil, err
	}
	v := &VM{UUID: props.text("uuid"), Props: props, Mtime: st.Now}
	if err := lim.checkAll(sets); err != nil {
		return nil, nil, err
	}
	v.ID, v.Rev = st.NextID(IDsPerVM), st.NextRev()
	var entries [NumSpaces][]*Entry
	for _, w := range sets {
		e := &Entry{
			ID: st.NextID(1), Rev: v.Rev, Mtime: st.Now, Mode: 0o600,
			Kind: w.kind, Name: w.name, Value: w.value, Muid: st.By,
		}
		entries[w.space] = append(entries[w.space], e)
	}
	if err := v.fill(entries); err != nil {
		return nil, nil, err
	}
	return v, []Change{{Type: Created, Rev: v.Rev}}, nil
}

// Restore makes a VM of what a store has of it: props is what AppendRecord gave.
// It takes over the entries, which may come in any order. The error is Invalid,
// and says what is damaged.
func Restore(uuid string, id, rev uint64, mtime int64, props []byte, entries [NumSpaces][]*Entry) (*VM, error) {
	if err := ValidUUID(uuid); err != nil {
		return nil, err
	}
	p, err := ParseValue(props)
	if err != nil {
		return nil, err
	}
	if p.Kind != ObjectValue {
		return nil, errs.New(errs.Invalid, "the properties are no JSON object")
	}
	v := &VM{UUID: uuid, ID: id, Rev: rev, Mtime: mtime, Props: p.Members}
	if err := v.fill(entries); err != nil {
		return nil, err
	}
	return v, nil
}

// fill gives a VM its entries.
func (v *VM) fill(entries [NumSpaces][]*Entry) error {
	for s := range NumSpaces {
		sp, err := makeSpace(entries[s])
		if err != nil {
			return errs.New(errs.Invalid, "%s: %s", s.Member(), errs.Detail(err))
		}
		v.spaces[s] = sp
		if len(entries[s]) > 0 {
			v.Props = v.Props.placeholder(s)
		}
		for _, e := range entries[s] {
			v.bytes += e.bytes()
		}
	}
	return nil
}

// readPayload checks a payload for Create and takes its metadata out of it.
func readPayload(payload []byte) (Object, []setting, error) {
	o, err := parseObject(payload)
	if err != nil {
		return nil, nil, err
	}
	if _, ok := o.Get("uuid"); !ok {
		return nil, nil, errs.New(errs.Invalid, "uuid: missing")
	}
	var sets []setting
	props := make(Object, 0, len(o))
	for _, m := range o {
		if verb, _ := splitVerb(m.Name); verb != "" {
			return nil, nil, errs.New(errs.Invalid, "%s: is for an update; a new VM is given its properties whole", m.Name)
		}
		more, meta, err := readMetadata(m)
		switch {
		case err != nil:
			return nil, nil, err
		case meta && m.Name == BinaryMember:
		case meta:
			props = append(props, Member{Name: m.Name})
		default:
			props = append(props, m)
		}
		sets = append(sets, more...)
	}
	if props, err = checkProps(props); err != nil {
		return nil, nil, err
	}
	return props, sets, nil
}

// parseObject reads a payload that must be an object.
func parseObject(payload []byte) (Object, error) {
	v, err := ParseValue(payload)
	if err != nil {
		return nil, err
	}
	if v.Kind != ObjectValue {
		return nil, errs.New(errs.Invalid, "a VM is a JSON object")
	}
	return v.Members, nil
}

// readMetadata reads a member that holds metadata; meta is false for any other.
func readMetadata(m Member) (sets []setting, meta bool, err error) {
	if s, ok := spaceOf(m.Name); ok {
		sets, err = readSettings(s, m.Name, m.Value)
		return sets, true, err
	}
	if m.Name == BinaryMember {
		sets, err = readBinary(m.Value)
		return sets, true, err
	}
	return nil, false, nil
}

// readSettings reads {NAME: string, number or boolean}.
func readSettings(s Space, field string, v Value) ([]setting, error) {
	if v.Kind != ObjectValue {
		return nil, wrongType(field, "an object of keys and their values")
	}
	sets := make([]setting, 0, len(v.Members))
	for _, m := range v.Members {
		text, ok := m.Value.scalar()
		if !ok {
			return nil, wrongType(field+"."+clip(m.Name), "a string, a number or a boolean")
		}
		kind := Text
		switch m.Value.Kind {
		case NumberValue:
			kind = Number
		case True, False:
			kind = Bool
		}
		if err := ValidKey(m.Name); err != nil {
			return nil, errs.New(errs.KindOf(err), "%s: %s", field, errs.Detail(err))
		}
		sets = append(sets, setting{s, m.Name, text, kind})
	}
	return sets, nil
}

// readBinary reads BinaryMember's value.
func readBinary(v Value) ([]setting, error) {
	if v.Kind != ObjectValue {
		return nil, wrongType(BinaryMember, "an object")
	}
	var sets []setting
	for _, m := range v.Members {
		field := BinaryMember + "." + clip(m.Name)
		s, ok := spaceOf(m.Name)
		if !ok {
			return nil, errs.New(errs.Invalid, "%s: the members are customer_metadata and internal_metadata", field)
		}
		more, err := readSettings(s, field, m.Value)
		if err != nil {
			return nil, err
		}
		for i := range more {
			b, err := base64.StdEncoding.DecodeString(more[i].value)
			if err != nil || more[i].kind != Text {
				return nil, wrongType(field+"."+clip(more[i].name), "a string in base64")
			}
			more[i].value = string(b)
		}
		sets = append(sets, more...)
	}
	return sets, nil
}

// checkAll checks the limits for a VM that has just these entries.
func (l Limits) checkAll(sets []setting) error {
	var bytes int64
	for _, w := range sets {
		if err := l.checkValue(w.name, len(w.value)); err != nil {
			return err
		}
		bytes += int64(len(w.name) + len(w.value))
	}
	if err := l.checkKeys(0, len(sets)); err != nil {
		return err
	}
	return l.checkBytes(0, bytes)
}

// wrongType is the error for a field that is not what its rule asks for.
func wrongType(field, want string) error {
	return errs.New(errs.Invalid, "%s: must be %s", field, want)
}
