package vm_test

import (
	"testing"

	"meta9/fs/vm/vmtest"
)

func TestPublic(t *testing.T) {
	for _, c := range []struct{ members, want string }{
		{``, `{"uuid":"` + vmtest.UUID + `"}`},
		{`"internal_metadata":{},"a":1`, `{"uuid":"` + vmtest.UUID + `","a":1}`},
		{`"internal_metadata":{"root_pw":"x"},"customer_metadata":{"k":1}`, `{"uuid":"` + vmtest.UUID + `","customer_metadata":{"k":1}}`},
		{
			`"__meta9_binary":{"customer_metadata":{"b":"/w=="},"internal_metadata":{"i":"/w=="}}`,
			`{"uuid":"` + vmtest.UUID + `","customer_metadata":{},"__meta9_binary":{"customer_metadata":{"b":"/w=="}}}`,
		},
	} {
		v := vmtest.Small(t, vmtest.NewStamp(), c.members)
		before := vmtest.Whole(v)
		public := v.Public()
		vmtest.Diff(t, c.members, vmtest.Whole(public), c.want)
		vmtest.Diff(t, c.members+" itself", vmtest.Whole(v), before)
	}
}

func TestPublicBytes(t *testing.T) {
	v := vmtest.Small(t, vmtest.NewStamp(), `"customer_metadata":{"k":"12"},"internal_metadata":{"i":"1"}`)
	if got := v.Public().Bytes(); got != 3 || v.Bytes() != 5 {
		t.Errorf("%d public bytes of %d, want 3 of 5", got, v.Bytes())
	}
}

func TestNamed(t *testing.T) {
	for members, want := range map[string]string{
		`"a":1`:                   `{"zonename":"` + vmtest.UUID + `","uuid":"` + vmtest.UUID + `","a":1}`,
		`"zonename":null`:         `{"zonename":"` + vmtest.UUID + `","uuid":"` + vmtest.UUID + `"}`,
		`"a":1,"zonename":"zone"`: `{"uuid":"` + vmtest.UUID + `","a":1,"zonename":"zone"}`,
	} {
		v := vmtest.Small(t, vmtest.NewStamp(), members)
		before := vmtest.Whole(v)
		vmtest.Diff(t, members, vmtest.Whole(v.Named()), want)
		vmtest.Diff(t, members+" itself", vmtest.Whole(v), before)
	}
}

func TestMember(t *testing.T) {
	v := vmtest.Small(t, vmtest.NewStamp(), `"ram":1024,"customer_metadata":{"k":"v","n":7},"__meta9_binary":{"customer_metadata":{"b":"/w=="}}`)
	for _, c := range []struct{ name, want string }{
		{"ram", `1024`},
		{"customer_metadata", `{"k":"v","n":7}`},
	} {
		m, ok := v.Member(c.name)
		if !ok {
			t.Errorf("no %s", c.name)
		}
		vmtest.Diff(t, c.name, string(m.AppendJSON(nil)), c.want)
	}
	if _, ok := v.Member("internal_metadata"); ok {
		t.Error("a member that is not there was found")
	}
}
