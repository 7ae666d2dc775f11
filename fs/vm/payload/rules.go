package payload

import (
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// rule says what a property must be; check sees its value.
type rule struct {
	must  string
	check func(ordjson.Value) bool
}

// unless is what must be where the value is not that, or "".
func (r rule) unless(v ordjson.Value) string {
	if r.check(v) {
		return ""
	}
	return r.must
}

// The rules of single values.
var (
	isText   = rule{"a string", func(v ordjson.Value) bool { return v.Kind == ordjson.String }}
	isBool   = rule{"true or false", func(v ordjson.Value) bool { return v.Kind == ordjson.True || v.Kind == ordjson.False }}
	isNumber = rule{"a number", numeric}
	isObject = rule{"an object", func(v ordjson.Value) bool { return v.Kind == ordjson.Object }}
	isUUID   = rule{"a UUID such as 01b2c898-945f-11e1-a523-af1afbe22822", func(v ordjson.Value) bool {
		_, err := vm.ParseUUID(v.Text)
		return v.Kind == ordjson.String && err == nil
	}}
	isMAC     = rule{"a MAC address such as 02:08:20:aa:bb:cc", func(v ordjson.Value) bool { return v.Kind == ordjson.String && macShape(v.Text) }}
	isCID     = rule{"an integer from 3 to 4294967294", vsockCID}
	isID      = rule{"an integer from 0 to 4294967294", func(v ordjson.Value) bool { _, ok := vm.ParseID(v.Text); return v.Kind == ordjson.Number && ok }}
	isMode    = rule{`permission bits in octal as a string, such as "0640"`, func(v ordjson.Value) bool { _, ok := vm.ParseMode(v.Text); return v.Kind == ordjson.String && ok }}
	isOwner   = rule{"a user, by name or number", userShape}
	isSocket  = rule{"the absolute path of a unix socket, of at most 107 bytes and without a comma", func(v ordjson.Value) bool { return socketShape(v, "") }}
	isDevice  = rule{`the absolute path of a unix socket, of at most 107 bytes and without a comma, or that path and ",link"`, func(v ordjson.Value) bool { return socketShape(v, ",link") }}
	isScalars = rule{"an array of strings, numbers and booleans, or text with commas", func(v ordjson.Value) bool { return every(v, ordjson.Array, isScalar) }}
	isTexts   = rule{"an array of strings", func(v ordjson.Value) bool { return every(v, ordjson.Array, isText) }}
	isRoutes  = rule{"an object of strings", func(v ordjson.Value) bool { return every(v, ordjson.Object, isText) }}
	isTags    = rule{"an object of strings, numbers and booleans", func(v ordjson.Value) bool { return every(v, ordjson.Object, isScalar) }}
	isObjects = rule{"an array of objects", func(v ordjson.Value) bool { return every(v, ordjson.Array, isObject) }}
	isScalar  = rule{"a string, a number or a boolean", func(v ordjson.Value) bool { _, ok := v.Scalar(); return ok }}
	isAlias   = rule{"a string that could be a key's name, or empty", func(v ordjson.Value) bool {
		return v.Kind == ordjson.String && (v.Text == "" || vm.NewKey(v.Text) == nil)
	}}
)

// rules are those of the properties that something here, or a bridge, reads. Any
// other property may have any value.
var rules = map[string]rule{
	vm.PropUUID: isUUID, "owner_uuid": isText, "image_uuid": isUUID, "server_uuid": isUUID,
	vm.PropAlias: isAlias, vm.PropUnlinkedAlias: isAlias, vm.PropHostname: isText, vm.PropDNSDomain: isText, "datacenter_name": isText,
	"brand": isText, vm.PropState: isText, vm.PropQMPSocket: isText, vm.PropLibvirtState: isText, "zone_state": isText, vm.PropZonename: isText, "zonepath": isText,
	"create_timestamp": isText, "last_modified": isText,
	vm.Prop9PChardev: isDevice, vm.PropMdataChardev: isSocket, vm.Prop9PListen: isSocket, vm.PropVsockCID: isCID, vm.PropVsockUnprivileged: isBool, vm.PropNoCloudHTTP: isBool,
	vm.Prop9POwner: isOwner, vm.Prop9PUID: isID, vm.Prop9PGID: isID, vm.Prop9PMode: isMode,
	"autoboot": isBool, "firewall_enabled": isBool, "maintain_resolvers": isBool, "do_not_inventory": isBool,
	"ram": isNumber, "vcpus": isNumber, "quota": isNumber, "max_physical_memory": isNumber,
	"cpu_cap": isNumber, "cpu_shares": isNumber, "tmpfs": isNumber, "init_restarts": isNumber,
	vm.PropNICs: isObjects, vm.PropDisks: isObjects, vm.PropFilesystems: isObjects, vm.PropPCIDevices: isObjects,
	vm.PropTags: isTags, vm.PropRoutes: isRoutes,
	vm.PropResolvers: isTexts, vm.PropNamespaces: isTexts,
}

// list is a property that is an array of objects, and the rules of their members.
type list struct {
	vm.List
	rules map[string]rule
}

var lists = map[string]list{
	vm.PropNICs: {vm.NICs, map[string]rule{
		"mac": isMAC, "interface": isText, "ip": isText, "netmask": isText, "gateway": isText,
		"nic_tag": isText, "ips": isTexts, "gateways": isTexts, "mtu": isNumber,
	}},
	vm.PropDisks:       {vm.Disks, map[string]rule{"path": isText, "boot": isBool, "size": isNumber, "media": isText}},
	vm.PropPCIDevices:  {vm.PCIDevices, map[string]rule{"path": isText}},
	vm.PropFilesystems: {vm.Filesystems, map[string]rule{"target": isText, "source": isText, "type": isText}},
}

// checkProps checks the properties that are not as they were, and the quota of them
// all. What an older VM has is left alone, so that a rule that is new does not keep
// it from being changed.
func checkProps(props, was ordjson.Members) error {
	var places map[string]int // of the members of was, once one is not where it was
	for n, m := range props {
		var old ordjson.Value
		at := n
		if at >= len(was) || was[at].Name != m.Name {
			if places == nil {
				places = was.Positions()
			}
			var there bool
			if at, there = places[m.Name]; !there {
				at = len(was)
			}
		}
		if at < len(was) {
			if old = was[at].Value; old.Equal(m.Value) {
				continue
			}
		}
		if err := checkProp(m, old); err != nil {
			return err
		}
		if m.Name == vm.PropRoutes {
			if err := checkRoutes(m.Value, old); err != nil {
				return err
			}
		}
	}
	return checkQuota(props, was)
}

// checkProp checks one property, and the objects in it if it is a list; those that
// were there before are right.
func checkProp(m ordjson.Member, was ordjson.Value) error {
	if err := checkMember(rules, "", m); err != nil {
		return err
	}
	l, ok := lists[m.Name]
	if !ok {
		return nil
	}
	before := l.Positions(was.Items)
	seen := make(map[string]bool, len(m.Value.Items))
	for i, item := range m.Value.Items {
		id := l.IdentOf(item.Members)
		field := m.Name + "." + strconv.Itoa(i) + "."
		if id != "" && seen[id] {
			return errs.New(errs.Invalid, "%s%s: %q is there twice", field, l.Ident, vm.Clip(id))
		}
		seen[id] = true
		at, named := before[id]
		if !named {
			at = i
		}
		if at < len(was.Items) && item.Equal(was.Items[at]) {
			continue
		}
		for _, inner := range item.Members {
			if err := checkMember(l.rules, field, inner); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkMember checks a member against the rule for its name, if there is one.
// Null passes everywhere: it is how vminfod shows what a stopped VM lacks.
func checkMember(rules map[string]rule, prefix string, m ordjson.Member) error {
	r, ok := rules[m.Name]
	if !ok || m.Value.Kind == ordjson.Null || r.check(m.Value) {
		return nil
	}
	return wrongValue(prefix+m.Name, r.must, m.Value)
}

// every says whether every element of an array or object obeys the rule.
func every(v ordjson.Value, kind ordjson.Kind, r rule) bool {
	for _, item := range v.Items {
		if !r.check(item) {
			return false
		}
	}
	for _, m := range v.Members {
		if !r.check(m.Value) {
			return false
		}
	}
	return v.Kind == kind
}

// numeric takes a number as text too, as vmadm does.
func numeric(v ordjson.Value) bool {
	if v.Kind != ordjson.String {
		return v.Kind == ordjson.Number
	}
	n, err := ordjson.Parse([]byte(v.Text))
	return err == nil && n.Kind == ordjson.Number
}

// vsockCID takes what the kernel gives to guests: 0 to 2 are hypervisor, loopback
// and host, the last is "any".
func vsockCID(v ordjson.Value) bool {
	n, err := strconv.ParseUint(v.Text, 10, 32)
	return v.Kind == ordjson.Number && err == nil && n >= 3 && n <= 4294967294
}

// socketShape tells the path of a unix socket, with or without "unix:" before it and an
// option after it. The system's limit is sun_path's (unix(7)), less its NUL.
func socketShape(v ordjson.Value, option string) bool {
	path := strings.TrimSuffix(strings.TrimPrefix(v.Text, "unix:"), option)
	return v.Kind == ordjson.String && strings.HasPrefix(path, "/") && len(path) <= 107 && !strings.ContainsAny(path, ",\x00")
}

// userShape is true for the number of a user, and for what can be a user's name: it
// has no colon, slash, blank or control byte (passwd(5)).
func userShape(v ordjson.Value) bool {
	if v.Kind == ordjson.Number {
		_, err := strconv.ParseUint(v.Text, 10, 31)
		return err == nil
	}
	bad := func(r rune) bool { return r <= ' ' || r == ':' || r == '/' || r == 0x7f }
	return v.Kind == ordjson.String && v.Text != "" && len(v.Text) <= 255 && !strings.ContainsFunc(v.Text, bad)
}

// macShape is true for six pairs of digits, one or two in each, as illumos
// writes them.
func macShape(s string) bool {
	parts := strings.Split(s, ":")
	for _, p := range parts {
		if len(p) < 1 || len(p) > 2 || strings.Trim(p, "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return len(parts) == 6
}
