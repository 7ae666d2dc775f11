package payload

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// A NIC says its addresses twice: as the lists ips and gateways, and as the older ip,
// netmask and gateway, one address each. The lists count (SmartOS's nic.js); the older
// ones are derived from them, for those who read only these.

// The members of a NIC that are filled in or kept together.
const (
	nicMAC       = "mac"
	nicInterface = "interface"
	nicIP        = "ip"
	nicNetmask   = "netmask"
	nicIPs       = "ips"
	nicGateway   = "gateway"
	nicGateways  = "gateways"
	nicPrimary   = "primary"
)

// The addresses that say how a guest finds its own.
const (
	dhcp     = "dhcp"     // for IPv4
	addrconf = "addrconf" // for IPv6
)

func automatic(ip string) bool { return ip == dhcp || ip == addrconf }

// spell brings the spellings of a NIC's addresses and gateways together. given is
// what a payload says of the NIC, null where it unsets something; nic is the NIC with
// that in it, the caller's own to be changed; old is what it was before, empty for a
// new one. field names it in an error. What an older VM has wrong, and given does not name, stays as it is.
func spell(field string, nic, given, old ordjson.Members) (ordjson.Members, error) {
	if mask, ok := given.Get(nicNetmask); ok && !unset(mask) {
		if _, ok := maskBits(mask.Text); !ok {
			return nil, wrongValue(field+nicNetmask, "a netmask such as 255.255.255.0", mask)
		}
	}
	switch ips, err := spellIPs(field, nic, given, old); {
	case err == nil:
		ip, mask := legacy(ips.Texts())
		nic = setText(setText(set(nic, nicIPs, ips), nicIP, ip), nicNetmask, mask)
	case len(old) == 0 || hasAny(given, nicIPs, nicIP, nicNetmask):
		return nil, err
	}
	switch gateways, err := spellGateways(field, nic, given); {
	case err == nil && len(gateways.Items) == 0:
		return without(nic, nicGateway, nicGateways), nil
	case err == nil:
		return setText(set(nic, nicGateways, gateways), nicGateway, gateways.Items[0].Text), nil
	case len(old) == 0 || hasAny(given, nicGateways, nicGateway):
		return nil, err
	}
	return nic, nil
}

// hasAny says whether the object has one of the members, be it null.
func hasAny(o ordjson.Members, names ...string) bool {
	return slices.ContainsFunc(o, func(m ordjson.Member) bool { return slices.Contains(names, m.Name) })
}

// spellIPs is what ips is to be: as given; else made of the ip and netmask that are
// given, with the other half from before; else as it was.
func spellIPs(field string, nic, given, old ordjson.Members) (ordjson.Value, error) {
	hasIPs, hasIP, hasMask := hasAny(given, nicIPs), hasAny(given, nicIP), hasAny(given, nicNetmask)
	was, _ := old.Get(nicIPs)
	list, _ := nic.Get(nicIPs)
	if hasIPs && !unset(list) || !hasIPs && !hasIP && !hasMask && len(list.Items) > 0 {
		return list, checkIPs(field, list)
	}
	ip, mask := nic.Text(nicIP), nic.Text(nicNetmask)
	if hasIPs && !hasIP {
		ip = ""
	}
	if hasIP != hasMask && len(was.Items) > 0 && !automatic(ip) && ip != "" {
		if len(was.Items) > 1 || !strings.Contains(was.Items[0].Text, ".") && hasMask {
			return ordjson.Value{}, errs.New(errs.Invalid, "%sips: has %s: an ip or a netmask alone can change a single IPv4 address only; give ips",
				field, vm.Clip(string(was.AppendJSON(nil))))
		}
		wasIP, wasMask := legacy(was.Texts())
		if hasIP {
			mask = wasMask
		} else {
			ip = wasIP
		}
	}
	list = ordjson.Value{Kind: ordjson.Array}
	if ip == "" {
		return list, nil
	}
	if automatic(ip) {
		list.Items = []ordjson.Value{ordjson.Str(ip)}
		return list, nil
	}
	if a, err := netip.ParseAddr(ip); err != nil || !a.Is4() {
		return ordjson.Value{}, errs.New(errs.Invalid, "%sip: must be an IPv4 address, dhcp or addrconf, not %q (ips takes IPv6)", field, vm.Clip(ip))
	}
	bits, ok := maskBits(mask)
	if mask == "" || !ok {
		return ordjson.Value{}, errs.New(errs.Invalid, "%snetmask: missing for ip %s (or give ips: [\"%s/24\"])", field, ip, ip)
	}
	list.Items = []ordjson.Value{ordjson.Str(ip + "/" + strconv.Itoa(bits))}
	return list, nil
}

// checkIPs checks each of ips.
func checkIPs(field string, list ordjson.Value) error {
	for i, ip := range list.Items {
		if ip.Kind == ordjson.String && automatic(ip.Text) {
			continue
		}
		if _, err := netip.ParsePrefix(ip.Text); err != nil || ip.Kind != ordjson.String {
			return wrongValue(field+nicIPs+"."+strconv.Itoa(i), "an address with its prefix length such as 10.0.0.5/24, dhcp or addrconf", ip)
		}
	}
	return nil
}

// spellGateways is what gateways is to be.
func spellGateways(field string, nic, given ordjson.Members) (ordjson.Value, error) {
	list, _ := nic.Get(nicGateways)
	hasList, hasOne := hasAny(given, nicGateways), hasAny(given, nicGateway)
	if !hasList && hasOne || len(list.Items) == 0 {
		list = ordjson.Value{Kind: ordjson.Array}
		if one := nic.Text(nicGateway); one != "" && !(hasList && !hasOne) {
			list.Items = []ordjson.Value{ordjson.Str(one)}
		}
	}
	for _, g := range list.Items {
		if _, err := netip.ParseAddr(g.Text); err != nil || g.Kind != ordjson.String {
			return ordjson.Value{}, wrongValue(field+nicGateway, "an IP address", g)
		}
	}
	return list, nil
}

// legacy returns the values of vmadm's older properties ip and netmask: those of the first
// IPv4 address, or "dhcp"; "" if there is none.
func legacy(ips []string) (ip, mask string) {
	for _, s := range ips {
		if s == dhcp {
			return s, ""
		}
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() {
			ip, _, _ = strings.Cut(s, "/")
			return ip, net.IP(net.CIDRMask(p.Bits(), 32)).String()
		}
	}
	return "", ""
}

// maskBits is how many bits a netmask such as 255.255.255.0 has.
func maskBits(mask string) (bits int, ok bool) {
	a, err := netip.ParseAddr(mask)
	if err != nil || !a.Is4() {
		return 0, false
	}
	bits, of := net.IPMask(a.AsSlice()).Size() // 0 of 0: a bit is set behind one that is not
	return bits, of > 0
}

// set gives the member a value. Like setText and without it changes the object, which
// is the caller's own.
func set(o ordjson.Members, name string, v ordjson.Value) ordjson.Members {
	if i := o.Index(name); i >= 0 {
		o[i].Value = v
		return o
	}
	return append(o, ordjson.Member{Name: name, Value: v})
}

// setText gives the member a string, or takes it away for "".
func setText(o ordjson.Members, name, s string) ordjson.Members {
	if s == "" {
		return without(o, name)
	}
	return set(o, name, ordjson.Str(s))
}

// without is the object without those members.
func without(o ordjson.Members, names ...string) ordjson.Members {
	return slices.DeleteFunc(o, func(m ordjson.Member) bool { return slices.Contains(names, m.Name) })
}

// wholeNICs gives each NIC a mac and an interface, and one of them primary, as vmadm
// does: of those that this payload makes primary (there may be one), else the one
// that was, else the first. was are the NICs before. items and the NICs
// in it are the caller's own.
func wholeNICs(uuid string, items, was []ordjson.Value) error {
	macs, names := map[string]bool{}, map[string]bool{}
	for i, nic := range items {
		macs[vm.NICs.IdentOf(nic.Members)] = true
		if name := nic.Members.Text(nicInterface); name != "" {
			if names[name] && !twiceBefore(was, name) {
				return errs.New(errs.Invalid, "nics.%d.interface: %q is there twice", i, vm.Clip(name))
			}
			names[name] = true
		}
	}
	first, err := primary(items, was)
	if err != nil {
		return err
	}
	var nthMAC, nthName int
	for i := range items {
		nic := items[i].Members
		if nic.Text(nicMAC) == "" {
			var mac string
			mac, nthMAC = newMAC(uuid, nthMAC, macs)
			macs[mac] = true
			nic = set(nic, nicMAC, ordjson.Str(mac))
		}
		if nic.Text(nicInterface) == "" {
			var name string
			name, nthName = freeName("net", nthName, names)
			names[name] = true
			nic = set(nic, nicInterface, ordjson.Str(name))
		}
		if i == first {
			nic = set(nic, nicPrimary, ordjson.Value{Kind: ordjson.True})
		} else {
			nic = without(nic, nicPrimary)
		}
		items[i].Members = nic
	}
	return nil
}

// twiceBefore tells whether the VM had two NICs of that interface before the change.
func twiceBefore(was []ordjson.Value, name string) bool {
	n := 0
	for _, nic := range was {
		if nic.Members.Text(nicInterface) == name {
			n++
		}
	}
	return n > 1
}

// primary is the index of the NIC that is to be the primary one.
func primary(items, was []ordjson.Value) (int, error) {
	before := vm.NICs.Positions(was)
	newer, older := -1, -1
	for i, nic := range items {
		if !isPrimary(nic.Members) {
			continue
		}
		j, there := before[vm.NICs.IdentOf(nic.Members)]
		switch {
		case there && isPrimary(was[j].Members):
			if older < 0 {
				older = i
			}
		case newer >= 0:
			return 0, errs.New(errs.Invalid, "nics.%d.primary: only one NIC can be primary", i)
		default:
			newer = i
		}
	}
	if newer >= 0 {
		return newer, nil
	}
	return max(older, 0), nil
}

// isPrimary also takes the spellings of older VMs.
func isPrimary(nic ordjson.Members) bool {
	v, _ := nic.Get(nicPrimary)
	v, _ = takeBool(v)
	return v.Kind == ordjson.True
}

// freeName is the first name of stem and a number, n or greater, that is not taken;
// next is the n for another.
func freeName(stem string, n int, taken map[string]bool) (name string, next int) {
	for ; ; n++ {
		if name := stem + strconv.Itoa(n); !taken[name] {
			return name, n + 1
		}
	}
}

// newMAC makes an address that no NIC of the VM has: the nth, or a later one, of the
// VM's series. They are local and unicast (IEEE 802), and follow from the uuid alone:
// the same payload has the same addresses wherever and whenever a VM is made of it,
// and two VMs have the same one with the chance of two random ones of 46 bits.
func newMAC(uuid string, n int, taken map[string]bool) (mac string, next int) {
	for ; ; n++ {
		sum := sha256.Sum256([]byte("meta9 mac " + uuid + " " + strconv.Itoa(n)))
		sum[0] = sum[0]&0xfc | 0x02
		if mac := net.HardwareAddr(sum[:6]).String(); !taken[mac] {
			return mac, n + 1
		}
	}
}
