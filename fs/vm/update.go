package vm

import (
	"slices"
	"strings"

	"meta9/fs/errs"
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
	_, meta := spaceOf(prop)
	return (meta || prop == "tags" || prop == "routes") && (verb == "set_" || verb == "remove_")
}

// draft is what an update makes of a VM, before anything is changed.
type draft struct {
	props Object
	sets  []setting
	gone  []keyRef
}

// keyRef names a key.
type keyRef struct {
	space Space
	name  string
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
func (e *Edit) Update(patch []byte, st Stamp, lim Limits) error {
	d, err := e.draft(patch)
	if err != nil {
		return err
	}
	saved := *e
	e.VM() // so that what follows is done on copies
	if err := e.apply(d, st, lim); err != nil {
		*e = saved
		return err
	}
	return nil
}

// draft reads an update and checks all but the limits.
func (e *Edit) draft(patch []byte) (draft, error) {
	o, err := parseObject(patch)
	if err != nil {
		return draft{}, err
	}
	d := draft{props: e.vm.Props}
	for _, verb := range verbs {
		if err := d.takeAll(verb, o); err != nil {
			return draft{}, err
		}
	}
	if d.props, err = checkProps(d.props); err != nil {
		return draft{}, err
	}
	if uuid := d.props.text("uuid"); uuid != e.vm.UUID {
		return draft{}, errs.New(errs.Invalid, "uuid: cannot change, it is %s", e.vm.UUID)
	}
	return d, nil
}

// takeAll notes the members of an update that have the verb.
func (d *draft) takeAll(verb string, o Object) error {
	var plain Object
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
		d.sets = append(d.sets, sets...)
		if !meta {
			plain = append(plain, m)
		}
	}
	d.props = d.props.merge(plain)
	return nil
}

// take notes one member of an update, m, which applies verb to prop.
func (d *draft) take(verb, prop string, m Member) error {
	if s, ok := spaceOf(prop); ok {
		return d.metadata(verb, s, m)
	}
	old, _ := d.props.Get(prop)
	if err := checkProp(Member{prop, old}); err != nil {
		return err
	}
	next, err := Value{}, error(nil)
	if l, ok := lists[prop]; ok {
		next.Kind = Array
		next.Items, err = l.edit(verb, old.Items, m)
	} else {
		next.Kind = ObjectValue
		next.Members, err = old.Members.edit(verb, m)
	}
	if err != nil {
		return err
	}
	if old.Kind != Null || len(next.Items)+len(next.Members) > 0 {
		d.props = d.props.with(prop, next)
	}
	return nil
}

// metadata notes set_ or remove_ of a space's keys.
func (d *draft) metadata(verb string, s Space, m Member) error {
	if verb == "set_" {
		sets, err := readSettings(s, m.Name, m.Value)
		d.sets = append(d.sets, sets...)
		return err
	}
	names, err := readNames(m)
	for _, name := range names {
		d.gone = append(d.gone, keyRef{s, name})
	}
	return err
}

// readNames reads a list of names.
func readNames(m Member) ([]string, error) {
	if !isTexts.check(m.Value) {
		return nil, wrongType(m.Name, isTexts.must)
	}
	return texts(m.Value), nil
}

// edit is the object after set_X or remove_X. Like all that follows it copies;
// the old values stay.
func (o Object) edit(verb string, m Member) (Object, error) {
	if verb == "set_" {
		if m.Value.Kind != ObjectValue {
			return nil, wrongType(m.Name, isObject.must)
		}
		return o.merge(m.Value.Members), nil
	}
	names, err := readNames(m)
	gone := make(Object, len(names))
	for i, name := range names {
		gone[i].Name = name
	}
	return o.merge(gone), err
}

// edit is the items of the list after add_X, update_X or remove_X.
func (l list) edit(verb string, items []Value, m Member) ([]Value, error) {
	items = slices.Clone(items)
	at := l.positions(items)
	if verb == "remove_" {
		return l.remove(items, at, m)
	}
	if !isObjects.check(m.Value) {
		return nil, wrongType(m.Name, isObjects.must)
	}
	for _, item := range m.Value.Items {
		id := l.identOf(item.Members)
		i, there := at[id]
		switch {
		case id == "":
			return nil, errs.New(errs.Invalid, "%s: %s: missing", m.Name, l.ident)
		case verb == "add_" && there:
			return nil, errs.New(errs.Invalid, "%s: %s %q is there already", m.Name, l.ident, clip(id))
		case verb == "add_":
			at[id] = len(items)
			items = append(items, item)
		case !there:
			return nil, errs.New(errs.Invalid, "%s: no %s %q", m.Name, l.ident, clip(id))
		default:
			items[i].Members = items[i].Members.merge(item.Members)
		}
	}
	return items, nil
}

// remove takes the named ones out of items, whose positions are at.
func (l list) remove(items []Value, at map[string]int, m Member) ([]Value, error) {
	names, err := readNames(m)
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		id := l.canonical(name)
		if _, there := at[id]; !there {
			return nil, errs.New(errs.Invalid, "%s: no %s %q", m.Name, l.ident, clip(name))
		}
		gone[id] = true
	}
	return slices.DeleteFunc(items, func(v Value) bool { return gone[l.identOf(v.Members)] }), err
}

// merge is the object with each member of the patch in it; null takes one away.
func (o Object) merge(patch Object) Object {
	at := o.positions()
	next := slices.Clone(o)
	gone := make(map[string]bool)
	for _, m := range patch {
		i, there := at[m.Name]
		switch {
		case m.Value.Kind == Null:
			gone[m.Name] = true
		case there:
			next[i].Value = m.Value
		default:
			next = append(next, m)
		}
	}
	return slices.DeleteFunc(next, func(m Member) bool { return gone[m.Name] })
}

// apply changes what the draft has otherwise than the VM. The limits of the VM
// are checked at the end, since the order of the keys must not matter.
func (e *Edit) apply(d draft, st Stamp, lim Limits) error {
	count, bytes := e.vm.Count(), e.vm.bytes
	if !d.props.equal(e.vm.Props) {
		e.ownVM()
		e.vm.Props = d.props
		e.change(Change{Type: Changed}, st)
	}
	given := make(map[keyRef]bool, len(d.sets))
	for _, w := range d.sets {
		given[keyRef{w.space, w.name}] = true
	}
	for _, k := range d.gone {
		if !given[k] {
			e.Remove(k.space, k.name, st)
		}
	}
	for _, w := range d.sets {
		old := e.Get(w.space, w.name)
		if old != nil && old.Value == w.value && old.Kind == w.kind {
			continue
		}
		if _, err := e.set(w, st, Limits{Value: lim.Value}); err != nil {
			return err
		}
	}
	if err := lim.checkKeys(count, e.vm.Count()-count); err != nil {
		return err
	}
	return lim.checkBytes(bytes, e.vm.bytes-bytes)
}
