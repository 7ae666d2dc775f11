package payload_test

import (
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
	"pgregory.net/rapid"
)

func TestReplace(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{`"a":1,"b":2`, `"b":2,"c":3`},
		{`"customer_metadata":{"a":"1","b":"2"}`, `"customer_metadata":{"b":"3","c":true}`},
		{`"customer_metadata":{"a":"1"},"internal_metadata":{"i":"1"}`, `"alias":"x"`},
		{`"internal_metadata":{"i":"1"}`, `"__meta9_binary":{"internal_metadata":{"i":"/w=="}},"z":1`},
		{`"x":1`, `"internal_metadata":{"i":1},"x":1`},
		{`"resolvers":["a","b"]`, `"resolvers":["b","a"]`},
	} {
		st := vmtest.NewStamp()
		v, want := vmtest.Small(t, st, c.from), vmtest.Whole(vmtest.Small(t, vmtest.NewStamp(), c.to))
		e := v.Edit()
		if err := payload.Replace(e, []byte(want), st, vm.DefaultLimits); err != nil {
			t.Fatalf("%s: %v", c.to, err)
		}
		vmtest.Diff(t, c.from+" -> "+c.to, vmtest.Whole(e.VM()), want)
		again := e.VM().Edit()
		if err := payload.Replace(again, []byte(want), st, vm.DefaultLimits); err != nil || len(again.Changes()) != 0 {
			t.Errorf("%s again: %v, %v", c.to, err, again.Changes())
		}
	}
}

func TestReplaceRefuses(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, `"customer_metadata":{"a":"1"}`)
	e := v.Edit()
	other := `{"uuid":"11111111-2222-3333-4444-555555555555"}`
	vmtest.WantError(t, payload.Replace(e, []byte(other), st, vm.DefaultLimits), errs.Invalid, "uuid: cannot change")
	vmtest.WantError(t, payload.Replace(e, []byte(`{"uuid":"`+vmtest.UUID+`","customer_metadata":{"b":null}}`), st, vm.DefaultLimits), errs.Invalid, "customer_metadata.b")
	vmtest.WantError(t, payload.Replace(e, []byte(`{"uuid":"`+vmtest.UUID+`","customer_metadata":{"b":"12345"}}`), st, vm.Limits{Value: 4}), errs.TooLarge, "4 bytes")
	if e.VM() != v {
		t.Error("a refused Replace has changed the VM")
	}
}

// TestReplaceKeepsIDs: a key that stays is the same file.
func TestReplaceKeepsIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID)
		object := func(names []string) string {
			o := ordjson.Members{}
			for _, n := range names {
				o = append(o, ordjson.Member{Name: n, Value: ordjson.Value{Kind: ordjson.String, Text: n}})
			}
			all := ordjson.Members{
				{Name: "uuid", Value: ordjson.Value{Kind: ordjson.String, Text: vmtest.UUID}},
				{Name: "customer_metadata", Value: ordjson.Value{Kind: ordjson.Object, Members: o}},
			}
			return string(ordjson.Value{Kind: ordjson.Object, Members: all}.AppendJSON(nil))
		}
		st := vmtest.NewStamp()
		v, _, err := payload.Create([]byte(object(names.Draw(t, "from"))), st, vm.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		to := names.Draw(t, "to")
		e := v.Edit()
		if err := payload.Replace(e, []byte(object(to)), st, vm.DefaultLimits); err != nil {
			t.Fatal(err)
		}
		if got := e.VM().Count(); got != len(to) {
			t.Fatalf("%d keys, want %d", got, len(to))
		}
		for _, n := range to {
			was, is := v.Get(vm.Keys, n), e.VM().Get(vm.Keys, n)
			if is == nil || was != nil && was != is {
				t.Fatalf("key %s: was %v, is %v", n, was, is)
			}
		}
	})
}
