package payload

import (
	"slices"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// verbs are what may stand before the name of a property in an update, in the
// order in which they are applied: so that what is removed and given again in
// one update is there after it.
var verbs = [...]string{"", "remove_", "update_", "set_", "add_"}

// splitVerb is the verb and the property of a member of an update. verb is ""
// for a plain property, also for one that only looks like a verb.
func splitVerb(member string) (verb, prop string) {
	for _, verb := range verbs[1:] {
		prop, ok := strings.CutPrefix(member, verb)
		if ok && takesVerb(verb, prop) {
			return verb, prop
		}
	}
	return "", member
}

// takesVerb says whether an update may have the verb for the property.
func takesVerb(verb, prop string) bool {
	if _, ok := lists[prop]; ok {
		return verb != "set_"
	}
	_, meta := vm.SpaceOf(prop)
	return (meta || prop == vm.PropTags || prop == vm.PropRoutes) && (verb == "set_" || verb == "remove_")
}

// Update applies a payload in the shape of vmadm update's:
//
//   - a plain member replaces the property, null removes it; the uuid cannot change;
//   - set_X and remove_X (a list of names) change members of the object X, which
//     is customer_metadata, internal_metadata, tags or routes;
//   - add_X, update_X (lists of objects) and remove_X (a list of names) change
//     elements of the list X: nics by mac, disks by path, filesystems by target;
//   - customer_metadata and internal_metadata set the keys that they name and
//     leave the others, as does BinaryMember.
//
// A value that is there already is no change. It does all or nothing; the errors
// are those of Create.
func Update(e *vm.Edit, patch []byte, st vm.Stamp, lim vm.Limits) error {
	d, err := readUpdate(patch, e.VM())
	if err != nil {
		return err
	}
	return e.Apply(vm.Draft(d), st, lim)
}

// draft is what an update makes of a VM.
type draft vm.Draft

// readUpdate reads an update of v and checks all but the limits.
func readUpdate(patch []byte, v *vm.VM) (draft, error) {
	o, err := parseObject(patch)
	if err != nil {
		return draft{}, err
	}
	d := draft{Props: v.Props}
	for _, verb := range verbs {
		if err := d.takeAll(verb, o); err != nil {
			return draft{}, err
		}
	}
	if d.Props, err = checkProps(d.Props); err != nil {
		return draft{}, err
	}
	if uuid := d.Props.Text(vm.PropUUID); uuid != v.UUID {
		return draft{}, errs.New(errs.Invalid, "uuid: cannot change, it is %s", v.UUID)
	}
	return d, nil
}

// takeAll notes the members of an update that have the verb.
func (d *draft) takeAll(verb string, o ordjson.Members) error {
	var plain ordjson.Members
	for _, m := range o {
		v, prop := splitVerb(m.Name)
		if v != verb {
			continue
		}
		if v != "" {
			if err := d.take(verb, prop, m); err != nil {
				return err
			}
			continue
		}
		sets, meta, err := readMetadata(m)
		if err != nil {
			return err
		}
		d.Sets = append(d.Sets, sets...)
		if !meta {
			plain = append(plain, m)
		}
	}
	d.Props = merge(d.Props, plain)
	return nil
}

// take notes one member of an update, m, which applies verb to prop.
func (d *draft) take(verb, prop string, m ordjson.Member) error {
	if s, ok := vm.SpaceOf(prop); ok {
		return d.metadata(verb, s, m)
	}
	old, _ := d.Props.Get(prop)
	if err := checkProp(ordjson.Member{Name: prop, Value: old}); err != nil {
		return err
	}
	next, err := ordjson.Value{}, error(nil)
	if l, ok := lists[prop]; ok {
		next.Kind = ordjson.Array
		next.Items, err = l.edit(verb, old.Items, m)
	} else {
		next.Kind = ordjson.Object
		next.Members, err = editObject(old.Members, verb, m)
	}
	if err != nil {
		return err
	}
	if old.Kind != ordjson.Null || len(next.Items)+len(next.Members) > 0 {
		d.Props = d.Props.With(prop, next)
	}
	return nil
}

// metadata notes set_ or remove_ of a space's keys.
func (d *draft) metadata(verb string, s vm.Space, m ordjson.Member) error {
	if verb == "set_" {
		sets, err := readSettings(s, m.Name, m.Value)
		d.Sets = append(d.Sets, sets...)
		return err
	}
	names, err := readNames(m)
	for _, name := range names {
		d.Gone = append(d.Gone, vm.KeyRef{Space: s, Name: name})
	}
	return err
}

// readNames reads a list of names.
func readNames(m ordjson.Member) ([]string, error) {
	if !isTexts.check(m.Value) {
		return nil, wrongType(m.Name, isTexts.must)
	}
	return m.Value.Texts(), nil
}

// editObject is the object after set_X or remove_X. Like all that follows it copies;
// the old values stay.
func editObject(o ordjson.Members, verb string, m ordjson.Member) (ordjson.Members, error) {
	if verb == "set_" {
		if m.Value.Kind != ordjson.Object {
			return nil, wrongType(m.Name, isObject.must)
		}
		return merge(o, m.Value.Members), nil
	}
	names, err := readNames(m)
	gone := make(ordjson.Members, len(names))
	for i, name := range names {
		gone[i].Name = name
	}
	return merge(o, gone), err
}

// edit is the items of the list after add_X, update_X or remove_X.
func (l list) edit(verb string, items []ordjson.Value, m ordjson.Member) ([]ordjson.Value, error) {
	items = slices.Clone(items)
	at := l.Positions(items)
	if verb == "remove_" {
		return l.remove(items, at, m)
	}
	if !isObjects.check(m.Value) {
		return nil, wrongType(m.Name, isObjects.must)
	}
	for _, item := range m.Value.Items {
		id := l.IdentOf(item.Members)
		i, there := at[id]
		switch {
		case id == "":
			return nil, errs.New(errs.Invalid, "%s: %s: missing", m.Name, l.Ident)
		case verb == "add_" && there:
			return nil, errs.New(errs.Invalid, "%s: %s %q is there already", m.Name, l.Ident, vm.Clip(id))
		case verb == "add_":
			at[id] = len(items)
			items = append(items, item)
		case !there:
			return nil, errs.New(errs.Invalid, "%s: no %s %q", m.Name, l.Ident, vm.Clip(id))
		default:
			items[i].Members = merge(items[i].Members, item.Members)
		}
	}
	return items, nil
}

// remove takes the named ones out of items, whose positions are at.
func (l list) remove(items []ordjson.Value, at map[string]int, m ordjson.Member) ([]ordjson.Value, error) {
	names, err := readNames(m)
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		id := l.Canonical(name)
		if _, there := at[id]; !there {
			return nil, errs.New(errs.Invalid, "%s: no %s %q", m.Name, l.Ident, vm.Clip(name))
		}
		gone[id] = true
	}
	return slices.DeleteFunc(items, func(v ordjson.Value) bool { return gone[l.IdentOf(v.Members)] }), err
}

// merge is the object with each member of the patch in it; null takes one away.
func merge(o, patch ordjson.Members) ordjson.Members {
	at := o.Positions()
	next := slices.Clone(o)
	gone := make(map[string]bool)
	for _, m := range patch {
		i, there := at[m.Name]
		switch {
		case m.Value.Kind == ordjson.Null:
			gone[m.Name] = true
		case there:
			next[i].Value = m.Value
		default:
			next = append(next, m)
		}
	}
	return slices.DeleteFunc(next, func(m ordjson.Member) bool { return gone[m.Name] })
}
