package fs_test

import (
	"testing"

	"meta9/fs"
	"meta9/fs/store"
)

// listed tells whether the last name of a path is in its folder's listing.
func listed(c *client, names []string) bool {
	found := false
	dir := c.walk(names[:len(names)-1]...)
	err := dir.List(0, func(_ uint64, st *fs.Stat) bool {
		found = st.Name == names[len(names)-1]
		return !found
	})
	if err != nil {
		c.w.Fatal(err)
	}
	return found
}

// access says what a client may do with a path: l listed, r read, w write; or "-"
// where there is nothing; with the error of a refused write.
func access(c *client, names []string) string {
	r := c.root
	for _, name := range names {
		next, err := r.Walk(name)
		if err != nil {
			if kindName(err) != "NotFound" {
				return kindName(err)
			}
			return "-"
		}
		r = next
	}
	s := ""
	if listed(c, names) {
		s = "l"
	}
	if h, err := r.Open(fs.Read); err == nil {
		s += "r"
		h.Drop()
	}
	h, err := r.Open(fs.Write)
	if err != nil {
		return s + " " + kindName(err)
	}
	h.Drop()
	return s + "w"
}

// TestAccess is the table of who may do what, over every kind of path.
func TestAccess(t *testing.T) {
	w := worldOn(t, store.NewMemory(), store.Config{}, func(tree *fs.Tree) {
		tree.GraftVM("qmp", func(*fs.View, *store.Cell) fs.Node {
			return fs.NewFolder(fs.DerivedPath(1, "", "qmp"), func() []fs.NamedNode { return nil })
		}, true)
		tree.GraftRoot("sessions", func(fs.Principal, *fs.View) fs.Node {
			return fs.NewFolder(fs.DerivedPath(0, "", "sessions"), func() []fs.NamedNode { return nil })
		})
	})
	admin, guest := w.admin(), w.guest(vmA)
	for _, tt := range []struct {
		path         string
		admin, guest string
	}{
		{"keys", "lr IsDir", "lr IsDir"},
		{"keys/color", "lrw", "lrw"},
		{"keys/a%2Fb", "lrw", "lrw"},
		{"keys/a%2fb", "-", "-"},
		{"keys/old_pw", "lrw", "-"},
		{"keys/ns:mine", "lrw", "-"},
		{"keys/none", "-", "-"},
		{"internal", "lr IsDir", "lr IsDir"},
		{"internal/root_pw", "lrw", "lrw"},
		{"internal/ns:role", "lrw", "lr Permission"},
		{"internal/secret", "lrw", "-"},
		{"internal/operator-script", "lrw", "-"},
		{"sdc", "lr IsDir", "lr IsDir"},
		{"sdc/uuid", "lr Permission", "lr Permission"},
		{"sdc/operator-script", "lr Permission", "lr Permission"},
		{"sdc/customer_metadata.color", "-", "-"},
		{"sdc/internal_metadata.root_pw", "-", "-"},
		{"nocloud", "lr IsDir", "lr IsDir"},
		{"nocloud/meta-data", "lr Permission", "lr Permission"},
		{"nocloud/none", "-", "-"},
		{"vm.json", "lr Permission", "lr Permission"},
		{"events", "lr Permission", "r Permission"},
		{"ctl", "lrw", "-"},
		{"qmp", "lr IsDir", "-"},
		{"vms", "-", "-"},
		{"names", "-", "-"},
		{"sessions", "-", "-"},
		{vmA, "-", "-"},
		{vmB, "-", "-"},
	} {
		if got := access(admin, append([]string{"vms", vmA}, path(tt.path)...)); got != tt.admin {
			t.Errorf("admin: %s: %q, want %q", tt.path, got, tt.admin)
		}
		if got := access(admin, append([]string{"names", "web"}, path(tt.path)...)); got != tt.admin {
			t.Errorf("admin by alias: %s: %q, want %q", tt.path, got, tt.admin)
		}
		if got := access(guest, path(tt.path)); got != tt.guest {
			t.Errorf("guest: %s: %q, want %q", tt.path, got, tt.guest)
		}
	}
	for path, want := range map[string]string{
		"ctl": "lrw", "events": "lr Permission", "vms": "lr IsDir", "names": "lr IsDir",
		"sessions": "lr IsDir", "keys": "-", "vm.json": "-",
	} {
		if got := access(admin, []string{path}); got != want {
			t.Errorf("admin: /%s: %q, want %q", path, got, want)
		}
	}
}

// TestCreateAccess is who may create what: by create, put, and as the target of a
// rename.
func TestCreateAccess(t *testing.T) {
	for _, tt := range []struct {
		dir, name    string
		admin, guest string
	}{
		{"keys", "plain", "ok", "ok"},
		{"keys", "other:plain", "ok", "ok"},
		{"keys", "new_pw", "ok", "NotPermitted"},
		{"keys", "ns:new", "ok", "NotPermitted"},
		{"keys", "operator-script", "ok", "NotPermitted"},
		{"keys", "sdc:new", "ok", "NotPermitted"},
		{"keys", "bad ", "Invalid", "Invalid"},
		{"internal", "new_pw", "ok", "ok"},
		{"internal", "plain", "ok", "NotPermitted"},
		{"internal", "ns:new", "ok", "Permission"},
		{"internal", "operator-script", "ok", "NotPermitted"},
		{"sdc", "new", "ReadOnly", "ReadOnly"},
		{"nocloud", "new", "ReadOnly", "ReadOnly"},
		{".", "new", "NotPermitted", "NotPermitted"},
	} {
		w := newWorld(t, store.Config{})
		for _, who := range []struct {
			c    *client
			at   []string
			want string
		}{
			{w.guest(vmA), nil, tt.guest},
			{w.admin(), []string{"vms", vmA}, tt.admin},
		} {
			at := who.at
			if tt.dir != "." {
				at = append(at, tt.dir)
			}
			dir := who.c.walk(at...)
			for how, call := range map[string]func(done func(error)){
				"create": func(done func(error)) {
					dir.Create(tt.name, fs.Write, false, func(_ *fs.Ref, h fs.Handle, err error) { done(err) })
				},
				"put": func(done func(error)) {
					p, ok := dir.Node().(fs.Putter)
					if !ok {
						done(fs.Missing(dir.Node(), fs.OpCreate))
						return
					}
					p.Put(tt.name, []byte("x"), fs.Author{By: "me"}, done)
				},
			} {
				err := who.c.await(call)
				if got := kindName(err); got != who.want {
					t.Errorf("%q: %s %s/%q: %v, want %s", who.at, how, tt.dir, tt.name, err, who.want)
				}
				if who.want != "ok" && tt.dir != "." && w.cell(vmA).VM().Get(0, tt.name) != nil {
					t.Errorf("%s was stored", tt.name)
				}
			}
			who.c.view.Close()
		}
	}
}

// TestGuestCannotRenameIntoHiding: a guest's key stays a guest's key.
func TestGuestCannotRenameIntoHiding(t *testing.T) {
	w := newWorld(t, store.Config{})
	c := w.guest(vmA)
	defer c.view.Close()
	keys := c.walk("keys")
	for _, name := range []string{"x_pw", "ns:x", "operator-script", "sdc:x", "bad\n"} {
		err := c.await(func(done func(error)) { keys.Rename("color", keys, name, done) })
		if got := kindName(err); got != "NotPermitted" && got != "Invalid" {
			t.Errorf("renamed to %q: %v", name, err)
		}
	}
	if err := c.await(func(done func(error)) { keys.Rename("old_pw", keys, "mine", done) }); kindName(err) != "NotFound" {
		t.Errorf("a hidden key was renamed: %v", err)
	}
}

// TestHiddenWhileOpen: a key that an admin renames away from its guest is read by
// the guest as it was, and not written.
func TestHiddenWhileOpen(t *testing.T) {
	w := newWorld(t, store.Config{})
	guest, admin := w.guest(vmA), w.admin()
	defer guest.view.Close()
	defer admin.view.Close()
	h := guest.open(fs.Read|fs.Write, "keys", "color")
	ref := guest.walk("keys", "color")
	if got := guest.mustRead(h, 0, 9); got != "blue" {
		t.Fatal(got)
	}
	keys := admin.walk("vms", vmA, "keys")
	if err := admin.await(func(done func(error)) { keys.Rename("color", keys, "color_pw", done) }); err != nil {
		t.Fatal(err)
	}
	ah := admin.open(fs.Write, "vms", vmA, "keys", "color_pw")
	if _, err := admin.write(ah, 0, "SECRET"); err != nil {
		t.Fatal(err)
	}
	w.barrier()
	if got := guest.mustRead(h, 0, 9); got != "blue" {
		t.Errorf("the guest reads %q of a key that is hidden", got)
	}
	if got := guest.mustRead(h, 4, 9); got != "" {
		t.Errorf("the guest reads %q of a key that is hidden", got)
	}
	if _, err := guest.write(h, 0, "x"); err == nil {
		t.Error("the guest wrote to a key that is hidden")
	}
	var st fs.Stat
	if err := ref.Stat(&st); kindName(err) != "NotFound" {
		t.Errorf("stat: %v", err)
	}
	if _, err := ref.Open(fs.Read); kindName(err) != "NotFound" {
		t.Errorf("open: %v", err)
	}
}

// TestNobody may attach nothing.
func TestNobody(t *testing.T) {
	w := newWorld(t, store.Config{})
	v := w.tree.View(fs.Principal{})
	defer v.Close()
	if _, err := v.Attach("root", "/"); kindName(err) != "AuthFailed" {
		t.Errorf("attach: %v", err)
	}
	if _, err := v.Restore(fs.NodeState{ID: 1}); kindName(err) != "AuthFailed" {
		t.Errorf("restore: %v", err)
	}
}
