package vm_test

import (
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
)

// TestAccess is the table of docs/tree.md for a guest, whether or not the names
// are there yet.
func TestAccess(t *testing.T) {
	v := vmtest.Small(t, vmtest.NewStamp(), `"internal_metadata_namespaces":["docker","foo"]`)
	const (
		rw   = 0
		none = errs.NotPermitted // not there
		ro   = errs.Permission   // there to be read
	)
	for _, c := range []struct {
		name           string
		keys, internal errs.Kind
		text           string // why not in keys/
	}{
		{"hostname", rw, none, ""},
		{"user-script", rw, none, ""},
		{"root_pw", none, rw, "names that end in _pw are in internal/"},
		{"_pw", none, rw, "in internal/"},
		{"root_pwd", rw, none, ""},
		{"root_PW", rw, none, ""},
		{"foo:bar", none, ro, `Cannot update the "foo" Namespace.`},
		{"foo:", none, ro, `"foo"`},
		{"foo:a_pw", none, ro, `"foo"`},
		{"docker:a:b", none, ro, `"docker"`},
		{"foo", rw, none, ""},
		{"foobar:x", rw, none, ""},
		{"com.vendor:x", rw, none, ""},
		{"cloud-init:user-data", rw, none, ""},
		{"x:foo:y", rw, none, ""},
		{":x", rw, none, ""},
		{"x:a_pw", none, rw, "in internal/"},
		{"operator-script", none, none, `Cannot update "operator-script".`},
		{"sdc:operator-script", none, none, `Cannot update the "sdc" Namespace.`},
		{"sdc:volumes", none, none, `Cannot update the "sdc" Namespace.`},
		{"sdc:x_pw", none, none, `"sdc"`},
		{"sdc", rw, none, ""},
	} {
		for s, want := range map[vm.Space]errs.Kind{vm.Keys: c.keys, vm.Internal: c.internal} {
			if got := v.GuestSees(s, c.name); got != (want != none) {
				t.Errorf("%s/%s: seen: %v", s, c.name, got)
			}
			err := v.GuestMayWrite(s, c.name)
			switch {
			case want == rw && err != nil:
				t.Errorf("%s/%s: %v", s, c.name, err)
			case want != rw && s == vm.Keys:
				vmtest.WantError(t, err, want, c.text)
			case want != rw:
				vmtest.WantError(t, err, want, "")
			}
		}
	}
}

// TestAccessFollowsTheNamespaces: which names are reserved is what the VM's own
// internal_metadata_namespaces say. Without any, none is. "" in it reserves the names that begin
// with ":", which a guest then reads in internal/. "sdc" in it shows a guest nothing.
func TestAccessFollowsTheNamespaces(t *testing.T) {
	st := vmtest.NewStamp()
	plain := vmtest.Small(t, st, "")
	if !plain.GuestSees(vm.Keys, "foo:x") || plain.GuestMayWrite(vm.Keys, "foo:x") != nil {
		t.Error("foo: is reserved in a VM that reserves nothing")
	}
	e := plain.Edit()
	if err := payload.Update(e, []byte(`{"internal_metadata_namespaces":["sdc",""]}`), st, vm.DefaultLimits); err != nil {
		t.Fatal(err)
	}
	v := e.VM()
	if v.GuestSees(vm.Internal, "sdc:volumes") || !v.GuestSees(vm.Internal, ":x") {
		t.Error("sdc: is never a guest's; the empty namespace is one")
	}
}

// TestGuestSpace: every name of a guest's is kept in one space.
func TestGuestSpace(t *testing.T) {
	v := vmtest.Small(t, vmtest.NewStamp(), `"internal_metadata_namespaces":["foo"]`)
	for name, want := range map[string]vm.Space{"a": vm.Keys, "a_pw": vm.Internal, "foo:a": vm.Internal, "bar:a": vm.Keys} {
		if got := v.GuestSpace(name); got != want {
			t.Errorf("%s is in %v, want %v", name, got, want)
		}
	}
}

// TestAccessAllocatesNothing: it is asked for every name of every listing.
func TestAccessAllocatesNothing(t *testing.T) {
	v := vmtest.Keep(t, vmtest.NewStamp(), string(vmtest.ReadMdata(t, "../..").VM))
	n := testing.AllocsPerRun(100, func() {
		if !v.GuestSees(vm.Keys, "user-script") || !v.GuestSees(vm.Internal, "foo:bar") || v.Get(vm.Keys, "user-script") == nil {
			t.Fatal("not seen")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
