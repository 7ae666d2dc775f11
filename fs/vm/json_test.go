package vm_test

import (
	"strings"
	"testing"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
)

// TestGuestJSON: the guest's vm.json of the vector VM lacks what it does not see
// and nothing else.
func TestGuestJSON(t *testing.T) {
	v := vmtest.Keep(t, vmtest.NewStamp(), string(vmtest.ReadMdata(t, "../..").VM))
	want := vmtest.Whole(v)
	for _, hidden := range []string{
		`"foo:shadow":"customer",`, `"x_pw":"wrong",`,
		`"operator-script":"#!/bin/sh\necho op\n",`, `,"secret":"hidden"`, `,"sdc:volumes":"[{\"name\":\"v\"}]"`,
	} {
		if !strings.Contains(want, hidden) {
			t.Fatalf("%s is not in %s", hidden, want)
		}
		want = strings.Replace(want, hidden, "", 1)
	}
	vmtest.Diff(t, "guest's JSON", string(v.AppendJSON(nil, true)), want)
}

// TestJSONIsThePayload: what was given comes back, byte for byte but for blanks.
func TestJSONIsThePayload(t *testing.T) {
	payload, err := ordjson.Parse(vmtest.ReadMdata(t, "../..").VM)
	if err != nil {
		t.Fatal(err)
	}
	vmtest.Diff(t, "JSON", vmtest.Whole(vmtest.Keep(t, vmtest.NewStamp(), string(vmtest.ReadMdata(t, "../..").VM))), string(payload.AppendJSON(nil)))
}

// TestBinaryValues: they leave their place, are base64 beside it, and come back.
func TestBinaryValues(t *testing.T) {
	st := vmtest.NewStamp()
	v := vmtest.Small(t, st, `"customer_metadata":{"a":"1"}`)
	e := v.Edit()
	for _, s := range []vm.Space{vm.Keys, vm.Internal} {
		for _, name := range []string{"bin", "b_pw"} {
			if _, err := e.Put(s, e.Get(s, name), name, "\xff\x00", st, vm.DefaultLimits); err != nil {
				t.Fatal(err)
			}
		}
	}
	v = e.VM()
	const head = `{"uuid":"` + vmtest.UUID + `","customer_metadata":{"a":"1"},"internal_metadata":{},"__meta9_binary":`
	vmtest.Diff(t, "admin's", vmtest.Whole(v), head+`{"customer_metadata":{"bin":"/wA=","b_pw":"/wA="},"internal_metadata":{"bin":"/wA=","b_pw":"/wA="}}}`)
	vmtest.Diff(t, "guest's", string(v.AppendJSON([]byte("x"), true)), "x"+head+`{"customer_metadata":{"bin":"/wA="},"internal_metadata":{"b_pw":"/wA="}}}`)

	back := vmtest.Keep(t, st, vmtest.Whole(v))
	vmtest.Diff(t, "read again", vmtest.Whole(back), vmtest.Whole(v))
	if got := back.Get(vm.Internal, "b_pw"); got.Value != "\xff\x00" || got.Kind != vm.Text {
		t.Errorf("b_pw is %+v", got)
	}
	if err := payload.Update(e, []byte(vmtest.Whole(v)), st, vm.DefaultLimits); err != nil || e.VM() != v {
		t.Errorf("its own JSON changed it: %v", err)
	}
}

// TestOnlyInternalBinary: an empty half of the member is left out.
func TestOnlyInternalBinary(t *testing.T) {
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, "").Edit()
	if _, err := e.Put(vm.Internal, e.Get(vm.Internal, "x"), "x", "\xff", st, vm.DefaultLimits); err != nil {
		t.Fatal(err)
	}
	vmtest.Diff(t, "JSON", vmtest.Whole(e.VM()), `{"uuid":"`+vmtest.UUID+`","internal_metadata":{},"__meta9_binary":{"internal_metadata":{"x":"/w=="}}}`)
	vmtest.Diff(t, "guest's", string(e.VM().AppendJSON(nil, true)), `{"uuid":"`+vmtest.UUID+`","internal_metadata":{}}`)
}

// TestGuestSeesNoHost: paths and users of the host are not a guest's business, the first
// member included.
func TestGuestSeesNoHost(t *testing.T) {
	v := vmtest.Keep(t, vmtest.NewStamp(), `{"9p_chardev":"/var/x,link","9p_listen":"/var/z","uuid":"`+vmtest.UUID+`","qmp_socket":"/run/q","mdata_chardev":"/var/y","9p_owner":"libvirt-qemu","9p_uid":7}`)
	if got, want := string(v.AppendJSON(nil, true)), `{"uuid":"`+vmtest.UUID+`","9p_uid":7}`; got != want {
		t.Errorf("a guest sees %s, want %s", got, want)
	}
	if got := string(v.AppendJSON(nil, false)); !strings.Contains(got, "libvirt-qemu") {
		t.Errorf("the admin sees %s", got)
	}
}
