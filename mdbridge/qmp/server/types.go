package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/mdbridge/qmp"
)

// typ is a type of the schema, in the terms of QEMU's introspection
// (qapi/introspect.json). One that is not builtin has no name in it but a number.
type typ struct {
	meta     string // "builtin", "enum", "array", "object"
	name     string // of a builtin
	json     string // what a builtin is in JSON, by the introspection
	expected string // the same, by the errors
	values   []string
	elem     *typ
	members  []member
}

// member is a member of an object type.
type member struct {
	name     string
	typ      *typ
	optional bool
}

// The builtin types. The introspection calls a free object "any": it has no word for it.
var (
	strType    = &typ{meta: "builtin", name: "str", json: "string", expected: "string"}
	intType    = &typ{meta: "builtin", name: "int", json: "int", expected: "integer"}
	boolType   = &typ{meta: "builtin", name: "bool", json: "boolean", expected: "boolean"}
	anyType    = &typ{meta: "builtin", name: "any", json: "value"}
	freeObject = &typ{meta: "builtin", name: "any", json: "value", expected: "object"}
	emptyType  = object()
)

// array, enum and object make types of others.
func array(of *typ) *typ { return &typ{meta: "array", elem: of, expected: "array"} }

func enum(values ...string) *typ { return &typ{meta: "enum", values: values, expected: "string"} }

func object(members ...member) *typ {
	return &typ{meta: "object", members: members, expected: "object"}
}

// required and optional make members.
func required(name string, t *typ) member { return member{name, t, false} }

func optional(name string, t *typ) member { return member{name, t, true} }

// generic makes an error of the class GenericError, which most errors have (qmp-spec, 2.4.2).
func generic(format string, args ...any) *qmp.Error {
	return &qmp.Error{Class: qmp.GenericError, Desc: fmt.Sprintf(format, args...)}
}

// failure is the answer to a command that failed.
func failure(err error) *qmp.Error {
	if text := errs.Detail(err); text != "" {
		return generic("%s", text)
	}
	return generic("%v", err)
}

// arguments are a command's, by name, when they were checked: strings, int64s,
// bools and []any; a free object is its text.
type arguments map[string]any

func (a arguments) str(name string) string {
	s, _ := a[name].(string)
	return s
}

// check reads the members of an object of type t; path is what its own name is.
// All of them are checked before anything is done with one (section 5). The order
// of the errors is QEMU's: the members by the schema, then those that are not in
// it.
func (t *typ) check(path string, given map[string]json.RawMessage) (arguments, *qmp.Error) {
	args := make(arguments, len(given))
	for _, m := range t.members {
		raw, ok := given[m.name]
		if !ok {
			if !m.optional {
				return nil, generic("Parameter '%s' is missing", path+m.name)
			}
			continue
		}
		value, err := m.typ.read(path+m.name, raw)
		if err != nil {
			return nil, err
		}
		args[m.name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.ContainsFunc(t.members, func(m member) bool { return m.name == name }) {
			return nil, generic("Parameter '%s' is unexpected", path+name)
		}
	}
	return args, nil
}

// read makes a value of type t from its text.
func (t *typ) read(name string, raw json.RawMessage) (any, *qmp.Error) {
	// The Decoder has checked that raw is JSON, so its first byte tells the kind.
	wrong := generic("Invalid parameter type for '%s', expected: %s", name, t.expected)
	switch {
	case t.meta == "object":
		var members map[string]json.RawMessage
		if raw[0] != '{' || json.Unmarshal(raw, &members) != nil {
			return nil, wrong
		}
		args, err := t.check(name+".", members)
		return map[string]any(args), err
	case t.meta == "array":
		return t.readArray(name, raw, wrong)
	case t == freeObject && raw[0] == '{', t == anyType:
		return string(raw), nil
	case t == intType:
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			return n, nil
		}
	case t == boolType && (raw[0] == 't' || raw[0] == 'f'):
		return raw[0] == 't', nil
	case t.expected == "string" && raw[0] == '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return nil, wrong
		}
		return s, t.allows(name, s)
	}
	return nil, wrong
}

// readArray is read for an array; elements are named as QEMU names them, with
// their index.
func (t *typ) readArray(name string, raw json.RawMessage, wrong *qmp.Error) (any, *qmp.Error) {
	var items []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		return nil, wrong
	}
	values := make([]any, 0, len(items))
	for i, item := range items {
		v, err := t.elem.read(name+"["+strconv.Itoa(i)+"]", item)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// allows checks a string against the values of an enum.
func (t *typ) allows(name, s string) *qmp.Error {
	if t.meta == "enum" && !slices.Contains(t.values, s) {
		return generic("Parameter '%s' does not accept value '%s'", name, strings.ToValidUTF8(s, "?"))
	}
	return nil
}
