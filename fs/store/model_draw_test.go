package store_test

import (
	"fmt"

	"pgregory.net/rapid"

	"meta9/fs/store"
	"meta9/fs/vm"
)

// draw draws an intent; false if there is nothing for it to be about.
func (r *modelRun) draw() (modelOp, bool) {
	r.n++
	op := modelOp{n: r.n, uuid: rapid.SampledFrom([]string{uuidA, uuidB, uuidC}).Draw(r.t, "uuid")}
	if known := r.cells[op.uuid]; known.cell != nil {
		op.vmBorn, op.in.Cell = known.born, known.cell
	}
	if op.in.Cell == nil || rapid.IntRange(0, 19).Draw(r.t, "create") == 0 {
		op.in.Kind, op.in.Cell = store.CreateVM, nil
		op.in.Data = fmt.Sprintf(`{"uuid":"%s","alias":"%s","customer_metadata":{"%s":"%s"}}`, op.uuid, r.alias(), r.name(), r.text(13))
		return op, true
	}
	op.in.Kind = rapid.SampledFrom([]store.OpKind{
		store.Splice, store.Splice, store.Append, store.Append, store.Put, store.Put, store.Create,
		store.Set, store.Set, store.Set, store.Remove, store.FlushHold, store.UpdateVM, store.DeleteVM,
		store.Txn, store.Txn, store.Txn, store.Txn, store.Txn,
	}).Draw(r.t, "kind")
	switch op.in.Kind {
	case store.DeleteVM:
		return op, !r.loose
	case store.UpdateVM:
		op.in.Data = r.patch()
		return op, true
	case store.Txn:
		r.drawTxn(&op)
		return op, true
	case store.FlushHold:
		hold, ok := drawOf(r.t, "flushed hold", r.holds)
		op.hold, op.in.Hold = hold, r.holds[hold].hold
		return op, ok
	}
	return r.drawKey(op)
}

// drawKey draws an intent on a key, by its name or by the ID of one that is or
// was there.
func (r *modelRun) drawKey(op modelOp) (modelOp, bool) {
	op.in.Space = vm.Space(rapid.IntRange(0, 1).Draw(r.t, "space"))
	op.in.Name = r.name()
	byID := op.in.Kind != store.Put && op.in.Kind != store.Create && rapid.Bool().Draw(r.t, "by ID")
	if born, ok := drawOf(r.t, "key", r.keys); ok && byID && r.keys[born].uuid == op.uuid {
		op.born, op.in.ID, op.in.Space = born, r.keys[born].id, r.keys[born].space
	}
	switch op.in.Kind {
	case store.Splice:
		op.in.Off = rapid.SampledFrom([]uint64{0, 0, 1, 2, 5, 11, 12, 13, 1 << 40, 1<<64 - 1}).Draw(r.t, "off")
		op.in.Data = r.text(12)
	case store.Append, store.Put:
		op.in.Data = r.text(13)
	case store.Create:
		op.in.Exclusive = rapid.Bool().Draw(r.t, "exclusive")
	case store.Set:
		r.drawSet(&op.in)
	}
	return op, true
}

// drawTxn draws the conditions and parts of a transaction.
func (r *modelRun) drawTxn(op *modelOp) {
	t := new(store.Transaction)
	op.in.Txn = t
	space := func() vm.Space { return vm.Space(rapid.IntRange(0, 1).Draw(r.t, "space")) }
	for range rapid.IntRange(0, 2).Draw(r.t, "conditions") {
		c := store.Condition{Space: space(), Name: r.name(), Absent: rapid.Bool().Draw(r.t, "absent")}
		if !c.Absent && rapid.Bool().Draw(r.t, "of a value") {
			c.Value = ptr(r.text(2))
		}
		t.If = append(t.If, c)
	}
	names := rapid.Permutation([]string{"a", "b", "c", "d/e", "f g"}).Draw(r.t, "names")
	for len(names) > 1 && rapid.IntRange(0, 3).Draw(r.t, "another part") > 0 {
		part := store.Intent{Space: space(), Name: names[0]}
		part.Kind = rapid.SampledFrom([]store.OpKind{store.Put, store.Append, store.Remove, store.Set}).Draw(r.t, "part")
		names = names[1:]
		switch part.Kind {
		case store.Put, store.Append:
			part.Data = r.text(13)
		case store.Set:
			part.NewName, names = names[0], names[1:]
		}
		r.n++
		op.parts = append(op.parts, modelOp{n: r.n, uuid: op.uuid, vmBorn: op.vmBorn, part: true, in: part})
		t.Do = append(t.Do, part)
	}
}

func (r *modelRun) drawSet(in *store.Intent) {
	if rapid.Bool().Draw(r.t, "sets length") {
		in.Length = ptr(rapid.SampledFrom([]uint64{0, 0, 1, 3, 12, 13, 1 << 63}).Draw(r.t, "length"))
	}
	if rapid.Bool().Draw(r.t, "sets mode") {
		in.Mode = ptr(rapid.Uint16Range(0, 0o777).Draw(r.t, "mode"))
	}
	if rapid.Bool().Draw(r.t, "sets mtime") {
		in.Mtime = ptr(rapid.Int64().Draw(r.t, "mtime"))
	}
	in.NewName = rapid.SampledFrom([]string{"", "", "", "a", "b", "c", " bad"}).Draw(r.t, "new name")
}

func (r *modelRun) name() string {
	return rapid.SampledFrom([]string{"a", "b", "c", "d/e", "f g"}).Draw(r.t, "name")
}

func (r *modelRun) alias() string {
	if r.loose {
		return ""
	}
	return rapid.SampledFrom([]string{"", "web", "db"}).Draw(r.t, "alias")
}

func (r *modelRun) text(most int) string {
	return rapid.StringOfN(rapid.RuneFrom([]rune("xyz")), 0, most, -1).Draw(r.t, "text")
}

func (r *modelRun) patch() string {
	switch rapid.IntRange(0, 2).Draw(r.t, "patch") {
	case 0:
		return fmt.Sprintf(`{"set_customer_metadata":{"%s":"%s"}}`, r.name(), r.text(13))
	case 1:
		return fmt.Sprintf(`{"remove_customer_metadata":["%s","%s"],"set_customer_metadata":{"%s":"%s"}}`, r.name(), r.name(), r.name(), r.text(5))
	}
	return fmt.Sprintf(`{"alias":"%s"}`, r.alias())
}
