package vm_test

import (
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/vmtest"
)

// TestRecord: a VM that went to disk and back is the same VM.
func TestRecord(t *testing.T) {
	st := vmtest.NewStamp()
	for _, v := range []*vm.VM{vmtest.Keep(t, st, string(vmtest.ReadMdata(t, "../..").VM)), vmtest.Small(t, st, ""), vmtest.Small(t, st, `"customer_metadata":{},"a":1.0`)} {
		e := v.Edit()
		if _, err := e.Put(vm.Internal, e.Get(vm.Internal, "bin"), "bin", "\xff", st, vm.DefaultLimits); err != nil {
			t.Fatal(err)
		}
		v = e.VM()
		entries := [vm.NumSpaces][]*vm.Entry{}
		for s := range vm.NumSpaces {
			for e := range v.Entries(s) { // in another order
				entries[s] = append([]*vm.Entry{e}, entries[s]...)
			}
		}
		back, err := vm.Restore(v.UUID, v.ID, v.Rev, v.Mtime, v.AppendRecord(nil), entries)
		if err != nil {
			t.Fatal(err)
		}
		vmtest.Diff(t, "JSON", vmtest.Whole(back), vmtest.Whole(v))
		vmtest.Diff(t, "numbers", []any{back.UUID, back.ID, back.Rev, back.Mtime, back.Count(), back.Bytes()},
			[]any{v.UUID, v.ID, v.Rev, v.Mtime, v.Count(), v.Bytes()})
		for e := range v.Entries(vm.Keys) {
			if back.Get(vm.Keys, e.Name) != e {
				t.Errorf("%q is not found", e.Name)
			}
		}
	}
}

func TestRestoreErrors(t *testing.T) {
	a, b := &vm.Entry{ID: 1, Name: "a"}, &vm.Entry{ID: 2, Name: "a"}
	c := &vm.Entry{ID: 1, Name: "c"}
	for _, r := range []struct {
		uuid, props string
		entries     []*vm.Entry
		text        string
	}{
		{"x", `{}`, nil, "UUID"},
		{vmtest.UUID, `{`, nil, "JSON"},
		{vmtest.UUID, `[]`, nil, "no JSON object"},
		{vmtest.UUID, `{}`, []*vm.Entry{a, b}, `internal_metadata: the key "a" is there twice`},
		{vmtest.UUID, `{}`, []*vm.Entry{a, c}, `the same id 1`},
	} {
		v, err := vm.Restore(r.uuid, 1, 1, 1, []byte(r.props), [vm.NumSpaces][]*vm.Entry{vm.Internal: r.entries})
		vmtest.WantError(t, err, errs.Invalid, r.text)
		if v != nil {
			t.Errorf("%s: a VM beside the error", r.text)
		}
	}
}
