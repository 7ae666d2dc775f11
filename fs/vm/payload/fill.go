package payload

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// stateInstalled is the state of a VM that nobody has run yet: vmadm's word for a zone
// that is there and has not booted. A VM whose hypervisor has ended is stopped. They
// must differ: Ansible's vmadm module takes a VM that is stopped right after its creation
// for one that could not be stopped.
const stateInstalled = "installed"

// standing are the properties that every new VM has, with the values that they have
// unless a payload gives others: vmadm's readers rely on them. Those of the spaces are
// places only.
func standing(uuid string) [6]ordjson.Member {
	empty := ordjson.Value{Kind: ordjson.Object}
	return [...]ordjson.Member{
		{Name: vm.PropZonename, Value: ordjson.Str(uuid)},
		{Name: vm.PropState, Value: ordjson.Str(stateInstalled)},
		{Name: vm.Keys.Member()},
		{Name: vm.Internal.Member()},
		{Name: vm.PropTags, Value: empty},
		{Name: vm.PropRoutes, Value: empty},
	}
}

// fill gives a new VM the standing properties that it lacks. props has the uuid.
func fill(props ordjson.Members) ordjson.Members {
	for _, m := range standing(props.Text(vm.PropUUID)) {
		if props.Index(m.Name) < 0 {
			props = append(props, m)
		}
	}
	return props
}

// restore is what an update that removes the property makes of it: null, or its
// standing value where the VM has it.
func restore(name string, props ordjson.Members) ordjson.Value {
	for _, m := range standing(props.Text(vm.PropUUID)) {
		if m.Name == name && props.Index(name) >= 0 {
			return m.Value
		}
	}
	return ordjson.Value{}
}

// wholeLists gives the NICs and disks of props, which are the caller's own, what vmadm
// gives them. was is the VM before; named says which lists the payload names: only
// those are touched, so that what an older VM has stays as it was written until
// somebody changes it.
func wholeLists(props, was ordjson.Members, named func(prop string) bool) error {
	if i := props.Index(vm.PropNICs); i >= 0 && props[i].Value.Kind == ordjson.Array && named(vm.PropNICs) {
		before, _ := was.Get(vm.PropNICs)
		items := copies(props[i].Value.Items)
		for n, nic := range items { // for those of an older VM that nothing was said of
			if !hasAny(nic.Members, nicIPs) {
				items[n].Members, _ = spell("", nic.Members, nil, nic.Members)
			}
		}
		if err := wholeNICs(props.Text(vm.PropUUID), items, before.Items); err != nil {
			return err
		}
		props[i].Value.Items = items
	}
	if i := props.Index(vm.PropDisks); i >= 0 && props[i].Value.Kind == ordjson.Array && named(vm.PropDisks) {
		props[i].Value.Items = wholeDisks(props, props[i].Value.Items)
	}
	return nil
}

// copies are the objects of a list, with room for what a NIC gets.
func copies(items []ordjson.Value) []ordjson.Value {
	list := slices.Clone(items)
	for i, item := range list {
		list[i].Members = append(make(ordjson.Members, 0, len(item.Members)+8), item.Members...)
	}
	return list
}

// wholeDisks gives each disk a path, by which updates name it: that of the volume
// which vmadm would make for it.
func wholeDisks(props ordjson.Members, disks []ordjson.Value) []ordjson.Value {
	uuid := props.Text(vm.PropUUID)
	stem := uuid + "-disk"
	if props.Text("brand") == "bhyve" {
		stem = uuid + "/disk"
	}
	taken := map[string]bool{}
	for _, d := range disks {
		taken[vm.Disks.IdentOf(d.Members)] = true
	}
	disks = slices.Clone(disks)
	n := 0
	for i, d := range disks {
		if vm.Disks.IdentOf(d.Members) != "" {
			continue
		}
		pool := "zones"
		for _, o := range []ordjson.Members{props, d.Members} {
			if p := o.Text("zpool"); p != "" {
				pool = p
			}
		}
		path, next := freeName("/dev/zvol/rdsk/"+pool+"/"+stem, n, taken)
		n, taken[path] = next, true
		disks[i].Members = d.Members.With(vm.Disks.Ident, ordjson.Str(path))
	}
	return disks
}

// checkRoutes checks {DESTINATION: GATEWAY}: an address or a network, and an address,
// nics[N] or macs[MAC]. Those that were there before are right.
func checkRoutes(routes, was ordjson.Value) error {
	for _, r := range routes.Members {
		if old, there := was.Members.Get(r.Name); there && old.Equal(r.Value) {
			continue
		}
		_, err := netip.ParseAddr(r.Name)
		if _, err2 := netip.ParsePrefix(r.Name); err != nil && err2 != nil {
			return errs.New(errs.Invalid, "routes: %q must be an address or a network such as 10.0.0.0/8", vm.Clip(r.Name))
		}
		if _, err := netip.ParseAddr(r.Value.Text); err != nil && !namesNIC(r.Value.Text) {
			return wrongValue("routes."+vm.Clip(r.Name), "an IP address, nics[N] or macs[MAC]", r.Value)
		}
	}
	return nil
}

// namesNIC says whether a route's gateway is one of the VM's NICs.
func namesNIC(gateway string) bool {
	inner, ok := strings.CutSuffix(gateway, "]")
	if n, is := strings.CutPrefix(inner, "nics["); ok && is {
		_, err := strconv.ParseUint(n, 10, 16)
		return err == nil
	}
	mac, is := strings.CutPrefix(inner, "macs[")
	return ok && is && macShape(mac)
}

// The quota of a VM's properties: what they may be beside its metadata. A VM of
// SmartOS has some 100 values of 3 KiB.
const (
	maxValues = 16 << 10
	maxBytes  = 256 << 10 // of names and texts
)

// checkQuota checks the size of the properties. Those that have not grown always
// pass, so that a VM of before the quota can be changed.
func checkQuota(props, was ordjson.Members) error {
	values, bytes := props.Measure()
	if values <= maxValues && bytes <= maxBytes {
		return nil
	}
	wasValues, wasBytes := was.Measure()
	if values > maxValues && values > wasValues {
		return errs.New(errs.NoSpace, "%d values are the limit of a VM's properties, these are %d", maxValues, values)
	}
	if bytes > maxBytes && bytes > wasBytes {
		return errs.New(errs.NoSpace, "%d bytes are the limit of a VM's properties, these are %d", maxBytes, bytes)
	}
	return nil
}
