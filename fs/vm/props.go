package vm

import "meta9/fs/vm/ordjson"

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
	PropNamespaces    = "internal_metadata_namespaces"

	PropQMPSocket         = "qmp_socket"         // where its QEMU's monitor is
	Prop9PChardev         = "9p_chardev"         // a unix socket that meta9d dials
	PropMdataChardev      = "mdata_chardev"      // the same, for the metadata protocol
	PropVsockCID          = "vsock_cid"          // a number
	PropVsockUnprivileged = "vsock_unprivileged" // true: peers need no port below 1024
	Prop9POwner           = "9p_owner"           // the user, by name or number, who owns the VM's sockets
)

// Prop is the property of that name. The two metadata members are null here:
// their entries are in the spaces.
func (v *VM) Prop(name string) (ordjson.Value, bool) { return v.Props.Get(name) }

// Text is the property of that name if it is a string, or "".
func (v *VM) Text(name string) string { return v.Props.Text(name) }

// Alias is the VM's name for people, or "".
func (v *VM) Alias() string { return v.Text(PropAlias) }

// Link is the alias by which the VM is found: "" for an alias that is kept but not
// linked, since another VM had it when it was given. That is so as long as the
// property unlinked_alias is the alias.
func (v *VM) Link() string {
	if alias := v.Alias(); alias != v.Text(PropUnlinkedAlias) {
		return alias
	}
	return ""
}

// State is the VM's state, such as "running", or "".
func (v *VM) State() string { return v.Text(PropState) }

// Namespaces are the prefixes of internal keys that the guest may read
// (internal_metadata_namespaces).
func (v *VM) Namespaces() []string {
	list, _ := v.Prop(PropNamespaces)
	return list.Texts()
}

// hasNamespace is Namespaces contains ns, without a copy: it is asked for every
// name that a guest lists.
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
