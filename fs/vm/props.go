package vm

import (
	"strconv"

	"meta9/fs/vm/ordjson"
)

// The names of the properties that more than one room reads. The spaces have
// theirs from Space.Member.
const (
	PropUUID          = "uuid"
	PropAlias         = "alias"
	PropUnlinkedAlias = "unlinked_alias"
	PropState         = "state"
	PropZonename      = "zonename"
	PropHostname      = "hostname"
	PropDNSDomain     = "dns_domain"
	PropResolvers     = "resolvers"
	PropRoutes        = "routes"
	PropTags          = "tags"
	PropNICs          = "nics"
	PropDisks         = "disks"
	PropFilesystems   = "filesystems"
	PropPCIDevices    = "pci_devices"
	PropNamespaces    = "internal_metadata_namespaces"

	PropQMPSocket         = "qmp_socket"         // where its QEMU's monitor is
	PropLibvirtState      = "libvirt_state"      // what libvirt says of its domain, in words
	Prop9PChardev         = "9p_chardev"         // a unix socket that meta9d dials
	PropMdataChardev      = "mdata_chardev"      // the same, for the metadata protocol
	Prop9PListen          = "9p_listen"          // a unix socket that meta9d makes, where a hypervisor maps a vsock port
	PropVsockCID          = "vsock_cid"          // a number
	PropVsockUnprivileged = "vsock_unprivileged" // true: peers need no port below 1024
	PropNoCloudHTTP       = "nocloud_http"       // true: it has http.sock, which serves nocloud/
	Prop9POwner           = "9p_owner"           // the user, by name or number, who owns the VM's sockets
	Prop9PUID             = "9p_uid"             // the owner of its files, a number
	Prop9PGID             = "9p_gid"             // their group, a number
	Prop9PMode            = "9p_mode"            // their permission bits, octal digits as text
)

// OfHost tells whether a property is about the host alone, its paths and users. Guests
// are not shown it.
func OfHost(name string) bool {
	switch name {
	case PropQMPSocket, PropLibvirtState, Prop9PChardev, Prop9PListen, PropMdataChardev, Prop9POwner:
		return true
	}
	return false
}

// Prop is the property of that name. The two metadata members are null here:
// their entries are in the spaces.
func (v *VM) Prop(name string) (ordjson.Value, bool) { return v.Props.Get(name) }

// Text is the property of that name if it is a string, or "".
func (v *VM) Text(name string) string { return v.Props.Text(name) }

// Alias is the VM's name for people, or "".
func (v *VM) Alias() string { return v.Text(PropAlias) }

// Link is the alias that no other VM can have: "" for an alias that is kept without
// that, since another VM had it when it was given, or since a QEMU asked for it. That is
// so as long as the property unlinked_alias is the alias. The VM is found by it while no
// VM has the link.
func (v *VM) Link() string {
	if alias := v.Alias(); alias != v.Text(PropUnlinkedAlias) {
		return alias
	}
	return ""
}

// State is the VM's state, such as "running", or "".
func (v *VM) State() string { return v.Text(PropState) }

// Perm is how the VM's files look to those who mount them: 9p_uid, 9p_gid and
// 9p_mode. A property that is not there, or that no rule allows, counts as not
// given: 0, 0, and HasMode false.
type Perm struct {
	UID, GID uint32
	Mode     uint16 // 0 to 0777, where HasMode is true
	HasMode  bool
}

// Perm reads the three properties.
func (v *VM) Perm() Perm {
	var p Perm
	p.UID, _ = v.id(Prop9PUID)
	p.GID, _ = v.id(Prop9PGID)
	p.Mode, p.HasMode = ParseMode(v.Text(Prop9PMode))
	return p
}

// id is the property as a user's or group's number.
func (v *VM) id(prop string) (uint32, bool) {
	p, _ := v.Prop(prop)
	if p.Kind != ordjson.Number {
		return 0, false
	}
	return ParseID(p.Text)
}

// MaxID is the greatest number of a user or group. The one above it stands for
// "none" in 9P (NONUNAME) and in chown(2).
const MaxID = 1<<32 - 2

// ParseID is the number of a user or group in decimal digits, 0 to MaxID.
func ParseID(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && n <= MaxID
}

// ParseMode is a file's permission bits in three or four octal digits, 0000 to 0777.
func ParseMode(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 8, 16)
	return uint16(n), err == nil && n <= 0o777 && (len(text) == 3 || len(text) == 4)
}

// hasNamespace says whether internal_metadata_namespaces, the prefixes of internal keys
// that the guest may read, has ns. It is asked for every name that a guest lists.
func (v *VM) hasNamespace(ns string) bool {
	list, _ := v.Prop(PropNamespaces)
	for i := range list.Items {
		if list.Items[i].Kind == ordjson.String && list.Items[i].Text == ns {
			return true
		}
	}
	return false
}

// SpaceOf is the space that a payload's member holds.
func SpaceOf(member string) (Space, bool) {
	for s := range NumSpaces {
		if s.Member() == member {
			return s, true
		}
	}
	return 0, false
}
