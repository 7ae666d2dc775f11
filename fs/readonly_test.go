package fs_test

import (
	"errors"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/macro"
)

// TestReadOnly: on a mirror whatever would change a VM is EROFS, at the open
// already, and the text says why. Reading goes on.
func TestReadOnly(t *testing.T) {
	st, err := store.Open(store.NewMemory(), store.Config{ReadOnly: "this is a mirror"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	tree := fs.New(st, fs.Config{})
	if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: payloadA, Mirror: true}); r.Err != nil {
		t.Fatal(r.Err)
	}
	for who, dir := range map[fs.Principal]string{{Admin: true}: "vms/" + vmA, {VM: vmA}: ""} {
		v := tree.View(who)
		defer v.Close()
		root, err := v.Attach("", dir)
		if err != nil {
			t.Fatal(err)
		}
		put := func(path ...string) error {
			done := make(chan error, 1)
			macro.Put(root, path, []byte(`update {"x":1}`), func(err error) { done <- err })
			return <-done
		}
		refused(t, who, "put", put("keys", "color"))
		refused(t, who, "create", put("keys", "new"))
		done := make(chan error, 1)
		macro.Delete(root, []string{"keys", "color"}, func(err error) { done <- err })
		refused(t, who, "remove", <-done)
		if who.Admin {
			refused(t, who, "update", put("ctl"))
		}
		key, err := macro.Find(root, []string{"keys", "color"})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []fs.Flags{fs.Write, fs.Read | fs.Trunc, fs.Write | fs.AppendTo} {
			_, err := key.Open(f)
			refused(t, who, "open", err)
		}
		if b, err := macro.Get(nil, root, []string{"keys", "color"}, 100); err != nil || string(b) != "blue" {
			t.Errorf("%v reads %q, %v", who, b, err)
		}
	}
}

func refused(t *testing.T, who fs.Principal, what string, err error) {
	t.Helper()
	if !errors.Is(err, errs.ReadOnly) || !strings.Contains(err.Error(), "this is a mirror") {
		t.Errorf("%v, %s: %v", who, what, err)
	}
}
