package store

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/hashicorp/go-memdb"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// The tables of the index. They change only when a VM comes, goes or gets another
// alias or vsock_cid: what a VM holds is in its Cell. Both have indexers of their
// own, since memdb's use reflection.
const (
	tableVMs   = "vms"   // *Cell by the VM's ID
	tableNames = "names" // *nameRow by nameKey
	indexID    = "id"
)

// nameRow leads from a name to the VM that has it.
type nameRow struct {
	key  nameKey
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

// newIndex makes the empty tables.
func newIndex() (*memdb.MemDB, error) {
	table := func(name string, by memdb.Indexer) *memdb.TableSchema {
		return &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
			indexID: {Name: indexID, Unique: true, Indexer: by},
		}}
	}
	return memdb.NewMemDB(&memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		tableVMs:   table(tableVMs, byID{}),
		tableNames: table(tableNames, byName{}),
	}})
}

// byID indexes Cells by the VM's ID, big-endian, so that they are in its order.
type byID struct{}

func (byID) FromObject(o any) (bool, []byte, error) {
	return true, binary.BigEndian.AppendUint64(nil, o.(*Cell).id), nil
}

func (byID) FromArgs(args ...any) ([]byte, error) {
	id, ok := args[0].(uint64)
	if !ok {
		return nil, fmt.Errorf("%T is no ID", args[0])
	}
	return binary.BigEndian.AppendUint64(nil, id), nil
}

// byName indexes nameRows.
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

// lookup is the VM that has the name in what txn sees, or nil.
func lookup(txn *memdb.Txn, key nameKey) *Cell {
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
func hint(txn *memdb.Txn, c *Cell, was, will nameKey) error {
	if was != (nameKey{}) && was != will && lookup(txn, was) == c {
		if err := txn.Delete(tableNames, &nameRow{key: was}); err != nil {
			return err
		}
	}
	if will == (nameKey{}) || lookup(txn, will) != nil {
		return nil
	}
	return txn.Insert(tableNames, &nameRow{will, c})
}

// claim makes c a VM of the index (was is nil), or no longer one (will is nil), and
// gives it the names of its VM as it will be in place of those of the VM as it
// was. The error is Exists, and names the field and who has it; then nothing has
// changed.
func claim(txn *memdb.Txn, c *Cell, was, will *vm.VM) error {
	for _, f := range uniqueFields {
		if will == nil {
			break
		}
		if other := lookup(txn, f.name(will)); other != nil && other != c {
			return errs.New(errs.Exists, "%s: %q is VM %s's already", f.field, f.name(will).text, other.uuid)
		}
	}
	for _, f := range uniqueFields {
		if err := rename(txn, c, nameOf(f.name, was), nameOf(f.name, will)); err != nil {
			return errs.New(errs.IO, "%s: %v", f.field, err)
		}
	}
	err := hint(txn, c, hintOf(was), hintOf(will))
	switch {
	case err != nil:
	case was == nil && will != nil:
		err = txn.Insert(tableVMs, c)
	case was != nil && will == nil:
		err = txn.Delete(tableVMs, c)
	}
	if err != nil {
		return errs.New(errs.IO, "index: %v", err)
	}
	return nil
}

func nameOf(name func(*vm.VM) nameKey, v *vm.VM) nameKey {
	if v == nil {
		return nameKey{}
	}
	return name(v)
}

func rename(txn *memdb.Txn, c *Cell, was, will nameKey) error {
	if was == will {
		return nil
	}
	if was != (nameKey{}) {
		if err := txn.Delete(tableNames, &nameRow{key: was}); err != nil {
			return err
		}
	}
	if will == (nameKey{}) {
		return nil
	}
	return txn.Insert(tableNames, &nameRow{will, c})
}

// cells calls fn for the VMs from that ID on, until it returns false.
func cells(txn *memdb.Txn, from uint64, fn func(*Cell) bool) {
	it, err := txn.LowerBound(tableVMs, indexID, from)
	if err != nil {
		return
	}
	for o := it.Next(); o != nil; o = it.Next() {
		if !fn(o.(*Cell)) {
			return
		}
	}
}
