package main

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

// column is how a property stands in a table.
type column struct {
	header string
	width  int
}

// columns are the properties that vmadm lists, with its headers and widths.
var columns = map[string]column{
	"alias": {"ALIAS", 10}, "autoboot": {"AUTOBOOT", 8}, "billing_id": {"BILLING_ID", 36},
	"boot_timestamp": {"BOOT_TIMESTAMP", 24}, "brand": {"BRAND", 14}, "cpu_cap": {"CPU_CAP", 7},
	"cpu_shares": {"CPU_SHARE", 9}, "cpu_type": {"CPU_TYPE", 8}, "create_timestamp": {"CREATE_TIMESTAMP", 24},
	"dns_domain": {"DOMAIN", 32}, "do_not_inventory": {"DNI", 5}, "docker": {"DOCKER", 6},
	"exit_status": {"EXIT", 4}, "exit_timestamp": {"EXIT_TIMESTAMP", 24}, "firewall_enabled": {"FIREWALL_ENABLED", 16},
	"flexible_disk_size": {"FLEX_DISK_SIZE", 14}, "free_space": {"FREE_SPACE", 14}, "hostname": {"HOSTNAME", 32},
	"hvm": {"HVM", 5}, "image_uuid": {"IMAGE_UUID", 36},
	"indestructible_delegated": {"INDESTR_DATA", 12}, "indestructible_zoneroot": {"INDESTR_ROOT", 12},
	"ram": {"RAM", 7}, "max_locked_memory": {"MAX_LOCKED", 10}, "max_lwps": {"MAX_LWP", 7},
	"max_physical_memory": {"MAX_PHYS", 8}, "max_swap": {"MAX_SWAP", 8}, "owner_uuid": {"OWNER_UUID", 36},
	"package_name": {"PACKAGE_NAME", 32}, "package_version": {"PACKAGE_VER", 11}, "pid": {"PID", 6},
	"qemu_extra_opts": {"QEMU_EXTRA_OPTS", 15}, "quota": {"QUOTA", 5}, "zone_state": {"ZONE_STATE", 10},
	"state": {"STATE", 16}, "tmpfs": {"TMPFS", 5}, "type": {"TYPE", 4}, "uuid": {"UUID", 36},
	"vcpus": {"VCPUS", 5}, "zfs_io_priority": {"IO_PRIORITY", 11}, "zpool": {"ZPOOL", 12},
	"zonename": {"ZONENAME", 12}, "zonepath": {"ZONEPATH", 40}, "zoneid": {"ZONEID", 6},
}

// deepWidth is the width of a column of something inside a property.
const deepWidth = 20

// What may be named inside a property: one element's member in a column, any
// element's in a filter.
var (
	deepColumn = regexp.MustCompile(`^(?:(?:nics|disks|filesystems)\.[0-9]+\.[^.]+|(?:tags|customer_metadata|internal_metadata|routes)\..+)$`)
	anyElement = regexp.MustCompile(`^(?:disks|filesystems|nics)\.\*`)
	deepFilter = regexp.MustCompile(`^(?:(?:nics|disks|filesystems)\.(?:\*|[0-9]+)\.[^.]+|(?:tags|customer_metadata|internal_metadata|routes)\..+)$`)
)

// columnOf is the column of a field; ok is false for one that no table has.
func columnOf(field string) (c column, ok bool) {
	if c, ok = columns[field]; ok || !deepColumn.MatchString(field) {
		return c, ok
	}
	return column{strings.ToUpper(field), deepWidth}, true
}

// filterable tells whether a filter may have the key.
func filterable(key string) bool {
	_, ok := columns[key]
	return ok || deepFilter.MatchString(key)
}

// readFilters reads KEY=VALUE arguments; what says what kind of key is refused.
func readFilters(args []string, what string) ([]vminfo.Filter, error) {
	var list []vminfo.Filter
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		switch {
		case !ok:
			return nil, vmadmError{code: exitUsage, text: "Bad arguments: unable to split " + arg}
		case !filterable(key):
			return nil, vmadmError{code: exitFailed, text: "Invalid " + what + " key: " + strconv.Quote(key)}
		}
		f, err := vminfo.NewFilter(key, value)
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}

// types are what tables call the brands; any other is an OS.
var types = map[string]string{"kvm": "KVM", "bhyve": "BHYV", "lx": "LX"}

// hvm are the brands that are machines, not zones.
var hvm = []string{"kvm", "bhyve"}

// listed is a VM as tables and filters have it: with a type and hvm, of the brand, and
// with ram, which zones say as max_physical_memory.
type listed ordjson.Members

// member finds a member.
func (o listed) member(name string) (ordjson.Value, bool) {
	v, ok := ordjson.Members(o).Get(name)
	switch {
	case ok:
	case name == "ram":
		return ordjson.Members(o).Get("max_physical_memory")
	case name == "hvm":
		brand, there := ordjson.Members(o).Get("brand")
		kind := ordjson.False
		if slices.Contains(hvm, brand.Text) {
			kind = ordjson.True
		}
		return ordjson.Value{Kind: kind}, there
	case name == "type":
		brand, there := ordjson.Members(o).Get("brand")
		return ordjson.Value{Kind: ordjson.String, Text: cmp.Or(types[brand.Text], "OS")}, there
	}
	return v, ok
}

// find is the first value of a field.
func (o listed) find(field string) (v ordjson.Value, ok bool) {
	ok = vminfo.Find(o.member, field, func(found ordjson.Value) bool {
		v = found
		return true
	})
	return v, ok
}

// word is a field as a table shows it: "" for what is not there, and, as vmadm has
// it, for false and 0.
func (o listed) word(field string) string {
	v, _ := o.find(field)
	if v.Kind == ordjson.False || v.Kind == ordjson.Number && v.Text == "0" {
		return ""
	}
	return vminfo.Text(v)
}

// matches tells whether all filters let the VM through.
func (o listed) matches(ctx context.Context, filters []vminfo.Filter) bool {
	return vminfo.Query{Filters: filters}.Match(ctx, o.member)
}

// sortKey is what a VM is sorted by in one field. What is missing is greater than
// all that is there.
type sortKey struct {
	missing, numeric bool
	number           float64
	text             string
}

func (o listed) key(field string) sortKey {
	v, ok := o.find(strings.TrimLeft(field, "+-"))
	if !ok {
		return sortKey{missing: true}
	}
	n, err := strconv.ParseFloat(v.Text, 64)
	return sortKey{numeric: v.Kind == ordjson.Number && err == nil, number: n, text: vminfo.Text(v)}
}

func (k *sortKey) compare(l *sortKey) int {
	switch {
	case k.missing || l.missing:
		return rank(k.missing) - rank(l.missing)
	case k.numeric && l.numeric:
		return cmp.Compare(k.number, l.number)
	}
	return cmp.Compare(k.text, l.text)
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sortVMs sorts by fields in this order; one that begins with a - is turned round.
func sortVMs(vms []listed, fields []string) {
	type row struct {
		o    listed
		keys []sortKey
	}
	rows := make([]row, len(vms))
	for i, o := range vms {
		rows[i].o = o
		for _, field := range fields {
			rows[i].keys = append(rows[i].keys, o.key(field))
		}
	}
	slices.SortStableFunc(rows, func(x, y row) int {
		for i, field := range fields {
			c := x.keys[i].compare(&y.keys[i])
			if c != 0 && strings.HasPrefix(field, "-") {
				return -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	for i := range rows {
		vms[i] = rows[i].o
	}
}

// members are the members that fields are made of, for a query.
func members(fields ...string) []string {
	list := []string{"uuid"}
	for _, field := range fields {
		name, _, _ := strings.Cut(strings.TrimLeft(field, "+-"), ".")
		list = append(list, name)
		switch name {
		case "ram":
			list = append(list, "max_physical_memory")
		case "type", "hvm":
			list = append(list, "brand")
		}
	}
	return list
}
