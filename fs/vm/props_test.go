package vm_test

import (
	"testing"

	"meta9/fs/vm"
	"meta9/fs/vm/vmtest"
)

func TestPerm(t *testing.T) {
	for _, c := range []struct {
		members string
		want    vm.Perm
	}{
		{``, vm.Perm{}},
		{`"9p_uid":1000,"9p_gid":4294967294,"9p_mode":"0640"`, vm.Perm{UID: 1000, GID: vm.MaxID, Mode: 0o640, HasMode: true}},
		{`"9p_mode":"000"`, vm.Perm{HasMode: true}},
		{`"9p_uid":null,"9p_mode":null`, vm.Perm{}},
	} {
		vmtest.Diff(t, c.members, vmtest.Small(t, vmtest.NewStamp(), c.members).Perm(), c.want)
	}
	// A VM of an older data folder may have anything there.
	old, err := vm.Restore(vmtest.UUID, 1, 1, 1, []byte(`{"9p_uid":{},"9p_gid":-1,"9p_mode":"rwx"}`), [vm.NumSpaces][]*vm.Entry{})
	if err != nil {
		t.Fatal(err)
	}
	vmtest.Diff(t, "no rule allows them", old.Perm(), vm.Perm{})
}
