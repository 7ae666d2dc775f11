package vm

import (
	"fmt"
	"strconv"
	"strings"

	"meta9/fs/errs"
)

// rule says what a property must be; check sees its value.
type rule struct {
	must  string
	check func(Value) bool
}

// The rules of single values.
var (
	isText    = rule{"a string", func(v Value) bool { return v.Kind == StringValue }}
	isBool    = rule{"true or false", func(v Value) bool { return v.Kind == True || v.Kind == False }}
	isNumber  = rule{"a number", numeric}
	isObject  = rule{"an object", func(v Value) bool { return v.Kind == ObjectValue }}
	isUUID    = rule{"a UUID such as 01b2c898-945f-11e1-a523-af1afbe22822", func(v Value) bool { return v.Kind == StringValue && uuidShape(v.Text) }}
	isMAC     = rule{"a MAC address such as 02:08:20:aa:bb:cc", func(v Value) bool { return v.Kind == StringValue && macShape(v.Text) }}
	isCID     = rule{"an integer from 3 to 4294967294", vsockCID}
	isTexts   = rule{"an array of strings", func(v Value) bool { return all(v, Array, isText) }}
	isRoutes  = rule{"an object of strings", func(v Value) bool { return all(v, ObjectValue, isText) }}
	isTags    = rule{"an object of strings, numbers and booleans", func(v Value) bool { return all(v, ObjectValue, isScalar) }}
	isObjects = rule{"an array of objects", func(v Value) bool { return all(v, Array, isObject) }}
	isScalar  = rule{"a string, a number or a boolean", func(v Value) bool { _, ok := v.scalar(); return ok }}
	isAlias   = rule{"a string that could be a key's name, or empty", func(v Value) bool {
		return v.Kind == StringValue && (v.Text == "" || ValidKey(v.Text) == nil)
	}}
)

// rules are those of the properties that something here, or a bridge, reads. Any
// other property may have any value.
var rules = map[string]rule{
	"uuid": isUUID, "owner_uuid": isUUID, "image_uuid": isUUID, "server_uuid": isUUID,
	"alias": isAlias, "unlinked_alias": isAlias, "hostname": isText, "dns_domain": isText, "datacenter_name": isText,
	"brand": isText, "state": isText, "qmp_socket": isText, "zone_state": isText, "zonename": isText, "zonepath": isText,
	"create_timestamp": isText, "last_modified": isText,
	"9p_chardev": isText, "mdata_chardev": isText, "vsock_cid": isCID, "vsock_unprivileged": isBool,
	"autoboot": isBool, "firewall_enabled": isBool, "maintain_resolvers": isBool, "do_not_inventory": isBool,
	"ram": isNumber, "vcpus": isNumber, "quota": isNumber, "max_physical_memory": isNumber,
	"cpu_cap": isNumber, "cpu_shares": isNumber, "tmpfs": isNumber, "init_restarts": isNumber,
	"nics": isObjects, "disks": isObjects, "filesystems": isObjects,
	"tags": isTags, "routes": isRoutes,
	"resolvers": isTexts, "internal_metadata_namespaces": isTexts,
}

// list is a property that is an array of objects which one member names.
type list struct {
	ident  string          // the member
	paired bool            // Diff pairs the objects of two VMs by it, as vminfod does
	rules  map[string]rule // of the objects' members
}

var lists = map[string]list{
	"nics": {"mac", true, map[string]rule{
		"mac": isMAC, "interface": isText, "ip": isText, "netmask": isText, "gateway": isText,
		"nic_tag": isText, "ips": isTexts, "gateways": isTexts, "mtu": isNumber,
	}},
	"disks":       {"path", true, map[string]rule{"path": isText, "boot": isBool, "size": isNumber, "media": isText}},
	"filesystems": {"target", false, map[string]rule{"target": isText, "source": isText, "type": isText}},
}

// checkProps checks every property and gives the uuid its canonical form. A
// property of value null is as good as not there.
func checkProps(props Object) (Object, error) {
	for _, m := range props {
		if err := checkProp(m); err != nil {
			return nil, err
		}
	}
	given := props.text("uuid")
	uuid, err := ParseUUID(given)
	if err != nil {
		return nil, errs.New(errs.Invalid, "uuid: %s", errs.Detail(err))
	}
	if uuid != given {
		props = props.with("uuid", str(uuid))
	}
	return props, nil
}

// checkProp checks one property, and the objects in it if it is a list.
func checkProp(m Member) error {
	if err := checkMember(rules, "", m); err != nil {
		return err
	}
	l, ok := lists[m.Name]
	if !ok {
		return nil
	}
	seen := make(map[string]bool, len(m.Value.Items))
	for i, item := range m.Value.Items {
		field := m.Name + "." + strconv.Itoa(i) + "."
		for _, inner := range item.Members {
			if err := checkMember(l.rules, field, inner); err != nil {
				return err
			}
		}
		id := l.identOf(item.Members)
		if id != "" && seen[id] {
			return errs.New(errs.Invalid, "%s%s: %q is there twice", field, l.ident, clip(id))
		}
		seen[id] = true
	}
	return nil
}

// checkMember checks a member against the rule for its name, if there is one.
// Null passes everywhere: it is how vminfod shows what a stopped VM lacks.
func checkMember(rules map[string]rule, prefix string, m Member) error {
	r, ok := rules[m.Name]
	if !ok || m.Value.Kind == Null || r.check(m.Value) {
		return nil
	}
	return wrongType(prefix+m.Name, fmt.Sprintf("%s, not %s", r.must, clip(string(m.Value.AppendJSON(nil)))))
}

// identOf is what names an object of the list, or "".
func (l list) identOf(o Object) string { return l.canonical(o.text(l.ident)) }

// canonical is an identifier as it is compared: upper case in a MAC makes no
// difference.
func (l list) canonical(id string) string {
	if l.ident == "mac" {
		return strings.ToLower(id)
	}
	return id
}

// positions are the indices of the objects by what names them; those without a
// name are left out.
func (l list) positions(items []Value) map[string]int {
	at := make(map[string]int, len(items))
	for i := range items {
		if id := l.identOf(items[i].Members); id != "" {
			at[id] = i
		}
	}
	return at
}

// all says whether every element of an array or object obeys the rule.
func all(v Value, kind ValueKind, r rule) bool {
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
func numeric(v Value) bool {
	if v.Kind != StringValue {
		return v.Kind == NumberValue
	}
	n, err := ParseValue([]byte(v.Text))
	return err == nil && n.Kind == NumberValue
}

// vsockCID takes what the kernel gives to guests: 0 to 2 are hypervisor, loopback
// and host, the last is "any".
func vsockCID(v Value) bool {
	n, err := strconv.ParseUint(v.Text, 10, 32)
	return v.Kind == NumberValue && err == nil && n >= 3 && n <= 4294967294
}

// macShape is true for six pairs of digits, one or two in each, as illumos
// writes them.
func macShape(s string) bool {
	parts := strings.Split(s, ":")
	for _, p := range parts {
		if len(p) < 1 || len(p) > 2 || strings.ContainsFunc(p, func(r rune) bool { return r > 'f' || !hexDigit(byte(r)) }) {
			return false
		}
	}
	return len(parts) == 6
}
