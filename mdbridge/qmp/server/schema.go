package server

import (
	"maps"
	"slices"
	"strconv"
)

// info is one SchemaInfo of query-qmp-schema.
type info map[string]any

// schema is what query-qmp-schema returns: the commands and the events by name,
// then the types that they lead to.
func schema(commands map[string]*command) []info {
	in := introspection{names: make(map[*typ]string), known: make(map[string]bool)}
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		c := commands[name]
		in.add(info{"name": name, "meta-type": "command", "arg-type": in.name(c.args), "ret-type": in.name(c.ret)})
	}
	for _, e := range events {
		in.add(info{"name": e.name, "meta-type": "event", "arg-type": in.name(e.data)})
	}
	for i := 0; i < len(in.types); i++ { // describe finds more of them
		in.add(in.describe(in.types[i]))
	}
	return in.all
}

// introspection gathers the schema.
type introspection struct {
	all   []info
	types []*typ // in the order in which they were named
	names map[*typ]string
	known map[string]bool // names in types
	count int             // of the types that have a number
}

func (in *introspection) add(i info) { in.all = append(in.all, i) }

// name is what the schema calls a type: QEMU, too, hides the names of its own types
// behind numbers, since only their shape is promised.
func (in *introspection) name(t *typ) string {
	if t == freeObject {
		t = anyType
	}
	if name, ok := in.names[t]; ok {
		return name
	}
	name := t.name
	switch {
	case t.meta == "array":
		name = "[" + in.name(t.elem) + "]"
	case name == "":
		name = strconv.Itoa(in.count)
		in.count++
	}
	if !in.known[name] {
		in.types = append(in.types, t)
	}
	in.names[t], in.known[name] = name, true
	return name
}

// describe is the SchemaInfo of a type. values is there beside members for older
// clients, as in QEMU.
func (in *introspection) describe(t *typ) info {
	i := info{"name": in.names[t], "meta-type": t.meta}
	switch t.meta {
	case "builtin":
		i["json-type"] = t.json
	case "array":
		i["element-type"] = in.name(t.elem)
	case "enum":
		i["values"] = append([]string{}, t.values...)
		members := []info{}
		for _, v := range t.values {
			members = append(members, info{"name": v})
		}
		i["members"] = members
	case "object":
		members := []info{}
		for _, m := range t.members {
			d := info{"name": m.name, "type": in.name(m.typ)}
			if m.optional {
				d["default"] = nil
			}
			members = append(members, d)
		}
		i["members"] = members
	}
	return i
}
