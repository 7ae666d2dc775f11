package store

import (
	"fmt"
	"strconv"

	"github.com/google/btree"
	"github.com/hashicorp/go-memdb"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// index leads from names to VMs, and through all VMs in the order of their IDs. It
// changes only when a VM comes, goes or gets another alias or vsock_cid: what a VM
// holds is in its Cell. One that was published never changes: the committer changes a
// clone, which shares what is the same, and seals it.
//
// What people name VMs by, and may change, is a table of go-memdb. ID and UUID, which
// each VM has and keeps, are in B-trees: there a row takes a tenth of the memory.
type index struct {
	vms   *btree.BTreeG[vmRow]
	uuids *btree.BTreeG[uuidRow]
	names *memdb.MemDB // nameRows by nameKey
	txn   *memdb.Txn   // on names, while the index may be changed
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

// uuidRow is a VM by its UUID.
type uuidRow struct {
	uuid string
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

// aliases are the alias that a VM gives up and the one that it gets, where they differ.
func aliases(was, will *vm.VM) (frees, takes string) {
	if was != nil {
		frees = was.Link()
	}
	if will != nil {
		takes = will.Link()
	}
	if frees == takes {
		return "", ""
	}
	return frees, takes
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

const (
	tableNames = "names"
	indexID    = "id" // go-memdb wants one of this name
)

// newIndex is an empty one that may be changed.
func newIndex() (*index, error) {
	names, err := memdb.NewMemDB(&memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		tableNames: {Name: tableNames, Indexes: map[string]*memdb.IndexSchema{
			indexID: {Name: indexID, Unique: true, Indexer: byName{}},
		}},
	}})
	if err != nil {
		return nil, errs.New(errs.IO, "index: %v", err)
	}
	return &index{
		vms:   btree.NewG(degree, func(a, b vmRow) bool { return a.id < b.id }),
		uuids: btree.NewG(degree, func(a, b uuidRow) bool { return a.uuid < b.uuid }),
		names: names,
		txn:   names.Txn(true),
	}, nil
}

// clone is an index that may be changed. Only the committer may ask for it.
func (x *index) clone() *index {
	names := x.names.Snapshot()
	return &index{x.vms.Clone(), x.uuids.Clone(), names, names.Txn(true)}
}

// seal ends the changes: any number of goroutines may read it from now on.
func (x *index) seal() *index {
	x.txn.Commit()
	x.txn = nil
	return x
}

// byName indexes nameRows; memdb's own indexers use reflection.
type byName struct{}

func (byName) FromObject(o any) (bool, []byte, error) {
	return true, o.(*nameRow).key.bytes(), nil
}

func (byName) FromArgs(args ...any) ([]byte, error) {
	key, ok := args[0].(nameKey)
	if !ok {
		return nil, fmt.Errorf("%T is no name", args[0])
	}
	return key.bytes(), nil
}

func (k nameKey) bytes() []byte {
	b := make([]byte, 0, 1+len(k.text))
	return append(append(b, k.field), k.text...)
}

// lookup is the VM that has the name, or nil.
func (x *index) lookup(key nameKey) *Cell {
	if key.field == nameUUID {
		row, _ := x.uuids.Get(uuidRow{uuid: key.text})
		return row.cell
	}
	txn := x.txn
	if txn == nil {
		txn = x.names.Txn(false)
	}
	o, err := txn.First(tableNames, indexID, key)
	if err != nil || o == nil {
		return nil
	}
	return o.(*nameRow).cell
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
func (x *index) hint(c *Cell, was, will nameKey) error {
	if was != (nameKey{}) && was != will && x.lookup(was) == c {
		if err := x.drop(was); err != nil {
			return err
		}
	}
	if will == (nameKey{}) || x.lookup(will) != nil {
		return nil
	}
	return x.txn.Insert(tableNames, &nameRow{will, c})
}

// claim makes c a VM of the index (was is nil), or no longer one (will is nil), and
// gives it the names of its VM as it will be in place of those of the VM as it
// was. The error is Exists, and names the field and who has it; then nothing has
// changed. A VM that comes from another host has no CID here while another VM has it.
func (x *index) claim(c *Cell, was, will *vm.VM) error {
	for _, f := range uniqueFields {
		if will == nil {
			break
		}
		name := f.name(will)
		if was != nil && f.name(was) == name || was == nil && c.came && name.field == nameCID {
			continue
		}
		if other := x.lookup(name); other != nil && other != c {
			return errs.New(errs.Exists, "%s: %q is VM %s's already", f.field, name.text, other.uuid)
		}
	}
	for _, f := range uniqueFields {
		if err := x.rename(c, nameOf(f.name, was), nameOf(f.name, will)); err != nil {
			return errs.New(errs.IO, "index: %s: %v", f.field, err)
		}
	}
	if err := x.hint(c, hintOf(was), hintOf(will)); err != nil {
		return errs.New(errs.IO, "index: %v", err)
	}
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

func (x *index) rename(c *Cell, was, will nameKey) error {
	switch {
	case was == will:
		return nil
	case was.field == nameUUID: // a VM keeps its UUID: it goes
		x.uuids.Delete(uuidRow{uuid: c.uuid})
		return nil
	case will.field == nameUUID:
		x.uuids.ReplaceOrInsert(uuidRow{c.uuid, c})
		return nil
	}
	if was != (nameKey{}) && x.lookup(was) == c {
		if err := x.drop(was); err != nil {
			return err
		}
	}
	if will == (nameKey{}) || x.lookup(will) != nil {
		return nil
	}
	return x.txn.Insert(tableNames, &nameRow{will, c})
}

// drop lets a name lead to no VM.
func (x *index) drop(name nameKey) error {
	return x.txn.Delete(tableNames, &nameRow{key: name})
}

// cells calls fn for the VMs from that ID on, until it returns false.
func (x *index) cells(from uint64, fn func(*Cell) bool) {
	x.vms.AscendGreaterOrEqual(vmRow{id: from}, func(row vmRow) bool { return fn(row.cell) })
}
