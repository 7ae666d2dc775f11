package payload

import (
	"slices"
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// verbs are what may stand before the name of a property in an update, in the order in
// which they are applied: plain values first, so that remove_ takes out of them, too; and
// remove_ before set_ and add_, so that what these give again is there. The order is that of
// properties. A key that an update gives a value in any way is never removed (vm.Draft).
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
//   - a plain member replaces the property, null or "" removes it; the uuid cannot
//     change;
//   - set_X and remove_X (a list of names) change members of the object X, which
//     is customer_metadata, internal_metadata, tags or routes;
//   - add_X, update_X (lists of objects) and remove_X (a list of names) change
//     elements of the list X: nics by mac, disks and pci_devices by path, filesystems
//     by target;
//   - customer_metadata and internal_metadata set the keys that they name and
//     leave the others, as does BinaryMember.
//
// Values are taken, and NICs and disks completed, as Create does: who changes an
// address in one spelling changes both, and who makes a NIC primary ends the old
// one's being so. What the payload does not name stays as it is. A value that is there
// already is no change. It does all or nothing; the errors are those of Create.
func Update(e *vm.Edit, patch []byte, st vm.Stamp, lim vm.Limits) error {
	d, err := readUpdate(patch, e.Now(), lim)
	if err != nil {
		return err
	}
	return e.Apply(vm.Draft(d), st, lim)
}

// draft is what an update makes of a VM.
type draft vm.Draft

// readUpdate reads an update of v and checks all but the limits of its metadata.
func readUpdate(patch []byte, v *vm.VM, lim vm.Limits) (draft, error) {
	o, err := parseObject(patch, lim)
	if err != nil {
		return draft{}, err
	}
	d := draft{Props: v.Props}
	for _, verb := range verbs {
		if err := d.takeAll(verb, o); err != nil {
			return draft{}, err
		}
	}
	named := func(prop string) bool {
		return slices.ContainsFunc(o, func(m ordjson.Member) bool { _, p := splitVerb(m.Name); return p == prop })
	}
	if err = wholeLists(d.Props, v.Props, named); err != nil {
		return draft{}, err
	}
	if err = checkProps(d.Props, v.Props); err != nil {
		return draft{}, err
	}
	if d.Props, err = canonicalUUID(d.Props); err != nil {
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
		if meta {
			continue
		}
		if m.Value, err = takeProp(m); err != nil {
			return err
		}
		if m.Value.Kind == ordjson.Null {
			m.Value = restore(m.Name, d.Props)
		}
		plain = append(plain, m)
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
	if err := checkMember(rules, "", ordjson.Member{Name: prop, Value: old}); err != nil {
		return err
	}
	next, err := ordjson.Value{}, error(nil)
	if l, ok := lists[prop]; ok {
		next.Kind = ordjson.Array
		next.Items, err = l.change(verb, old.Items, m)
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
	v := m.Value
	if v.Kind == ordjson.String {
		v = splitList(v.Text)
	}
	if !isTexts.check(v) {
		return nil, wrongType(m.Name, isTexts.must)
	}
	return v.Texts(), nil
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

// change is the items of the list after add_X, update_X or remove_X, which m is.
func (l list) change(verb string, items []ordjson.Value, m ordjson.Member) ([]ordjson.Value, error) {
	if verb == "remove_" {
		return l.remove(slices.Clone(items), m)
	}
	v, err := takeObjects(m)
	if err != nil {
		return nil, err
	}
	if v.Kind == ordjson.Null {
		return nil, wrongType(m.Name, isObjects.must)
	}
	if l.List == vm.NICs && len(v.Items) > 1 {
		if _, err := primary(v.Items, nil); err != nil {
			return nil, err
		}
	}
	return l.edit(verb, slices.Clone(items), m.Name, v.Items)
}

// edit puts objects into the list, which is the caller's own: new ones for the verbs
// "" and add_, into those that have their names for update_. field is their member of
// the payload. An object that is new may lack its name where vmadm gives it one.
func (l list) edit(verb string, items []ordjson.Value, field string, objects []ordjson.Value) ([]ordjson.Value, error) {
	at := l.Positions(items)
	for n, o := range objects {
		id := l.IdentOf(o.Members)
		i, there := at[id]
		switch {
		case id == "" && (verb == "update_" || verb == "add_" && l.List != vm.NICs && l.List != vm.Disks):
			return nil, errs.New(errs.Invalid, "%s: %s: missing", field, l.Ident)
		case verb == "add_" && there:
			return nil, errs.New(errs.Invalid, "%s: %s %q is there already", field, l.Ident, vm.Clip(id))
		case verb == "update_" && !there:
			return nil, errs.New(errs.Invalid, "%s: no %s %q", field, l.Ident, vm.Clip(id))
		case verb != "update_":
			i = len(items)
			items = append(items, ordjson.Value{Kind: ordjson.Object})
			if id != "" {
				at[id] = i
			}
		}
		next := merge(items[i].Members, o.Members)
		if l.List == vm.NICs {
			var err error
			if next, err = spell(field+"."+strconv.Itoa(n)+".", next, o.Members, items[i].Members); err != nil {
				return nil, err
			}
		}
		items[i].Members = next
	}
	return items, nil
}

// remove takes the named ones out of items, which are the caller's own.
func (l list) remove(items []ordjson.Value, m ordjson.Member) ([]ordjson.Value, error) {
	at := l.Positions(items)
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

// merge is a new object with each member of the patch in it; null takes one away.
func merge(o, patch ordjson.Members) ordjson.Members {
	next := append(make(ordjson.Members, 0, len(o)+len(patch)+4), o...)
	at := next.Index
	if len(patch) > fewMembers {
		places := o.Positions()
		at = func(name string) int {
			if i, there := places[name]; there {
				return i
			}
			return -1
		}
	}
	for _, m := range patch {
		switch i := at(m.Name); {
		case i >= 0:
			next[i].Value = m.Value
		case m.Value.Kind != ordjson.Null:
			next = append(next, m)
		}
	}
	if !slices.ContainsFunc(patch, isNull) {
		return next
	}
	gone := make(map[string]bool)
	for _, m := range patch {
		gone[m.Name] = isNull(m)
	}
	return slices.DeleteFunc(next, func(m ordjson.Member) bool { return gone[m.Name] })
}

// fewMembers is about where looking through members costs as much as a map of them.
const fewMembers = 16

func isNull(m ordjson.Member) bool { return m.Value.Kind == ordjson.Null }
