// Package payload makes VMs of payloads in the shape of vmadm's (vmadm(8)), and
// changes them by its updates: which values a property takes, and the verbs set_,
// remove_, add_ and update_.
//
// It has no state; an Edit that is passed in is its caller's.
package payload

import (
	"encoding/base64"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// Create makes a VM of a payload as vmadm does: one JSON object with a uuid. Values
// are taken by their property's kind, what is null or "" is left out, and what a VM
// always has is filled in: zonename, state, the addresses of NICs in both spellings,
// their mac, interface and which is primary, the paths of disks, and empty objects
// (docs/payload.md). Unknown properties are kept as they are. The metadata's order is
// that of creation. The one Change is vm.Created. The error is Invalid, and names the
// field and the rule, or NameTooLong, TooLarge or NoSpace.
func Create(payload []byte, st vm.Stamp, lim vm.Limits) (*vm.VM, []vm.Change, error) {
	props, sets, err := readPayload(payload, lim)
	if err != nil {
		return nil, nil, err
	}
	if props, err = newProps(props); err != nil {
		return nil, nil, err
	}
	return vm.New(props, sets, st, lim)
}

// Keep is Create without what vmadm does: the VM is what the payload says and no
// more, as a mirror has it, whose VMs somebody else's vmadm has made.
func Keep(payload []byte, st vm.Stamp, lim vm.Limits) (*vm.VM, []vm.Change, error) {
	props, sets, err := readPayload(payload, lim)
	if err == nil {
		props, err = keptProps(props, nil)
	}
	if err != nil {
		return nil, nil, err
	}
	return vm.New(props, sets, st, lim)
}

// newProps is the properties of a new VM.
func newProps(given ordjson.Members) (ordjson.Members, error) {
	given, err := canonicalUUID(given)
	if err != nil {
		return nil, err
	}
	props := make(ordjson.Members, 0, len(given)+6) // and those of fill
	for _, m := range given {
		if m.Value, err = takeProp(m); err != nil {
			return nil, err
		}
		_, known := table[m.Name]
		_, space := vm.SpaceOf(m.Name)
		if m.Value.Kind != ordjson.Null || !known || space {
			props = append(props, m)
		}
	}
	if err = wholeLists(props, nil, func(string) bool { return true }); err != nil {
		return nil, err
	}
	if err = checkProps(props, nil); err != nil {
		return nil, err
	}
	return fill(props), nil
}

// keptProps is the properties of a VM that is taken as it is, in place of others.
func keptProps(given, was ordjson.Members) (ordjson.Members, error) {
	for _, m := range given {
		if err := checkProp(m, ordjson.Value{}); err != nil {
			return nil, err
		}
	}
	if err := checkQuota(given, was); err != nil {
		return nil, err
	}
	return canonicalUUID(given)
}

// canonicalUUID gives the uuid its canonical form.
func canonicalUUID(props ordjson.Members) (ordjson.Members, error) {
	v, _ := props.Get(vm.PropUUID)
	if !isUUID.check(v) {
		return nil, wrongValue(vm.PropUUID, isUUID.must, v)
	}
	uuid, err := vm.ParseUUID(v.Text)
	if uuid != v.Text {
		props = props.With(vm.PropUUID, ordjson.Str(uuid))
	}
	return props, err
}

// readPayload reads a payload and takes its metadata out of it.
func readPayload(payload []byte, lim vm.Limits) (ordjson.Members, []vm.Setting, error) {
	o, err := parseObject(payload, lim)
	if err != nil {
		return nil, nil, err
	}
	if _, ok := o.Get(vm.PropUUID); !ok {
		return nil, nil, errs.New(errs.Invalid, "uuid: missing")
	}
	var sets []vm.Setting
	props := make(ordjson.Members, 0, len(o))
	for _, m := range o {
		if verb, _ := splitVerb(m.Name); verb != "" {
			return nil, nil, errs.New(errs.Invalid, "%s: is for an update; a new VM is given its properties whole", m.Name)
		}
		if _, space := vm.SpaceOf(m.Name); space && unset(m.Value) {
			props = append(props, ordjson.Member{Name: m.Name})
			continue
		}
		more, meta, err := readMetadata(m)
		switch {
		case err != nil:
			return nil, nil, err
		case meta && m.Name == vm.BinaryMember:
		case meta:
			props = append(props, ordjson.Member{Name: m.Name})
		default:
			props = append(props, m)
		}
		sets = append(sets, more...)
	}
	return props, sets, nil
}

// parseObject reads a payload that must be an object.
func parseObject(payload []byte, lim vm.Limits) (ordjson.Members, error) {
	most := maxValues + 1<<20
	if lim.Keys > 0 {
		most = maxValues + 4*lim.Keys // an update can set and remove keys of both spaces
	}
	v, err := ordjson.ParseMax(payload, most)
	if err != nil {
		return nil, err
	}
	if v.Kind != ordjson.Object {
		return nil, errs.New(errs.Invalid, "a VM is a JSON object")
	}
	return v.Members, nil
}

// readMetadata reads a member that holds metadata; meta is false for any other.
func readMetadata(m ordjson.Member) (sets []vm.Setting, meta bool, err error) {
	if s, ok := vm.SpaceOf(m.Name); ok {
		sets, err = readSettings(s, m.Name, m.Value)
		return sets, true, err
	}
	if m.Name == vm.BinaryMember {
		sets, err = readBinary(m.Value)
		return sets, true, err
	}
	return nil, false, nil
}

// readSettings reads {NAME: string, number or boolean}.
func readSettings(s vm.Space, field string, v ordjson.Value) ([]vm.Setting, error) {
	if v.Kind != ordjson.Object {
		return nil, wrongType(field, "an object of keys and their values")
	}
	sets := make([]vm.Setting, 0, len(v.Members))
	for _, m := range v.Members {
		text, ok := m.Value.Scalar()
		if !ok {
			return nil, wrongType(field+"."+vm.Clip(m.Name), "a string, a number or a boolean")
		}
		kind := vm.Text
		switch m.Value.Kind {
		case ordjson.Number:
			kind = vm.Number
		case ordjson.True, ordjson.False:
			kind = vm.Bool
		}
		if err := vm.ValidKey(m.Name); err != nil {
			return nil, errs.New(errs.KindOf(err), "%s: %s", field, errs.Detail(err))
		}
		sets = append(sets, vm.Setting{Space: s, Name: m.Name, Value: text, Kind: kind})
	}
	return sets, nil
}

// readBinary reads BinaryMember's value.
func readBinary(v ordjson.Value) ([]vm.Setting, error) {
	if v.Kind != ordjson.Object {
		return nil, wrongType(vm.BinaryMember, "an object")
	}
	var sets []vm.Setting
	for _, m := range v.Members {
		field := vm.BinaryMember + "." + vm.Clip(m.Name)
		s, ok := vm.SpaceOf(m.Name)
		if !ok {
			return nil, errs.New(errs.Invalid, "%s: the members are customer_metadata and internal_metadata", field)
		}
		more, err := readSettings(s, field, m.Value)
		if err != nil {
			return nil, err
		}
		for i := range more {
			b, err := base64.StdEncoding.DecodeString(more[i].Value)
			if err != nil || more[i].Kind != vm.Text {
				return nil, wrongType(field+"."+vm.Clip(more[i].Name), "a string in base64")
			}
			more[i].Value = string(b)
		}
		sets = append(sets, more...)
	}
	return sets, nil
}
