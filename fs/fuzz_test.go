package fs_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/macro"
)

// checkRef checks what must hold for any place that a walk has led to.
func checkRef(t *testing.T, c *client, r *fs.Ref) {
	t.Helper()
	var st fs.Stat
	if err := r.Stat(&st); err != nil {
		t.Fatalf("stat of what was walked to: %v", err)
	}
	if st.QID != r.QID() || st.Name == "" || len(st.Name) > vm.MaxName {
		t.Fatalf("stat %+v of %v", st, r.QID())
	}
	again, err := c.view.Restore(r.State())
	if err != nil || again.QID() != r.QID() {
		t.Fatalf("restored %+v: %v", r.State(), err)
	}
	if st.IsDir() {
		return
	}
	up, err := macro.Find(c.root, r.State().Path)
	if err != nil || up.QID() != r.QID() {
		t.Fatalf("the path %q leads elsewhere: %v", r.State().Path, err)
	}
}

// FuzzAttach: any aname leads to a folder below the principal's root, or to a
// clear error.
func FuzzAttach(f *testing.F) {
	w := newWorld(f, store.Config{})
	for _, aname := range []string{
		"", "/", "keys", "/keys/", "keys/color", "..", "../..", "vms/" + vmA + "/keys", "names/db%2F1",
		"//keys//", ".", "a/../b", strings.Repeat("x", 300), strings.Repeat("a/", 40), "%2E", "\x00", "\xff",
		"uid=1/gid=2/mode=0640/keys", "/mode=000/vms/" + vmA, "uid=-1", "gid=4294967295", "mode=07777", "uid=", "keys/uid=1",
	} {
		f.Add("anna", aname, true)
		f.Add("", aname, false)
	}
	f.Fuzz(func(t *testing.T, uname, aname string, admin bool) {
		p := fs.Principal{Admin: true}
		if !admin {
			p = fs.Principal{VM: vmA}
		}
		v := w.tree.View(p)
		defer v.Close()
		r, err := v.Attach(uname, aname)
		if err != nil {
			checkKind(t, err)
			return
		}
		if !r.IsDir() {
			t.Fatalf("%q is no folder", aname)
		}
		root, err := v.Attach("", "")
		if err != nil {
			t.Fatal(err)
		}
		checkRef(t, &client{view: v, root: root}, r)
		if up, err := r.Walk(".."); err != nil || up != r {
			t.Fatalf("above the attach's own place: %v", err)
		}
	})
}

// checkKind checks that an error is of the closed list.
func checkKind(t *testing.T, err error) {
	t.Helper()
	var k errs.Kind
	if !errors.As(err, &k) {
		t.Fatalf("an error of no kind: %v", err)
	}
}

// FuzzWalk: any names lead to what can be read, or to a clear error; a guest never
// leaves its VM.
func FuzzWalk(f *testing.F) {
	w := newWorld(f, store.Config{})
	for _, names := range []string{
		"keys/color", "keys/a%2Fb", "keys/a%2fb", "../../vms/" + vmB, "keys/../internal/root_pw", "internal/secret",
		"sdc/uuid", "sdc/../nocloud/meta-data", "vm.json", "events", "ctl", "keys/.", "keys/%2E%2E", "vm.json/..",
		"vms/" + vmB + "/keys/color/..", "names/web/../db%2F1/ctl", "", "/", "keys/" + strings.Repeat("%25", 100),
	} {
		f.Add(names, true)
		f.Add(names, false)
	}
	f.Fuzz(func(t *testing.T, names string, admin bool) {
		w := w.in(t)
		c := w.guest(vmA)
		if admin {
			c = w.admin()
		}
		defer c.view.Close()
		path := strings.Split(names, "/")
		b, getErr := macro.Get(nil, c.root, path, 1<<20)
		if strings.Contains(string(b), vmB) && !admin {
			t.Fatalf("a guest reads another VM's %q", names)
		}
		r, err := macro.Find(c.root, path)
		if err != nil {
			checkKind(t, err)
			if kindName(err) != kindName(getErr) {
				t.Fatalf("walk: %v, get: %v", err, getErr)
			}
			return
		}
		checkRef(t, c, r)
		h, err := r.Open(fs.Read | fs.NonBlock)
		if err != nil {
			checkKind(t, err)
			return
		}
		defer h.Drop()
		if s, err := readAll(c, h); err == nil && getErr == nil && r.QID().Version != 0 && s != strconv.Quote(string(b)) {
			t.Fatalf("read %s, got %q", s, b)
		}
	})
}

// FuzzCtl: any bytes in any pieces get one answer each, and nothing stays behind
// in the way of the next line.
func FuzzCtl(f *testing.F) {
	w := newWorld(f, store.Config{Limits: vm.Limits{Value: 1 << 10, Keys: 16, Bytes: 4 << 10}})
	for _, s := range []string{
		"", "\n", "\n\n", "update {}\n", "update {\"ram\":1}\nno\n", "delete x\n", "create\n", "create {}\n",
		"update " + vmB + " {\"ram\":2}\n", "upd", strings.Repeat("x\n", 40),
		"\x00\n", "update " + vmB + " {\"customer_metadata\":{\"k\":\"v\"}}\n",
	} {
		f.Add(s, uint8(0), true)
		f.Add(s, uint8(3), false)
	}
	f.Fuzz(func(t *testing.T, text string, cut uint8, root bool) {
		if strings.Contains(text, "delete") {
			return // the VMs are needed for the next input
		}
		c := w.in(t).admin()
		defer c.view.Close()
		path := []string{"ctl"}
		if !root {
			path = []string{"vms", vmB, "ctl"}
		}
		h := c.open(fs.Write, path...)
		for piece := range pieces(text, int(cut)) {
			if n, err := c.write(h, 0, piece); err != nil {
				checkKind(t, err)
			} else if n != len(piece) {
				t.Fatalf("%d of %d bytes", n, len(piece))
			}
		}
		_, _ = c.write(h, 0, "\n")
		if _, err := c.write(h, 0, "\n"); err != nil {
			t.Fatalf("an empty line: %v", err)
		}
		if _, err := c.write(h, 0, "nonsense\n"); kindName(err) != "Invalid" {
			t.Fatalf("the next line: %v", err)
		}
	})
}

// pieces cuts text; n 0 is one piece.
func pieces(text string, n int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for len(text) > n && n > 0 {
			if !yield(text[:n]) {
				return
			}
			text = text[n:]
		}
		yield(text)
	}
}
