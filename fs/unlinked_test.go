package fs_test

import (
	"slices"
	"testing"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
)

// TestUnlinkedAlias: an alias that another VM has may be kept without its link in
// names/; also over a restart, whatever the order of the VMs is.
func TestUnlinkedAlias(t *testing.T) {
	dir := t.TempDir()
	var tree *fs.Tree // made before the store's first intent
	open := func() *store.Store {
		t.Helper()
		e, err := bolt.Open(dir, bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(e, store.Config{})
		if err != nil {
			t.Fatal(err)
		}
		tree = fs.New(st, fs.Config{})
		return st
	}
	st := open()
	do := func(in store.Intent, want string) {
		t.Helper()
		if r := st.Do(&in); kindName(r.Err) != want {
			t.Errorf("%s: %v", in.Data, r.Err)
		}
	}
	names := func(want ...string) {
		t.Helper()
		v := tree.View(fs.Principal{Admin: true})
		defer v.Close()
		root, err := v.Attach("", "names")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range listNames(t, root) {
			r, err := root.Walk(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, uuid := range []string{vmA, vmB} {
				if r.QID().Path == st.Cell(uuid).ID() {
					got = append(got, name+" "+uuid[:1])
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("names/ has %q, want %q", got, want)
		}
	}
	do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vmB + `","alias":"web"}`}, "ok")
	do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vmA + `","alias":"web"}`}, "Exists")
	do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vmA + `","alias":"web","unlinked_alias":"web"}`}, "ok")
	names("web 2")
	if got := st.Cell(vmA).VM().Alias(); got != "web" {
		t.Errorf("the alias is %q", got)
	}
	a := st.Cell(vmA)
	do(store.Intent{Kind: store.UpdateVM, Cell: a, Data: `{"unlinked_alias":null}`}, "Exists")
	do(store.Intent{Kind: store.UpdateVM, Cell: a, Data: `{"alias":"web2"}`}, "ok")
	names("web 2", "web2 1")
	do(store.Intent{Kind: store.UpdateVM, Cell: a, Data: `{"alias":"web"}`}, "ok")
	names("web 2")
	do(store.Intent{Kind: store.UpdateVM, Cell: st.Cell(vmB), Data: `{"alias":"other"}`}, "ok")
	do(store.Intent{Kind: store.UpdateVM, Cell: a, Data: `{"unlinked_alias":null}`}, "ok")
	names("other 2", "web 1")
	do(store.Intent{Kind: store.UpdateVM, Cell: st.Cell(vmB), Data: `{"alias":"web","unlinked_alias":"web"}`}, "ok")
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	st = open()
	defer func() { _ = st.Close() }()
	names("web 1")
}
