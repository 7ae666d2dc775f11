package vm

import (
	"meta9/fs/errs"
	"meta9/fs/vm/ordjson"
)

// Setting is one metadata value that is given to a VM.
type Setting struct {
	Space Space
	Name  string
	Value string
	Kind  Kind
}

// New makes a VM of its properties, among which is its uuid in canonical form, and
// of its metadata, in the order of creation. It takes props over. The one Change is
// Created. The errors are those of Limits: TooLarge or NoSpace, and Invalid for a
// key that is given twice.
func New(props ordjson.Members, sets []Setting, st Stamp, lim Limits) (*VM, []Change, error) {
	v := &VM{UUID: props.Text(PropUUID), Props: props, Mtime: st.Now}
	if err := lim.checkAll(sets); err != nil {
		return nil, nil, err
	}
	v.ID, v.Rev = st.NextID(IDsPerVM), st.NextRev()
	var entries [NumSpaces][]*Entry
	for _, w := range sets {
		e := &Entry{
			ID: st.NextID(1), Rev: v.Rev, Mtime: st.Now, Mode: 0o600,
			Kind: w.Kind, Name: w.Name, Value: w.Value, Muid: st.By,
		}
		entries[w.Space] = append(entries[w.Space], e)
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
	p, err := ordjson.Parse(props)
	if err != nil {
		return nil, err
	}
	if p.Kind != ordjson.Object {
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
			v.Props = placeholder(v.Props, s)
		}
		for _, e := range entries[s] {
			v.bytes += e.bytes()
		}
	}
	return nil
}

// checkAll checks the limits for a VM that has just these entries.
func (l Limits) checkAll(sets []Setting) error {
	var bytes int64
	for _, w := range sets {
		if err := l.checkValue(w.Name, len(w.Value)); err != nil {
			return err
		}
		bytes += int64(len(w.Name) + len(w.Value))
	}
	if err := l.checkKeys(0, len(sets)); err != nil {
		return err
	}
	return l.checkBytes(0, bytes)
}
