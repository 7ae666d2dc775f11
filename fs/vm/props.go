package vm

// Prop is the property of that name. The two metadata members are null here:
// their entries are in the spaces.
func (v *VM) Prop(name string) (Value, bool) { return v.Props.Get(name) }

// Text is the property of that name if it is a string, or "".
func (v *VM) Text(name string) string { return v.Props.text(name) }

// Alias is the VM's name for people, or "".
func (v *VM) Alias() string { return v.Text("alias") }

// Link is the alias by which the VM is found: "" for an alias that is kept but not
// linked, since another VM had it when it was given. That is so as long as the
// property unlinked_alias is the alias.
func (v *VM) Link() string {
	if alias := v.Alias(); alias != v.Text("unlinked_alias") {
		return alias
	}
	return ""
}

// State is the VM's state, such as "running", or "".
func (v *VM) State() string { return v.Text("state") }

// Namespaces are the prefixes of internal keys that the guest may read
// (internal_metadata_namespaces).
func (v *VM) Namespaces() []string {
	list, _ := v.Prop("internal_metadata_namespaces")
	return texts(list)
}

// hasNamespace is Namespaces contains ns, without a copy: it is asked for every
// name that a guest lists.
func (v *VM) hasNamespace(ns string) bool {
	list, _ := v.Prop("internal_metadata_namespaces")
	for i := range list.Items {
		if list.Items[i].Kind == StringValue && list.Items[i].Text == ns {
			return true
		}
	}
	return false
}

// spaceOf is the space that a payload's member holds.
func spaceOf(member string) (Space, bool) {
	for s := range NumSpaces {
		if s.Member() == member {
			return s, true
		}
	}
	return 0, false
}
