package render

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// NoCloudNames are the files of nocloud/: the seed of cloud-init's NoCloud data source
// (cloud-init: DataSourceNoCloud). network-config is there where there is one to show:
// an empty file would be a network configuration that has nothing.
func NoCloudNames(v *vm.VM) []string {
	names := []string{"meta-data", "user-data", "vendor-data"}
	if networkConfig(v) != "" {
		names = append(names, "network-config")
	}
	return names
}

// emptyConfig is user data that does nothing. It stands where there is none,
// since some readers (FreeBSD's nuageinit) stop at a file that is not there.
const emptyConfig = "#cloud-config\n{}\n"

// NoCloud is the content of a file of nocloud/; ok is false where NoCloudNames lacks
// it. A key cloud-init:NAME of the VM is taken as it is, except for meta-data, which is
// always derived: instance-id from the UUID, local-hostname, and public-keys from
// root_authorized_keys. The key user-data stands in for cloud-init:user-data, and
// network-config is made of nics, resolvers and routes. vendor-data is the operator's
// word to all users of an image, so it comes from internal_metadata alone, where
// vendor-data stands in for cloud-init:vendor-data.
func NoCloud(v *vm.VM, name string) (content string, ok bool) {
	switch name {
	case "meta-data":
		return metaData(v), true
	case "user-data":
		return firstKey(v, emptyConfig, "cloud-init:user-data", "user-data"), true
	case "vendor-data":
		for _, key := range [...]string{"cloud-init:vendor-data", "vendor-data"} {
			if e := v.Get(vm.Internal, key); e != nil && e.Value != "" {
				return e.Value, true
			}
		}
		return emptyConfig, true
	case "network-config":
		content = networkConfig(v)
		return content, content != ""
	}
	return "", false
}

// firstKey is the value of the first of the keys that the guest has and that is
// not empty, or the other value.
func firstKey(v *vm.VM, other string, keys ...string) string {
	for _, k := range keys {
		if e := v.Get(v.GuestSpace(k), k); e != nil && e.Value != "" {
			return e.Value
		}
	}
	return other
}

// metaData is the file meta-data. The hostname is the guest's own choice first,
// as cloud-init's SmartOS source has it.
func metaData(v *vm.VM) string {
	var y yaml
	y.add(0, "instance-id: ", v.UUID)
	y.add(0, "local-hostname: ", cmp.Or(firstKey(v, "", "hostname"), v.Text(vm.PropHostname), v.Alias(), v.UUID))
	first := true
	for line := range strings.Lines(firstKey(v, "", "root_authorized_keys")) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue // authorized_keys may have comments (sshd(8))
		}
		if first {
			y.line(0, "public-keys:")
			first = false
		}
		y.add(1, "- ", line)
	}
	return y.String()
}

// networkConfig is the key cloud-init:network-config, or cloud-init's network
// configuration, version 2 (that of netplan), of the VM's NICs; "" without any, so that
// cloud-init falls back on its own.
func networkConfig(v *vm.VM) string {
	if own := firstKey(v, "", "cloud-init:network-config"); own != "" {
		return own
	}
	nics, _ := v.Prop(vm.PropNICs)
	if len(nics.Items) == 0 {
		return ""
	}
	var y yaml
	y.line(0, "version: 2")
	y.line(0, "ethernets:")
	routes := nicRoutes(v, nics.Items)
	first := primaryNIC(nics.Items)
	for i, nic := range nics.Items {
		ethernet(v, &y, i, nic.Members, i == first, routes[i])
	}
	return y.String()
}

// ethernet adds one NIC. A NIC is known by its MAC and gets the interface's
// name; the default route and the resolvers are the primary NIC's.
func ethernet(v *vm.VM, y *yaml, i int, nic ordjson.Members, primary bool, routes []route) {
	name, mac := nic.Text("interface"), nic.Text("mac")
	y.line(1, quote(cmp.Or(name, "eth"+strconv.Itoa(i)))+":")
	if mac != "" {
		y.line(2, "match:")
		y.add(3, "macaddress: ", vm.NICs.Canonical(mac))
		if name != "" {
			y.add(2, "set-name: ", name)
		}
	}
	mtu, _ := nic.Get("mtu")
	if n, err := strconv.ParseUint(mtu.Text, 10, 16); err == nil {
		y.line(2, "mtu: "+strconv.FormatUint(n, 10))
	}
	var static []string
	for _, ip := range addresses(nic) {
		switch ip {
		case "dhcp":
			y.line(2, "dhcp4: true")
		case "addrconf":
			y.line(2, "dhcp6: true")
		default:
			static = append(static, ip)
		}
	}
	y.list(2, "addresses:", static)
	if primary {
		routes = append(defaults(y, nic, static), routes...)
		nameservers(v, y)
	}
	y.routes(2, routes)
}

// nameservers adds the resolvers and the search domain, if there are resolvers.
func nameservers(v *vm.VM, y *yaml) {
	resolvers, _ := v.Prop(vm.PropResolvers)
	if len(resolvers.Items) == 0 {
		return
	}
	y.line(2, "nameservers:")
	y.list(3, "addresses:", resolvers.Texts())
	if domain := v.Text(vm.PropDNSDomain); domain != "" {
		y.list(3, "search:", []string{domain})
	}
}

// addresses are the NIC's, with their prefix lengths: ips, or the older ip and
// netmask.
func addresses(nic ordjson.Members) []string {
	if ips, _ := nic.Get("ips"); len(ips.Items) > 0 {
		return ips.Texts()
	}
	ip := nic.Text("ip")
	mask := net.ParseIP(nic.Text("netmask")).To4()
	if mask == nil || ip == "" || ip == "dhcp" {
		return strings.Fields(ip)
	}
	ones, _ := net.IPMask(mask).Size()
	return []string{ip + "/" + strconv.Itoa(ones)}
}

// primaryNIC is the index of the NIC that is marked primary (older payloads say
// 1 or "1"), else the first.
func primaryNIC(nics []ordjson.Value) int {
	return max(0, slices.IndexFunc(nics, func(nic ordjson.Value) bool {
		s, _ := nic.Member("primary").Scalar()
		return s == "true" || s == "1"
	}))
}

// route is a destination and the address to go by. onLink: that address is not in
// the NIC's networks, and yet behind it.
type route struct {
	to, via string
	onLink  bool
}

// nicRoutes are the VM's routes, by the NIC that they belong to: the one that a route
// names, by its own address as sdc:routes has it; else those that have the gateway in
// their networks, or the primary one, where none has.
func nicRoutes(v *vm.VM, nics []ordjson.Value) [][]route {
	prop, _ := v.Prop(vm.PropRoutes)
	by := make([][]route, len(nics))
	add := func(i int, r route) { by[i] = append(by[i], r) }
	for _, r := range prop.Members {
		six := strings.Contains(r.Name, ":")
		if i, named := routeNIC(v, r.Value.Text); named {
			if i >= 0 {
				if own := ownAddress(nics[i].Members, six); own != "" {
					add(i, route{to: r.Name, via: own})
				}
			}
			continue
		}
		via, err := netip.ParseAddr(r.Value.Text)
		if err != nil {
			continue
		}
		found := false
		for i, nic := range nics {
			if reaches(addresses(nic.Members), via) {
				add(i, route{to: r.Name, via: r.Value.Text})
				found = true
			}
		}
		if !found {
			add(primaryNIC(nics), route{r.Name, r.Value.Text, true})
		}
	}
	return by
}

// ownAddress is the NIC's first address of IPv6 or IPv4, without its prefix length.
func ownAddress(nic ordjson.Members, six bool) string {
	for _, ip := range addresses(nic) {
		if p, err := netip.ParsePrefix(ip); err == nil && p.Addr().Is6() == six {
			return p.Addr().String()
		}
	}
	return ""
}

// reaches says whether one of the networks has the address in it. One that is local to
// the link is behind every NIC that has an IPv6 address.
func reaches(networks []string, via netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n string) bool {
		p, err := netip.ParsePrefix(n)
		return err == nil && (p.Contains(via) || via.Is6() && via.IsLinkLocalUnicast() && p.Addr().Is6())
	})
}

// defaults adds the default routes by the NIC's gateways, one of IPv4 and one of IPv6,
// where the NIC has an address of that family; else whatever gives it one (DHCP) gives
// the route. gateway4 and gateway6 are what FreeBSD's nuageinit knows, but they can
// say no on-link: such routes are given back.
func defaults(y *yaml, nic ordjson.Members, static []string) []route {
	list, _ := nic.Get("gateways")
	gateways := list.Texts()
	if len(gateways) == 0 {
		gateways = strings.Fields(nic.Text("gateway"))
	}
	var routes []route
	for _, family := range [...]struct {
		six     bool
		key, to string
	}{{false, "gateway4: ", "0.0.0.0/0"}, {true, "gateway6: ", "::/0"}} {
		if ownAddress(nic, family.six) == "" {
			continue
		}
		for _, g := range gateways {
			via, err := netip.ParseAddr(g)
			if err != nil || via.Is6() != family.six {
				continue
			}
			if reaches(static, via) {
				y.add(2, family.key, g)
			} else {
				routes = append(routes, route{family.to, g, true})
			}
			break
		}
	}
	return routes
}

// yaml writes block YAML whose every string is quoted, so that no value of a
// guest's can be read as more than a string.
type yaml struct{ strings.Builder }

// line adds a line as it is.
func (y *yaml) line(depth int, s string) {
	for range depth {
		y.WriteString("  ")
	}
	y.WriteString(s)
	y.WriteByte('\n')
}

// add adds a key, or a dash, and a string.
func (y *yaml) add(depth int, key, value string) { y.line(depth, key+quote(value)) }

// list adds a key and a list of strings, or nothing for none.
func (y *yaml) list(depth int, key string, values []string) {
	if len(values) == 0 {
		return
	}
	y.line(depth, key)
	for _, v := range values {
		y.add(depth+1, "- ", v)
	}
}

// routes adds the routes. A default route is spelled 0.0.0.0/0: older readers do not
// know "default".
func (y *yaml) routes(depth int, routes []route) {
	if len(routes) == 0 {
		return
	}
	y.line(depth, "routes:")
	for _, r := range routes {
		y.add(depth+1, "- to: ", r.to)
		y.add(depth+1, "  via: ", r.via)
		if r.onLink {
			y.line(depth+1, "  on-link: true")
		}
	}
}

// quote is a double-quoted YAML string. What is not printable is escaped: YAML
// readers refuse most of it and take some of it for the end of a line.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
