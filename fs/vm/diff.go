package vm

import (
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"
)

// Action is what a Difference says of its place: "added", "removed" or "changed".
type Action string

// The actions, as vminfod names them.
const (
	WasAdded   Action = "added"
	WasRemoved Action = "removed"
	WasChanged Action = "changed"
)

// Step is one element of a path: a member's name, or some element of an array.
type Step struct {
	Name string
	Any  bool // some element; Name is ""
}

// Difference is one change between two VMs, as vminfod's modify event has it.
type Difference struct {
	Path   []Step
	Action Action
	Old    Value  // unless WasAdded
	New    Value  // unless WasRemoved
	Ident  string // the mac of the NIC or the path of the disk that it is in, or ""
}

// Diff is what changed from one VM to another by vminfod's rules: in the order
// of the old VM's members, then what the new one has more; arrays are compared
// as sets, and the NICs and disks of both by their mac and path. Metadata is
// compared as AppendJSON shows it to an admin.
func Diff(from, to *VM) []Difference {
	var d differ
	d.objects(nil, from.object(), to.object())
	return d.found
}

// object is the VM as AppendJSON shows it to an admin.
func (v *VM) object() Object {
	o := slices.Clone(v.Props)
	var binary Object
	for s := range NumSpaces {
		i := o.index(s.Member())
		if i < 0 {
			continue
		}
		text, encoded := v.spaces[s].objects()
		o[i].Value = Value{Kind: ObjectValue, Members: text}
		if len(encoded) > 0 {
			binary = append(binary, Member{s.Member(), Value{Kind: ObjectValue, Members: encoded}})
		}
	}
	if len(binary) > 0 {
		o = append(o, Member{BinaryMember, Value{Kind: ObjectValue, Members: binary}})
	}
	return o
}

// objects are the entries that are UTF-8, and the others in base64.
func (sp *space) objects() (text, encoded Object) {
	for _, e := range sp.byID {
		if !utf8.ValidString(e.Value) {
			b64 := base64.StdEncoding.EncodeToString([]byte(e.Value))
			encoded = append(encoded, Member{e.Name, str(b64)})
			continue
		}
		text = append(text, Member{e.Name, e.value()})
	}
	return text, encoded
}

// value is the entry's value in JSON.
func (e *Entry) value() Value {
	switch {
	case e.Kind == Number:
		return Value{Kind: NumberValue, Text: e.Value}
	case e.Kind == Bool && e.Value == "true":
		return Value{Kind: True}
	case e.Kind == Bool:
		return Value{Kind: False}
	}
	return str(e.Value)
}

// differ gathers differences. ident is that of the element it is in.
type differ struct {
	found []Difference
	ident string
}

// note adds a difference with the identifier of the element that is walked.
func (d *differ) note(path []Step, a Action, from, to Value) {
	d.found = append(d.found, Difference{path, a, from, to, d.ident})
}

// below is the path with one more step, in memory of its own.
func below(path []Step, s Step) []Step {
	return append(slices.Clip(path), s)
}

// objects walks the old members for what was removed and changed, then the new
// ones for what was added.
func (d *differ) objects(path []Step, from, to Object) {
	there := to.positions()
	here := from.positions()
	for _, m := range from {
		at := below(path, Step{Name: m.Name})
		if i, ok := there[m.Name]; ok {
			d.values(at, m.Name, m.Value, to[i].Value)
		} else {
			d.note(at, WasRemoved, m.Value, Value{})
		}
	}
	for _, m := range to {
		if _, ok := here[m.Name]; !ok {
			d.note(below(path, Step{Name: m.Name}), WasAdded, Value{}, m.Value)
		}
	}
}

// values compares two values at one path. Those of different kinds are one
// change, however deep they go.
func (d *differ) values(path []Step, name string, from, to Value) {
	switch {
	case from.Equal(to):
	case from.Kind == ObjectValue && to.Kind == ObjectValue:
		d.objects(path, from.Members, to.Members)
	case from.Kind == Array && to.Kind == Array:
		d.arrays(path, name, from.Items, to.Items)
	default:
		d.note(path, WasChanged, from, to)
	}
}

// arrays compares two arrays as sets of values. Elements of nics and disks that
// are in one set only are the same element when they have the same identifier.
func (d *differ) arrays(path []Step, name string, from, to []Value) {
	at := below(path, Step{Any: true})
	removed, added := missing(from, to), missing(to, from)
	var pairs [][2]Value
	if l := lists[name]; l.paired && len(path) == 1 {
		removed, added, pairs = l.pair(removed, added)
	}
	for _, v := range removed {
		d.note(at, WasRemoved, v, Value{})
	}
	for _, p := range pairs {
		d.ident = p[0].Members.text(lists[name].ident)
		d.objects(at, p[0].Members, p[1].Members)
		d.ident = ""
	}
	for _, v := range added {
		d.note(at, WasAdded, Value{}, v)
	}
}

// pair takes the objects out of both lists that have the same name in them.
func (l list) pair(a, b []Value) (onlyA, onlyB []Value, pairs [][2]Value) {
	there := l.positions(b)
	paired := make(map[int]bool)
	for _, v := range a {
		if i, ok := there[l.identOf(v.Members)]; ok {
			pairs = append(pairs, [2]Value{v, b[i]})
			paired[i] = true
		} else {
			onlyA = append(onlyA, v)
		}
	}
	for i, v := range b {
		if !paired[i] {
			onlyB = append(onlyB, v)
		}
	}
	return onlyA, onlyB, pairs
}

// missing are the values of a that b has not.
func missing(a, b []Value) []Value {
	var list []Value
	for _, v := range a {
		if !slices.ContainsFunc(b, v.Equal) {
			list = append(list, v)
		}
	}
	return list
}

// PrettyPath is the path for people: names and "*" joined by dots; a name that
// has a dot or a bracket in it stands in brackets.
func (d Difference) PrettyPath() string {
	var b strings.Builder
	for _, s := range d.Path {
		name := s.Name
		if s.Any {
			name = "*"
		}
		switch {
		case strings.ContainsAny(name, ".[]"):
			b.WriteString("[" + escapeBrackets.Replace(name) + "]")
			continue
		case b.Len() > 0:
			b.WriteByte('.')
		}
		b.WriteString(name)
	}
	return b.String()
}

var escapeBrackets = strings.NewReplacer("[", `\[`, "]", `\]`)

// AppendJSON appends the change as vminfod writes it: prettyPath, path (null for
// some element), action, oldValue, newValue, ident, without those that it has not.
func (d Difference) AppendJSON(b []byte) []byte {
	path := Value{Kind: Array}
	for _, s := range d.Path {
		step := str(s.Name)
		if s.Any {
			step = Value{}
		}
		path.Items = append(path.Items, step)
	}
	o := Object{{"prettyPath", str(d.PrettyPath())}, {"path", path}, {"action", str(string(d.Action))}}
	if d.Action != WasAdded {
		o = append(o, Member{"oldValue", d.Old})
	}
	if d.Action != WasRemoved {
		o = append(o, Member{"newValue", d.New})
	}
	if d.Ident != "" {
		o = append(o, Member{"ident", str(d.Ident)})
	}
	return o.appendJSON(b)
}
