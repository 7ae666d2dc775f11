package fs_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/fs"
	"meta9/fs/store"
)

// page lists at most n entries after a cookie, as a client does that has little
// room.
func page(t *testing.T, r *fs.Ref, after uint64, n int) (names []string, last uint64) {
	t.Helper()
	last = after
	err := r.List(after, func(cookie uint64, st *fs.Stat) bool {
		if cookie <= last || cookie >= 1<<63 {
			t.Errorf("cookie %d after %d", cookie, last)
		}
		if st.QID.Path == 0 || st.Name == "" {
			t.Errorf("entry %+v", st)
		}
		names, last = append(names, st.Name), cookie
		return len(names) < n
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, last
}

// TestListInPages: every folder lists the same one by one as at once, each entry
// is found by the name that is listed, and is what the listing says.
func TestListInPages(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.admin()
	defer c.view.Close()
	for _, dir := range []string{"", "vms", "names", "names/web", "names/web/keys", "names/web/internal", "names/web/sdc", "names/web/nocloud"} {
		r := c.walk(path(dir)...)
		var one []string
		for after := uint64(0); ; {
			names, last := page(t, r, after, 1)
			if len(names) == 0 {
				break
			}
			one, after = append(one, names...), last
		}
		all, _ := page(t, r, 0, 1000)
		if diff := cmp.Diff(all, one); diff != "" || len(all) < 2 {
			t.Errorf("%q: %s", dir, diff)
		}
		err := r.List(0, func(_ uint64, listed *fs.Stat) bool {
			var st fs.Stat
			if err := c.walk(append(path(dir), listed.Name)...).Stat(&st); err != nil || st != *listed {
				t.Errorf("%q is %+v, listed as %+v: %v", listed.Name, st, *listed, err)
			}
			return true
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestListWhileItChanges: what stays is listed once, whatever comes and goes
// between two pages.
func TestListWhileItChanges(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmB)
	defer c.view.Close()
	for i := range 10 {
		w.put(vmB, fmt.Sprintf("k%d", i), "x")
	}
	keys, sdc := c.walk("keys"), c.walk("sdc")
	names, last := page(t, keys, 0, 5)
	sdcNames, sdcLast := page(t, sdc, 0, 1)
	w.st.Do(&store.Intent{Kind: store.Remove, Cell: w.cell(vmB), Name: "k1"})
	w.st.Do(&store.Intent{Kind: store.Remove, Cell: w.cell(vmB), Name: names[4]})
	w.put(vmB, "a0", "x")
	w.st.Do(&store.Intent{Kind: store.UpdateVM, Cell: w.cell(vmB), Data: `{"ram":1,"tags":{"a":"b","c":"d"}}`})
	rest, _ := page(t, keys, last, 1000)
	all := append(names, rest...)
	for _, k := range []string{"color", "k0", "k2", "k5", "k9", "a0"} {
		if n := len(slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s != k })); n != 1 {
			t.Errorf("%s is listed %d times in %q", k, n, all)
		}
	}
	rest, _ = page(t, sdc, sdcLast, 1000)
	for _, s := range []string{"uuid", "alias"} {
		if slices.Contains(sdcNames, s) == slices.Contains(rest, s) {
			t.Errorf("%s: in %q and %q", s, sdcNames, rest)
		}
	}
}

// TestQIDs: no two objects have the same qid.path, a path is the same by any way
// and for anybody, and a version changes with the content.
func TestQIDs(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.admin()
	defer c.view.Close()
	guest := w.guest(vmA)
	defer guest.view.Close()
	seen := map[uint64]string{}
	var visit func(r *fs.Ref, at string)
	visit = func(r *fs.Ref, at string) {
		if other, ok := seen[r.QID().Path]; ok {
			t.Errorf("%s and %s have the path %d", other, at, r.QID().Path)
		}
		seen[r.QID().Path] = at
		if !r.IsDir() {
			return
		}
		names, _ := page(t, r, 0, 1000)
		for _, name := range names {
			next, err := r.Walk(name)
			if err != nil {
				t.Fatal(err)
			}
			if at != "/names" {
				visit(next, at+"/"+name)
			}
		}
	}
	visit(c.root, "")
	for _, p := range []string{"keys/color", "sdc/uuid", "vm.json", "events", "keys"} {
		a, b := guest.walk(path(p)...).QID(), c.walk(append([]string{"names", "web"}, path(p)...)...).QID()
		if a != b {
			t.Errorf("%s: %v and %v", p, a, b)
		}
	}
	before := guest.walk("keys", "color").QID()
	folder, json := guest.walk("keys").QID(), guest.walk("vm.json").QID()
	w.put(vmA, "color", "green")
	after := guest.walk("keys", "color").QID()
	if before.Path != after.Path || before.Version == after.Version {
		t.Errorf("color: %v, then %v", before, after)
	}
	if guest.walk("keys").QID() == folder || guest.walk("vm.json").QID() == json {
		t.Error("the folder or vm.json has its old version")
	}
	motd := guest.walk("keys", "motd").QID()
	if w.put(vmA, "color", "red"); guest.walk("keys", "motd").QID() != motd {
		t.Error("motd has another version")
	}
}

// TestDerivedPath is the decision on the qid paths of derived files: these must
// never change, since a client's cache outlives the daemon.
func TestDerivedPath(t *testing.T) {
	for _, tt := range []struct {
		id           uint64
		folder, name string
		want         uint64
	}{
		{16, "sdc", "uuid", 0x77aad3725bc4285f},
		{16, "nocloud", "meta-data", 0x7208352998861e56},
		{32, "sdc", "uuid", 0x7354cb669c46dd7c},
		{0, "sessions", "0102030405060708", 0x48c74c4a11e19804},
	} {
		if got := fs.DerivedPath(tt.id, tt.folder, tt.name); got != tt.want {
			t.Errorf("%d %s/%s: %#x, want %#x", tt.id, tt.folder, tt.name, got, tt.want)
		}
	}
	if n := testing.AllocsPerRun(10, func() { fs.DerivedPath(1, "sdc", "nics.0.mac") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// box is a graft that can be created in and removed from, as others may make them.
type box struct {
	fs.Folder
	files map[string]fs.Node
}

func (b *box) Create(name string, _ fs.Flags, by fs.Author, done func(fs.Node, error)) {
	n := fs.NewFile(fs.DerivedPath(0, "box", name), 0o444, func() ([]byte, error) { return []byte(by.By), nil })
	b.files[name] = n
	done(n, nil)
}

func (b *box) Unlink(name string, _ fs.Author, done func(error)) {
	delete(b.files, name)
	done(nil)
}

// TestGraftThatCreates: the capabilities of a graft's own are used.
func TestGraftThatCreates(t *testing.T) {
	b := &box{files: map[string]fs.Node{}}
	b.Folder = fs.NewFolder(fs.DerivedPath(0, "", "sessions"), func() (list []fs.NamedNode) {
		for name, n := range b.files {
			list = append(list, fs.NamedNode{Name: name, Node: n})
		}
		return list
	}).(fs.Folder)
	w := worldOn(t, store.NewMemory(), store.Config{}, func(tree *fs.Tree) {
		tree.GraftRoot("box", func(fs.Principal, *fs.View) fs.Node { return b })
	})
	c := w.admin()
	defer c.view.Close()
	dir := c.walk("box")
	if err := c.await(func(done func(error)) {
		dir.Create("x", fs.Read, false, func(r *fs.Ref, h fs.Handle, err error) {
			if err == nil && (c.mustRead(h, 0, 9) != "admin" || r.QID() != c.walk("box", "x").QID()) {
				t.Error("another file")
			}
			done(err)
		})
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.await(func(done func(error)) {
		dir.Create("x", fs.Write, false, func(_ *fs.Ref, _ fs.Handle, err error) { done(err) })
	}); kindName(err) != "Permission" {
		t.Errorf("created for writing: %v", err)
	}
	if err := c.await(func(done func(error)) { dir.Unlink("x", false, done) }); err != nil {
		t.Error(err)
	}
	if names := listNames(t, dir); len(names) != 0 {
		t.Errorf("listed: %q", names)
	}
}

// TestPrincipal is how principals are called.
func TestPrincipal(t *testing.T) {
	for want, p := range map[string]fs.Principal{
		"admin": {Admin: true}, "vm:" + vmA: {VM: vmA}, "qmp": {Admin: true, Bridge: "qmp"}, "nobody": {},
	} {
		if p.String() != want || p.Nobody() != (want == "nobody") {
			t.Errorf("%+v: %s, %v", p, p, p.Nobody())
		}
	}
}
