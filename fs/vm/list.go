package vm

import (
	"strings"

	"meta9/fs/vm/ordjson"
)

// List is a property that is an array of objects, each of which one member names.
type List struct {
	Ident string // the member
}

// The lists.
var (
	NICs        = List{"mac"}
	Disks       = List{"path"}
	Filesystems = List{"target"}
	PCIDevices  = List{"path"}
)

// IdentOf is what names an object of the list, or "".
func (l List) IdentOf(o ordjson.Members) string { return l.Canonical(o.Text(l.Ident)) }

// Canonical is an identifier as it is compared: upper case in a MAC makes no
// difference, and neither do zeros before a digit, which SmartOS's dladm(8) leaves out.
func (l List) Canonical(id string) string {
	if l != NICs {
		return id
	}
	parts := strings.Split(strings.ToLower(id), ":")
	for i, p := range parts {
		if len(p) == 1 {
			parts[i] = "0" + p
		}
	}
	return strings.Join(parts, ":")
}

// Positions are the indices of the objects by what names them; those without a
// name are left out.
func (l List) Positions(items []ordjson.Value) map[string]int {
	at := make(map[string]int, len(items))
	for i := range items {
		if id := l.IdentOf(items[i].Members); id != "" {
			at[id] = i
		}
	}
	return at
}
