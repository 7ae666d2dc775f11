package server

import (
	"slices"
	"strings"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// action is what a difference says of its place: "added", "removed" or "changed".
type action string

// The actions, as vminfod names them.
const (
	wasAdded   action = "added"
	wasRemoved action = "removed"
	wasChanged action = "changed"
)

// step is one element of a path: a member's name, or some element of an array.
type step struct {
	name string
	any  bool // some element; name is ""
}

// difference is one change between two VMs, as vminfod's modify event has it.
type difference struct {
	path   []step
	action action
	old    ordjson.Value // unless wasAdded
	new    ordjson.Value // unless wasRemoved
	ident  string        // the mac of the NIC or the path of the disk that it is in, or ""
}

// differences is what changed from one VM to another by vminfod's rules: in the order
// of the old VM's members, then what the new one has more; arrays are compared
// as sets, and the NICs and disks of both by their mac and path. Metadata is
// compared as AppendJSON shows it to an admin.
// same: the JSON of both is the same too. It may differ with nothing found, by the order
// of an array.
func differences(from, to *vm.VM) (found []difference, same bool) {
	var d differ
	a, b := from.ObjectBeside(to), to.ObjectBeside(from)
	d.objects(nil, a, b)
	return d.found, len(d.found) == 0 && a.Equal(b)
}

// paired are the lists whose objects are matched by mac or path. vminfod compares objects
// in other lists as a whole.
var paired = map[string]vm.List{vm.PropNICs: vm.NICs, vm.PropDisks: vm.Disks}

// differ gathers differences. ident is that of the element it is in.
type differ struct {
	found []difference
	ident string
}

// note adds a difference with the identifier of the element that is walked.
func (d *differ) note(path []step, a action, from, to ordjson.Value) {
	d.found = append(d.found, difference{path, a, from, to, d.ident})
}

// below is the path with one more step, in memory of its own.
func below(path []step, s step) []step {
	return append(slices.Clip(path), s)
}

// objects walks the old members for what was removed and changed, then the new
// ones for what was added.
func (d *differ) objects(path []step, from, to ordjson.Members) {
	there := to.Positions()
	here := from.Positions()
	for _, m := range from {
		at := below(path, step{name: m.Name})
		if i, ok := there[m.Name]; ok {
			d.values(at, m.Name, m.Value, to[i].Value)
		} else {
			d.note(at, wasRemoved, m.Value, ordjson.Value{})
		}
	}
	for _, m := range to {
		if _, ok := here[m.Name]; !ok {
			d.note(below(path, step{name: m.Name}), wasAdded, ordjson.Value{}, m.Value)
		}
	}
}

// values compares two values at one path. Those of different kinds are one
// change, however deep they go.
func (d *differ) values(path []step, name string, from, to ordjson.Value) {
	switch {
	case from.Equal(to):
	case from.Kind == ordjson.Object && to.Kind == ordjson.Object:
		d.objects(path, from.Members, to.Members)
	case from.Kind == ordjson.Array && to.Kind == ordjson.Array:
		d.arrays(path, name, from.Items, to.Items)
	default:
		d.note(path, wasChanged, from, to)
	}
}

// arrays compares two arrays as sets of values. Elements of nics and disks that
// are in one set only are the same element when they have the same identifier.
func (d *differ) arrays(path []step, name string, from, to []ordjson.Value) {
	at := below(path, step{any: true})
	removed, added := missing(from, to), missing(to, from)
	var pairs [][2]ordjson.Value
	l, named := paired[name]
	named = named && len(path) == 1
	if named {
		removed, added, pairs = pair(l, removed, added)
	}
	for _, v := range removed {
		d.note(at, wasRemoved, v, ordjson.Value{})
	}
	for _, p := range pairs {
		d.ident = p[0].Members.Text(l.Ident)
		d.objects(at, p[0].Members, p[1].Members)
		d.ident = ""
	}
	for _, v := range added {
		d.note(at, wasAdded, ordjson.Value{}, v)
	}
}

// pair finds the objects that have the same identifier in both lists.
func pair(l vm.List, a, b []ordjson.Value) (onlyA, onlyB []ordjson.Value, pairs [][2]ordjson.Value) {
	there := l.Positions(b)
	paired := make(map[int]bool)
	for _, v := range a {
		if i, ok := there[l.IdentOf(v.Members)]; ok {
			pairs = append(pairs, [2]ordjson.Value{v, b[i]})
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
func missing(a, b []ordjson.Value) []ordjson.Value {
	var list []ordjson.Value
	for _, v := range a {
		if !slices.ContainsFunc(b, v.Equal) {
			list = append(list, v)
		}
	}
	return list
}

// prettyPath is the path for people: names and "*" joined by dots; a name with a dot or
// a bracket is put in brackets.
func (d difference) prettyPath() string {
	var b strings.Builder
	for _, s := range d.path {
		name := s.name
		if s.any {
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

// value is the change as vminfod writes it: prettyPath, path (null for
// some element), action, oldValue, newValue, ident, without those that it has not.
func (d difference) value() ordjson.Value {
	path := ordjson.Value{Kind: ordjson.Array}
	for _, s := range d.path {
		step := ordjson.Str(s.name)
		if s.any {
			step = ordjson.Value{}
		}
		path.Items = append(path.Items, step)
	}
	o := ordjson.Members{
		{Name: "prettyPath", Value: ordjson.Str(d.prettyPath())},
		{Name: "path", Value: path},
		{Name: "action", Value: ordjson.Str(string(d.action))},
	}
	if d.action != wasAdded {
		o = append(o, ordjson.Member{Name: "oldValue", Value: d.old})
	}
	if d.action != wasRemoved {
		o = append(o, ordjson.Member{Name: "newValue", Value: d.new})
	}
	if d.ident != "" {
		o = append(o, ordjson.Member{Name: "ident", Value: ordjson.Str(d.ident)})
	}
	return ordjson.Value{Kind: ordjson.Object, Members: o}
}
