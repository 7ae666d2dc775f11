package vm

import (
	"strconv"
	"strings"
)

// How SmartOS's agent answers sdc:NAME: some names have a rule of their own, the
// rest is the VM object flattened one or two levels deep, and only strings,
// numbers and booleans are values.

// wholeJSON are the properties that sdc: gives as JSON.
var wholeJSON = map[string]bool{"nics": true, "resolvers": true, "tmpfs": true}

// fromInternal are the names that sdc: takes from internal_metadata, by their
// keys there.
var fromInternal = map[string]string{"operator-script": "operator-script", "volumes": "sdc:volumes"}

// flattened are the properties whose insides are values too, and what finds the
// one that comes after the property's name and a dot, or null.
var flattened = map[string]func(v Value, rest string) Value{
	"tags": Value.member, "routes": Value.member, // X.k, where k may have dots
	"resolvers": Value.item, "internal_metadata_namespaces": Value.item, // X.N
	"nics": Value.cell, "disks": Value.cell, "pci_devices": Value.cell, // X.N.k
}

// item is the element of an array at an index in decimal, or null.
func (v Value) item(index string) Value {
	i, err := strconv.ParseUint(index, 10, 31)
	if err != nil || i >= uint64(len(v.Items)) || strconv.FormatUint(i, 10) != index {
		return Value{}
	}
	return v.Items[i]
}

// cell is a member of an element of an array of objects, by "N.member", or null.
func (v Value) cell(rest string) Value {
	index, name, ok := strings.Cut(rest, ".")
	if !ok {
		return Value{}
	}
	return v.item(index).member(name)
}

// Sdc is what the key sdc:NAME has for a guest; name comes without "sdc:". It
// never leads into the metadata, except to the operator's script and volumes.
func (v *VM) Sdc(name string) (value string, ok bool) {
	if key, ok := fromInternal[name]; ok {
		e := v.Get(Internal, key)
		if e == nil {
			return "", false
		}
		return e.Value, true
	}
	prop, rest, deep := strings.Cut(name, ".")
	if find := flattened[prop]; deep && find != nil {
		val, _ := v.Prop(prop)
		return find(val, rest).scalar()
	}
	val, _ := v.Prop(name)
	return v.sdcWhole(Member{name, val})
}

// sdcWhole is the value of a whole property.
func (v *VM) sdcWhole(m Member) (value string, ok bool) {
	switch {
	case !sdcReaches(m.Name):
		return "", false
	case m.Name == "routes" && m.Value.Kind == ObjectValue:
		return string(v.routes(m.Value.Members).AppendJSON(nil)), true
	case wholeJSON[m.Name] && m.Value.Kind != Null:
		return string(m.Value.AppendJSON(nil)), true
	}
	return m.Value.scalar()
}

// sdcReaches is false for a property whose name is that of something else: what
// is inside another property, or never to be reached here.
func sdcReaches(name string) bool {
	prop, _, deep := strings.Cut(name, ".")
	_, meta := spaceOf(prop)
	return fromInternal[name] == "" && !(deep && (meta || flattened[prop] != nil))
}

// SdcNames are the names that Sdc has a value for, in the order of the
// properties; those that cannot be file names are left out.
func (v *VM) SdcNames() []string {
	var l sdcNames
	for _, m := range v.Props {
		_, ok := v.sdcWhole(m)
		l.add(m.Name, ok)
		if flattened[m.Name] != nil {
			l.inside(m)
		}
	}
	for _, name := range [...]string{"operator-script", "volumes"} {
		l.add(name, v.Get(Internal, fromInternal[name]) != nil)
	}
	return l
}

// sdcNames gathers names that have a value.
type sdcNames []string

// add takes a name that has a value, if it can be a file's.
func (l *sdcNames) add(name string, ok bool) {
	if ok && ValidKey(name) == nil {
		*l = append(*l, name)
	}
}

// inside adds what is in a property that is flattened.
func (l *sdcNames) inside(m Member) {
	find := func(rest string) {
		_, ok := flattened[m.Name](m.Value, rest).scalar()
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

// routes is the property as the agent shows it: [{linklocal, dst, gateway}]. A
// gateway "nics[N]" or "macs[MAC]" is that NIC's own address; the route is left
// out when it has none.
func (v *VM) routes(routes Object) Value {
	list := Value{Kind: Array}
	for _, r := range routes {
		linklocal, gateway := False, r.Value.Text
		if nic, ok := v.routeNIC(gateway); ok {
			linklocal, gateway = True, nic.text("ip")
			if gateway == "" || gateway == "dhcp" {
				continue
			}
		}
		list.Items = append(list.Items, Value{Kind: ObjectValue, Members: Object{
			{"linklocal", Value{Kind: linklocal}},
			{"dst", str(r.Name)},
			{"gateway", str(gateway)},
		}})
	}
	return list
}

// routeNIC is the NIC that a route's value names; ok is false when the value is
// an address. A NIC that is not there is empty.
func (v *VM) routeNIC(value string) (nic Object, ok bool) {
	nics, _ := v.Prop("nics")
	value, ok = strings.CutSuffix(value, "]")
	if !ok {
		return nil, false
	}
	if n, ok := strings.CutPrefix(value, "nics["); ok {
		return nics.item(n).Members, true
	}
	mac, ok := strings.CutPrefix(value, "macs[")
	if !ok {
		return nil, false
	}
	l := lists["nics"]
	if i, ok := l.positions(nics.Items)[l.canonical(mac)]; ok {
		nic = nics.Items[i].Members
	}
	return nic, true
}
