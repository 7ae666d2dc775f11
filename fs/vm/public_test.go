package vm_test

import (
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"pgregory.net/rapid"
)

func TestPublic(t *testing.T) {
	for _, c := range []struct{ members, want string }{
		{``, `{"uuid":"` + uuid + `"}`},
		{`"internal_metadata":{},"a":1`, `{"uuid":"` + uuid + `","a":1}`},
		{`"internal_metadata":{"root_pw":"x"},"customer_metadata":{"k":1}`, `{"uuid":"` + uuid + `","customer_metadata":{"k":1}}`},
		{
			`"__meta9_binary":{"customer_metadata":{"b":"/w=="},"internal_metadata":{"i":"/w=="}}`,
			`{"uuid":"` + uuid + `","customer_metadata":{},"__meta9_binary":{"customer_metadata":{"b":"/w=="}}}`,
		},
	} {
		v := small(t, newStamp(), c.members)
		before := whole(v)
		public := v.Public()
		diff(t, c.members, whole(public), c.want)
		diff(t, c.members+" itself", whole(v), before)
	}
}

func TestPublicBytes(t *testing.T) {
	v := small(t, newStamp(), `"customer_metadata":{"k":"12"},"internal_metadata":{"i":"1"}`)
	if got := v.Public().Bytes(); got != 3 || v.Bytes() != 5 {
		t.Errorf("%d public bytes of %d, want 3 of 5", got, v.Bytes())
	}
}

func TestMember(t *testing.T) {
	v := small(t, newStamp(), `"ram":1024,"customer_metadata":{"k":"v","n":7},"__meta9_binary":{"customer_metadata":{"b":"/w=="}}`)
	for _, c := range []struct{ name, want string }{
		{"ram", `1024`},
		{"customer_metadata", `{"k":"v","n":7}`},
	} {
		m, ok := v.Member(c.name)
		if !ok {
			t.Errorf("no %s", c.name)
		}
		diff(t, c.name, string(m.AppendJSON(nil)), c.want)
	}
	if _, ok := v.Member("internal_metadata"); ok {
		t.Error("a member that is not there was found")
	}
}

func TestReplace(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{`"a":1,"b":2`, `"b":2,"c":3`},
		{`"customer_metadata":{"a":"1","b":"2"}`, `"customer_metadata":{"b":"3","c":true}`},
		{`"customer_metadata":{"a":"1"},"internal_metadata":{"i":"1"}`, `"alias":"x"`},
		{`"internal_metadata":{"i":"1"}`, `"__meta9_binary":{"internal_metadata":{"i":"/w=="}},"z":1`},
		{`"x":1`, `"internal_metadata":{"i":1},"x":1`},
		{`"resolvers":["a","b"]`, `"resolvers":["b","a"]`},
	} {
		st := newStamp()
		v, want := small(t, st, c.from), whole(small(t, newStamp(), c.to))
		e := v.Edit()
		if err := e.Replace([]byte(want), st, vm.DefaultLimits); err != nil {
			t.Fatalf("%s: %v", c.to, err)
		}
		diff(t, c.from+" -> "+c.to, whole(e.VM()), want)
		again := e.VM().Edit()
		if err := again.Replace([]byte(want), st, vm.DefaultLimits); err != nil || len(again.Changes()) != 0 {
			t.Errorf("%s again: %v, %v", c.to, err, again.Changes())
		}
	}
}

func TestReplaceRefuses(t *testing.T) {
	st := newStamp()
	v := small(t, st, `"customer_metadata":{"a":"1"}`)
	e := v.Edit()
	other := `{"uuid":"11111111-2222-3333-4444-555555555555"}`
	wantError(t, e.Replace([]byte(other), st, vm.DefaultLimits), errs.Invalid, "uuid: cannot change")
	wantError(t, e.Replace([]byte(`{"uuid":"`+uuid+`","customer_metadata":{"b":null}}`), st, vm.DefaultLimits), errs.Invalid, "customer_metadata.b")
	wantError(t, e.Replace([]byte(`{"uuid":"`+uuid+`","customer_metadata":{"b":"12345"}}`), st, vm.Limits{Value: 4}), errs.TooLarge, "4 bytes")
	if e.VM() != v {
		t.Error("a refused Replace has changed the VM")
	}
}

// TestReplaceKeepsIDs: a key that stays is the same file.
func TestReplaceKeepsIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID)
		object := func(names []string) string {
			o := vm.Object{}
			for _, n := range names {
				o = append(o, vm.Member{Name: n, Value: vm.Value{Kind: vm.StringValue, Text: n}})
			}
			all := vm.Object{
				{Name: "uuid", Value: vm.Value{Kind: vm.StringValue, Text: uuid}},
				{Name: "customer_metadata", Value: vm.Value{Kind: vm.ObjectValue, Members: o}},
			}
			return string(vm.Value{Kind: vm.ObjectValue, Members: all}.AppendJSON(nil))
		}
		st := newStamp()
		v, _, err := vm.Create([]byte(object(names.Draw(t, "from"))), st, vm.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		to := names.Draw(t, "to")
		e := v.Edit()
		if err := e.Replace([]byte(object(to)), st, vm.DefaultLimits); err != nil {
			t.Fatal(err)
		}
		if got := len(e.VM().Entries(vm.Keys)); got != len(to) {
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
