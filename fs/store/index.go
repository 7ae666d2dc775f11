package store

import (
	"strconv"

	"github.com/google/btree"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// index leads from names to VMs, and through all VMs in the order of their IDs. It
// changes only when a VM comes, goes or gets another alias or vsock_cid: what a VM
// holds is in its Cell. One that was published never changes: the committer changes a
// clone, which shares what is the same.
type index struct {
	names *btree.BTreeG[nameRow]
	vms   *btree.BTreeG[vmRow]
}

// nameRow leads from a name to the VM that has it.
type nameRow struct {
	key  nameKey
	cell *Cell
}

// vmRow is a VM by its ID.
type vmRow struct {
	id   uint64
	cell *Cell
}

// nameKey is a value that one VM alone may have of a unique field. The zero
// nameKey is no name.
type nameKey struct {
	field byte
	text  string
}

// The fields of nameKey.
const (
	nameUUID  = 'u'
	nameAlias = 'a'
	nameCID   = 'c'
	nameHint  = 'h' // an alias without a link: leads to one of the VMs that have it, while none has the link
)

// uniqueFields are the properties of which no two VMs have the same value.
var uniqueFields = [...]struct {
	field string
	name  func(*vm.VM) nameKey
}{
	{vm.PropUUID, func(v *vm.VM) nameKey { return nameKey{nameUUID, v.UUID} }},
	{vm.PropAlias, aliasOf},
	{vm.PropVsockCID, cidOf},
}

func aliasOf(v *vm.VM) nameKey {
	if v.Link() == "" {
		return nameKey{}
	}
	return nameKey{nameAlias, v.Link()}
}

// hintOf is the alias by which the VM is found while no VM is by a link.
func hintOf(v *vm.VM) nameKey {
	if v == nil || v.Alias() == "" || v.Link() != "" {
		return nameKey{}
	}
	return nameKey{nameHint, v.Alias()}
}

func cidOf(v *vm.VM) nameKey {
	p, _ := v.Prop(vm.PropVsockCID)
	if p.Kind != ordjson.Number {
		return nameKey{}
	}
	n, err := strconv.ParseUint(p.Text, 10, 32)
	if err != nil {
		return nameKey{}
	}
	return cidKey(uint32(n))
}

func cidKey(cid uint32) nameKey {
	return nameKey{nameCID, strconv.FormatUint(uint64(cid), 10)}
}

// degree is that of the trees: up to twice as many rows a node.
const degree = 32

func newIndex() *index {
	return &index{
		names: btree.NewG(degree, func(a, b nameRow) bool {
			if a.key.field != b.key.field {
				return a.key.field < b.key.field
			}
			return a.key.text < b.key.text
		}),
		vms: btree.NewG(degree, func(a, b vmRow) bool { return a.id < b.id }),
	}
}

// clone is an index that may be changed. Only the committer may ask for it.
func (x *index) clone() *index { return &index{x.names.Clone(), x.vms.Clone()} }

// lookup is the VM that has the name, or nil.
func (x *index) lookup(key nameKey) *Cell {
	row, _ := x.names.Get(nameRow{key: key})
	return row.cell
}

// sameNames says whether a VM is there with the same names before and after.
func sameNames(was, will *vm.VM) bool {
	if was == nil || will == nil {
		return was == will
	}
	for _, f := range uniqueFields {
		if f.name(was) != f.name(will) {
			return false
		}
	}
	return hintOf(was) == hintOf(will)
}

// hint lets c be found by its alias without a link, if no other VM is: the first that
// asks has it, until it asks for it no more.
func (x *index) hint(c *Cell, was, will nameKey) {
	if was != (nameKey{}) && was != will && x.lookup(was) == c {
		x.names.Delete(nameRow{key: was})
	}
	if will != (nameKey{}) && x.lookup(will) == nil {
		x.names.ReplaceOrInsert(nameRow{will, c})
	}
}

// claim makes c a VM of the index (was is nil), or no longer one (will is nil), and
// gives it the names of its VM as it will be in place of those of the VM as it
// was. The error is Exists, and names the field and who has it; then nothing has
// changed.
func (x *index) claim(c *Cell, was, will *vm.VM) error {
	for _, f := range uniqueFields {
		if will == nil {
			break
		}
		if other := x.lookup(f.name(will)); other != nil && other != c {
			return errs.New(errs.Exists, "%s: %q is VM %s's already", f.field, f.name(will).text, other.uuid)
		}
	}
	for _, f := range uniqueFields {
		x.rename(c, nameOf(f.name, was), nameOf(f.name, will))
	}
	x.hint(c, hintOf(was), hintOf(will))
	switch {
	case was == nil && will != nil:
		x.vms.ReplaceOrInsert(vmRow{c.id, c})
	case was != nil && will == nil:
		x.vms.Delete(vmRow{id: c.id})
	}
	return nil
}

func nameOf(name func(*vm.VM) nameKey, v *vm.VM) nameKey {
	if v == nil {
		return nameKey{}
	}
	return name(v)
}

func (x *index) rename(c *Cell, was, will nameKey) {
	if was == will {
		return
	}
	if was != (nameKey{}) {
		x.names.Delete(nameRow{key: was})
	}
	if will != (nameKey{}) {
		x.names.ReplaceOrInsert(nameRow{will, c})
	}
}

// cells calls fn for the VMs from that ID on, until it returns false.
func (x *index) cells(from uint64, fn func(*Cell) bool) {
	x.vms.AscendGreaterOrEqual(vmRow{id: from}, func(row vmRow) bool { return fn(row.cell) })
}
