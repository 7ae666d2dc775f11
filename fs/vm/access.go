package vm

import (
	"strings"

	"meta9/fs/errs"
)

// Who sees what, for files, macros, the metadata protocol and vm.json alike
// (docs/tree.md; the routes are those of SmartOS's agent):
//
//	a guest's name          is kept in   the guest
//	NAME_pw                 internal     reads and writes
//	NS:NAME, NS reserved    internal     reads
//	operator-script, sdc:*  -            reads, but only as derived files (sdc/)
//	any other               keys         reads and writes
//
// Of each space a guest has only the names that are kept there. An admin has all.

// GuestSpace is the space in which a guest's name is looked for.
func (v *VM) GuestSpace(name string) Space {
	if _, reserved := v.reserved(name); reserved || strings.HasSuffix(name, "_pw") {
		return Internal
	}
	return Keys
}

// reserved is the name's namespace, and whether internal_metadata_namespaces has
// it.
func (v *VM) reserved(name string) (ns string, ok bool) {
	ns, _, ok = strings.Cut(name, ":")
	return ns, ok && v.hasNamespace(ns)
}

// onlyDerived is true for the names that a guest has in neither space: it reads them as
// derived files only.
func onlyDerived(name string) bool {
	return name == "operator-script" || strings.HasPrefix(name, "sdc:")
}

// GuestSees says whether a guest that looks for the name in the space finds what
// an admin finds there.
func (v *VM) GuestSees(s Space, name string) bool {
	return !onlyDerived(name) && v.GuestSpace(name) == s
}

// GuestMayWrite is nil when a guest may write, create, remove and rename the
// name in the space. Else it is Permission for a name that it may read and
// NotPermitted for one that is not there for it; the detail says why, in the
// words of SmartOS's agent where that has some.
func (v *VM) GuestMayWrite(s Space, name string) error {
	switch {
	case name == "operator-script":
		return errs.New(errs.NotPermitted, `Cannot update "operator-script".`)
	case strings.HasPrefix(name, "sdc:"):
		return errs.New(errs.NotPermitted, `Cannot update the "sdc" Namespace.`)
	}
	if ns, ok := v.reserved(name); ok {
		kind := errs.NotPermitted
		if s == Internal {
			kind = errs.Permission
		}
		return errs.New(kind, "Cannot update the %q Namespace.", ns)
	}
	if v.GuestSpace(name) == s {
		return nil
	}
	if s == Internal {
		return errs.New(errs.NotPermitted, "a guest's names in internal/ end in _pw; others are in keys/")
	}
	return errs.New(errs.NotPermitted, "names that end in _pw are in internal/")
}
