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
		for _, m := range o {
			v, prop := splitVerb(m.Name)
			if v != verb {
				continue
			}
			if err := d.take(verb, prop, m); err != nil {
				return draft{}, err
			}
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

// take notes one member of an update, m, which applies verb to prop.
func (d *draft) take(verb, prop string, m Member) error {
	if verb == "" {
		return d.plain(m)
	}
	if s, ok := spaceOf(prop); ok {
		return d.metadata(verb, s, m)
	}
	old, _ := d.props.Get(prop)
	var err error
	if l, ok := lists[prop]; ok {
		old.Kind = Array
		old.Items, err = l.edit(verb, old.Items, m)
	} else {
		old.Kind = ObjectValue
		old.Members, err = old.Members.edit(verb, m)
	}
	if err == nil {
		d.props = d.props.with(prop, old)
	}
	return err
}

func (d *draft) plain(m Member) error {
	sets, meta, err := readMetadata(m)
	switch {
	case err != nil:
		return err
	case meta:
		d.sets = append(d.sets, sets...)
	case m.Value.Kind == Null:
		d.props = d.props.without(m.Name)
	default:
		d.props = d.props.with(m.Name, m.Value)
	}
	return nil
}

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
	var names []string
	for _, item := range m.Value.Items {
		names = append(names, item.Text)
	}
	return names, nil
}

// edit is the object after set_X or remove_X.
func (o Object) edit(verb string, m Member) (Object, error) {
	if verb == "remove_" {
		names, err := readNames(m)
		return slices.DeleteFunc(slices.Clone(o), func(m Member) bool { return slices.Contains(names, m.Name) }), err
	}
	if m.Value.Kind != ObjectValue {
		return nil, wrongType(m.Name, isObject.must)
	}
	return o.merge(m.Value.Members), nil
}

// edit is the items of the list after add_X, update_X or remove_X. They are
// copied; the old ones stay.
func (l list) edit(verb string, items []Value, m Member) ([]Value, error) {
	items = slices.Clone(items)
	if verb == "remove_" {
		return l.remove(items, m)
	}
	if !isObjects.check(m.Value) {
		return nil, wrongType(m.Name, isObjects.must)
	}
	for _, item := range m.Value.Items {
		id := l.identOf(item.Members)
		i := l.index(items, id)
		switch {
		case id == "":
			return nil, errs.New(errs.Invalid, "%s: %s: missing", m.Name, l.ident)
		case verb == "add_" && i >= 0:
			return nil, errs.New(errs.Invalid, "%s: %s %q is there already", m.Name, l.ident, clip(id))
		case verb == "add_":
			items = append(items, item)
		case i < 0:
			return nil, errs.New(errs.Invalid, "%s: no %s %q", m.Name, l.ident, clip(id))
		default:
			items[i].Members = items[i].Members.merge(item.Members)
		}
	}
	return items, nil
}

func (l list) remove(items []Value, m Member) ([]Value, error) {
	names, err := readNames(m)
	for _, id := range names {
		if l.ident == "mac" {
			id = strings.ToLower(id)
		}
		i := l.index(items, id)
		if i < 0 {
			return nil, errs.New(errs.Invalid, "%s: no %s %q", m.Name, l.ident, clip(id))
		}
		items = slices.Delete(items, i, i+1)
	}
	return items, err
}

// index is where the object of that name is, or -1. One without a name is not
// found.
func (l list) index(items []Value, id string) int {
	if id == "" {
		return -1
	}
	return slices.IndexFunc(items, func(v Value) bool { return l.identOf(v.Members) == id })
}

// merge is a new object: o with each member of the patch in it; null takes one
// away.
func (o Object) merge(patch Object) Object {
	at := make(map[string]int, len(o))
	for i := range o {
		at[o[i].Name] = i
	}
	next := slices.Clone(o)
	for _, m := range patch {
		if i, ok := at[m.Name]; ok {
			next[i].Value = m.Value
		} else {
			next = append(next, m)
		}
	}
	return slices.DeleteFunc(next, func(m Member) bool {
		return m.Value.Kind == Null && patch.index(m.Name) >= 0
	})
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
