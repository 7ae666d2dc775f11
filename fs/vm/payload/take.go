package payload

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// takeMembers takes the members of an object by a table, as vmadm takes them: what
// it has to say unsets a property is null in the result, and a member that the table
// lacks stays as it is. prefix stands before the name in an error.
func takeMembers(table map[string]property, prefix string, o ordjson.Members) (ordjson.Members, error) {
	taken := make(ordjson.Members, len(o))
	for i, m := range o {
		v, err := takeMember(table, prefix, m)
		if err != nil {
			return nil, err
		}
		taken[i] = ordjson.Member{Name: m.Name, Value: v}
	}
	return taken, nil
}

// takeMember is takeMembers for one member.
func takeMember(table map[string]property, prefix string, m ordjson.Member) (ordjson.Value, error) {
	p, known := table[m.Name]
	if !known {
		return m.Value, nil
	}
	if p.kind == objectsKind {
		return takeObjects(m)
	}
	v, must := p.take(m.Value)
	if r, ok := rules[m.Name]; ok && must == isText.must {
		must = r.must // it says which text
	}
	if must != "" {
		return ordjson.Value{}, wrongValue(prefix+m.Name, must, m.Value)
	}
	return v, nil
}

// takeProp takes a whole property. Of a list it also makes what edit does.
func takeProp(m ordjson.Member) (ordjson.Value, error) {
	v, err := takeMember(table, "", m)
	if l, ok := lists[m.Name]; ok && err == nil {
		v.Items, err = l.edit("", nil, m.Name, v.Items)
	}
	return v, err
}

// takeObjects takes a list and the members of its objects. m is the list itself, or
// the add_ or update_ that names it.
func takeObjects(m ordjson.Member) (ordjson.Value, error) {
	if unset(m.Value) {
		return ordjson.Value{}, nil
	}
	if !isObjects.check(m.Value) {
		return ordjson.Value{}, wrongValue(m.Name, isObjects.must, m.Value)
	}
	_, list := splitVerb(m.Name)
	taken := ordjson.Value{Kind: ordjson.Array, Items: make([]ordjson.Value, len(m.Value.Items))}
	for i, item := range m.Value.Items {
		o, err := takeMembers(members[list], m.Name+"."+strconv.Itoa(i)+".", item.Members)
		if err != nil {
			return ordjson.Value{}, err
		}
		taken.Items[i] = ordjson.Value{Kind: ordjson.Object, Members: o}
	}
	return taken, nil
}

// unset says whether a value is how a payload unsets a property.
func unset(v ordjson.Value) bool {
	return v.Kind == ordjson.Null || v.Kind == ordjson.String && v.Text == ""
}

// take is the value as the property has it, null where it unsets it; must says what
// the property must be where it is not that.
func (p property) take(v ordjson.Value) (_ ordjson.Value, must string) {
	if p.kind == anyKind {
		return v, ""
	}
	if unset(v) {
		return ordjson.Value{}, ""
	}
	switch p.kind {
	case textKind:
		return v, isText.unless(v)
	case uuidKind:
		return v, isUUID.unless(v)
	case boolKind:
		return takeBool(v)
	case integerKind:
		return p.takeInteger(v)
	case flatKind:
		return v, isTags.unless(v)
	case listKind:
		return takeList(v)
	}
	return v, isObjects.unless(v)
}

func takeBool(v ordjson.Value) (ordjson.Value, string) {
	switch s, _ := v.Scalar(); s {
	case "true", "1":
		return ordjson.Value{Kind: ordjson.True}, ""
	case "false", "0":
		return ordjson.Value{Kind: ordjson.False}, ""
	}
	return v, isBool.must
}

// takeInteger also takes a number that is spelled with a fraction or an exponent,
// and writes it as JavaScript does, without.
func (p property) takeInteger(v ordjson.Value) (ordjson.Value, string) {
	s, _ := v.Scalar()
	if p.none && s == "none" && v.Kind == ordjson.String {
		return v, ""
	}
	s = strings.TrimSpace(s)
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && numeric(v) {
		const exact = 1 << 53 // past it a float64 leaves integers out
		f, ferr := strconv.ParseFloat(s, 64)
		if ferr == nil && f == math.Trunc(f) && math.Abs(f) <= exact {
			n, err = int64(f), nil
		}
	}
	if err != nil || (v.Kind != ordjson.Number && v.Kind != ordjson.String) || n < p.min || p.max != 0 && n > p.max {
		return v, p.integer()
	}
	return ordjson.Value{Kind: ordjson.Number, Text: strconv.FormatInt(n, 10)}, ""
}

// integer says which integers the property takes.
func (p property) integer() string {
	if p.max == 0 {
		return fmt.Sprintf("an integer, at least %d", p.min)
	}
	return fmt.Sprintf("an integer from %d to %d", p.min, p.max)
}

func takeList(v ordjson.Value) (ordjson.Value, string) {
	if v.Kind == ordjson.String {
		return splitList(v.Text), ""
	}
	return v, isScalars.unless(v)
}

// splitList is a list that was given as text.
func splitList(s string) ordjson.Value {
	list := ordjson.Value{Kind: ordjson.Array}
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list.Items = append(list.Items, ordjson.Str(item))
		}
	}
	return list
}

// wrongValue is the error for a field whose value is not what it must be.
func wrongValue(field, must string, v ordjson.Value) error {
	return wrongType(field, must+", not "+vm.Clip(string(v.AppendJSON(nil))))
}

// wrongType is wrongValue without the value.
func wrongType(field, must string) error {
	return errs.New(errs.Invalid, "%s: must be %s", field, must)
}
