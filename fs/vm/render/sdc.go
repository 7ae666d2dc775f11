// Package render is what is derived of a VM for its guest: what the metadata
// protocol answers for sdc:NAME, and the files of cloud-init's NoCloud source. It
// has no state, and reads only.
package render

import (
	"strconv"
	"strings"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// How SmartOS's agent answers sdc:NAME: some names have a rule of their own, the
// rest is the VM object flattened one or two levels deep, and only strings,
// numbers and booleans are values.

// wholeJSON are the properties that sdc: gives as JSON.
var wholeJSON = map[string]bool{vm.PropNICs: true, vm.PropResolvers: true, "tmpfs": true}

// fromInternal are the names that sdc: takes from internal_metadata, by their
// keys there.
var fromInternal = map[string]string{"operator-script": "operator-script", "volumes": "sdc:volumes"}

// flattened are the properties whose insides are values too, and what finds the
// one that comes after the property's name and a dot, or null.
var flattened = map[string]func(v ordjson.Value, rest string) ordjson.Value{
	vm.PropTags: ordjson.Value.Member, vm.PropRoutes: ordjson.Value.Member, // X.k, where k may have dots
	vm.PropResolvers: item, vm.PropNamespaces: item, // X.N
	vm.PropNICs: cell, vm.PropDisks: cell, "pci_devices": cell, // X.N.k
}

// item is the element of an array at an index, which is written in decimal without zeros
// in front ("7", not "07"); null where there is none.
func item(v ordjson.Value, index string) ordjson.Value {
	i, err := strconv.ParseUint(index, 10, 31)
	if err != nil || i >= uint64(len(v.Items)) || strconv.FormatUint(i, 10) != index {
		return ordjson.Value{}
	}
	return v.Items[i]
}

// cell is a member of an element of an array of objects, by "N.member", or null.
func cell(v ordjson.Value, rest string) ordjson.Value {
	index, name, ok := strings.Cut(rest, ".")
	if !ok {
		return ordjson.Value{}
	}
	return item(v, index).Member(name)
}

// Sdc is what the key sdc:NAME has for a guest; name comes without "sdc:". It
// never leads into the metadata, except to the operator's script and volumes.
func Sdc(v *vm.VM, name string) (value string, ok bool) {
	if key, ok := fromInternal[name]; ok {
		e := v.Get(vm.Internal, key)
		if e == nil {
			return "", false
		}
		return e.Value, true
	}
	prop, rest, deep := strings.Cut(name, ".")
	if find := flattened[prop]; deep && find != nil {
		val, _ := v.Prop(prop)
		return find(val, rest).Scalar()
	}
	val, _ := v.Prop(name)
	return sdcWhole(v, ordjson.Member{Name: name, Value: val})
}

// sdcWhole is the value of a whole property.
func sdcWhole(v *vm.VM, m ordjson.Member) (value string, ok bool) {
	switch {
	case !sdcReaches(m.Name):
		return "", false
	case m.Name == vm.PropRoutes && m.Value.Kind == ordjson.Object:
		return string(sdcRoutes(v, m.Value.Members).AppendJSON(nil)), true
	case wholeJSON[m.Name] && m.Value.Kind != ordjson.Null:
		return string(m.Value.AppendJSON(nil)), true
	}
	return m.Value.Scalar()
}

// sdcReaches is false for a property whose name is that of something else: what
// is inside another property, or never to be reached here; and for one of the host's.
func sdcReaches(name string) bool {
	prop, _, deep := strings.Cut(name, ".")
	_, meta := vm.SpaceOf(prop)
	return fromInternal[name] == "" && !vm.OfHost(name) && !(deep && (meta || flattened[prop] != nil))
}

// SdcNames are the names that Sdc has a value for, in the order of the
// properties; those that cannot be file names are left out.
func SdcNames(v *vm.VM) []string {
	var l sdcNames
	for _, m := range v.Props {
		_, ok := sdcWhole(v, m)
		l.add(m.Name, ok)
		if flattened[m.Name] != nil {
			l.inside(m)
		}
	}
	for _, name := range [...]string{"operator-script", "volumes"} {
		l.add(name, v.Get(vm.Internal, fromInternal[name]) != nil)
	}
	return l
}

// sdcNames gathers names that have a value.
type sdcNames []string

// add takes a name that has a value, if it can be a file's.
func (l *sdcNames) add(name string, ok bool) {
	if ok && vm.ValidKey(name) == nil {
		*l = append(*l, name)
	}
}

// inside adds what is in a property that is flattened.
func (l *sdcNames) inside(m ordjson.Member) {
	find := func(rest string) {
		_, ok := flattened[m.Name](m.Value, rest).Scalar()
		l.add(m.Name+"."+rest, ok)
	}
	for _, inner := range m.Value.Members {
		find(inner.Name)
	}
	for i, item := range m.Value.Items {
		at := strconv.Itoa(i)
		find(at)
		for _, inner := range item.Members {
			find(at + "." + inner.Name)
		}
	}
}

// sdcRoutes is the property as the agent shows it: [{linklocal, dst, gateway}]. A
// gateway "nics[N]" or "macs[MAC]" is that NIC's own address; the route is left
// out when it has none.
func sdcRoutes(v *vm.VM, routes ordjson.Members) ordjson.Value {
	nics, _ := v.Prop(vm.PropNICs)
	list := ordjson.Value{Kind: ordjson.Array}
	for _, r := range routes {
		linklocal, gateway := ordjson.False, r.Value.Text
		if i, named := routeNIC(v, gateway); named {
			linklocal, gateway = ordjson.True, ""
			if i >= 0 {
				gateway = nics.Items[i].Members.Text("ip")
			}
			if gateway == "" || gateway == "dhcp" {
				continue
			}
		}
		list.Items = append(list.Items, ordjson.Value{Kind: ordjson.Object, Members: ordjson.Members{
			{Name: "linklocal", Value: ordjson.Value{Kind: linklocal}},
			{Name: "dst", Value: ordjson.Str(r.Name)},
			{Name: "gateway", Value: ordjson.Str(gateway)},
		}})
	}
	return list
}

// routeNIC is the index of the NIC that a route's value names, or -1 for one that is
// not there; named is false when the value is an address.
func routeNIC(v *vm.VM, value string) (i int, named bool) {
	nics, _ := v.Prop(vm.PropNICs)
	value, ok := strings.CutSuffix(value, "]")
	if !ok {
		return 0, false
	}
	if n, ok := strings.CutPrefix(value, "nics["); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i < len(nics.Items) && strconv.Itoa(i) == n {
			return i, true
		}
		return -1, true
	}
	mac, ok := strings.CutPrefix(value, "macs[")
	if !ok {
		return 0, false
	}
	if i, ok := vm.NICs.Positions(nics.Items)[vm.NICs.Canonical(mac)]; ok {
		return i, true
	}
	return -1, true
}
