package vm

import (
	"slices"

	"meta9/fs/vm/ordjson"
)

// Public is the VM without its internal metadata, for those who are not proved to
// be the admin and are no guest either: AppendJSON and Diff of two such VMs show
// nothing of it, also not that it is there. It shares all else with v.
func (v *VM) Public() *VM {
	i := v.Props.Index(Internal.Member())
	if i < 0 && v.spaces[Internal].count == 0 {
		return v
	}
	public := *v
	if i >= 0 {
		public.Props = slices.Delete(slices.Clone(v.Props), i, i+1)
	}
	public.spaces[Internal] = space{}
	for e := range v.spaces[Internal].all() {
		public.bytes -= e.bytes()
	}
	return &public
}

// Named is the VM with a zonename, at the beginning as vminfod has it: its own, or its
// uuid. It shares all else with v.
func (v *VM) Named() *VM {
	if v.Text(PropZonename) != "" {
		return v
	}
	named := *v
	named.Props = make(ordjson.Members, 1, len(v.Props)+1)
	named.Props[0] = ordjson.Member{Name: PropZonename, Value: ordjson.Str(v.UUID)}
	for _, m := range v.Props {
		if m.Name != PropZonename {
			named.Props = append(named.Props, m)
		}
	}
	return &named
}

// Member is the member of that name of what AppendJSON shows to an admin, but for
// BinaryMember.
func (v *VM) Member(name string) (ordjson.Value, bool) {
	i := v.Props.Index(name)
	if i < 0 {
		return ordjson.Value{}, false
	}
	if s, ok := SpaceOf(name); ok {
		text, _ := v.spaces[s].objects(nil)
		return ordjson.Value{Kind: ordjson.Object, Members: text}, true
	}
	return v.Props[i].Value, true
}
