package vm_test

import (
	"fmt"
	"strings"
	"testing"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/vmtest"
)

// TestAlone: a VM that was made of another takes beside it what was changed, and no more.
func TestAlone(t *testing.T) {
	const keys, size = 100, 10_000
	st := vmtest.NewStamp()
	v, _, err := vm.New(ordjson.Members{{Name: vm.PropUUID, Value: ordjson.Str(vm.NewUUID())}}, nil, st, vm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	edit := v.Edit()
	for i := range keys {
		if _, err := edit.Put(vm.Keys, nil, fmt.Sprint("k", i), strings.Repeat("x", size), st, vm.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	v = edit.VM()
	mode := uint16(0o644)
	for what, c := range map[string]struct {
		least, most int64
		change      func(*vm.Edit)
	}{
		"nothing": {0, 1000, func(*vm.Edit) {}},
		"a new key": {0, 4000, func(e *vm.Edit) {
			_, _ = e.Put(vm.Keys, nil, "new", strings.Repeat("y", size), st, vm.Limits{})
		}},
		"a mode":  {0, 4000, func(e *vm.Edit) { e.SetMeta(vm.Keys, e.Get(vm.Keys, "k1"), &mode, nil, st) }},
		"a value": {size, size + 4000, func(e *vm.Edit) { _, _ = e.Put(vm.Keys, e.Get(vm.Keys, "k1"), "k1", "", st, vm.Limits{}) }},
		"all keys": {keys * size, keys * (size + 400), func(e *vm.Edit) {
			for i := range keys {
				e.Remove(vm.Keys, e.Get(vm.Keys, fmt.Sprint("k", i)), st)
			}
		}},
	} {
		e := v.Edit()
		c.change(e)
		if n := v.Alone(e.VM()); n < c.least || n > c.most {
			t.Errorf("%s: %d bytes, want %d to %d", what, n, c.least, c.most)
		}
	}
}
