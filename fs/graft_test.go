package fs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/macro"
)

// TestGrafts: what others add to the tree is walked, listed, read and refused like
// the tree's own.
func TestGrafts(t *testing.T) {
	content, failure, there := "one", error(nil), true
	qmp := func(v *fs.View, c *store.Cell) fs.Node {
		if !there {
			return nil
		}
		return fs.NewFolder(c.ID()+fs.SlotQMP, func() []fs.NamedNode {
			return []fs.NamedNode{
				{Name: "status", Node: fs.NewFile(fs.DerivedPath(c.ID(), "qmp", "status"), 0o444, func() ([]byte, error) {
					return []byte(content), failure
				})},
			}
		})
	}
	w := worldOn(t, store.NewMemory(), store.Config{}, func(tree *fs.Tree) {
		tree.GraftVM("qmp", qmp, true)
		tree.GraftVM("open", qmp, false)
		tree.GraftRoot("none", func(fs.Principal, *fs.View) fs.Node { return nil })
	})
	admin, guest := w.admin(), w.guest(vmA)
	defer admin.view.Close()
	defer guest.view.Close()

	var names []string
	err := macro.List(admin.root, []string{"vms", vmA, "qmp"}, func(st *fs.Stat) bool {
		names = append(names, fmt.Sprintf("%s %o %d %d", st.Name, st.Mode, st.Length, st.QID.Version))
		return true
	})
	if diff := cmp.Diff([]string{"status 444 0 0"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := guest.root.Walk("qmp"); kindName(err) != "NotFound" {
		t.Errorf("a guest in qmp/: %v", err)
	}
	if b, err := macro.Get(nil, guest.root, []string{"open", "status"}, 3); string(b) != "one" || err != nil {
		t.Errorf("get: %q, %v", b, err)
	}
	if _, err := macro.Get(nil, guest.root, []string{"open", "status"}, 2); kindName(err) != "TooBig" {
		t.Errorf("get of 2 bytes: %v", err)
	}
	if _, err := admin.root.Walk("none"); kindName(err) != "NotFound" {
		t.Errorf("walk to a graft that is not there: %v", err)
	}

	h := guest.open(fs.Read, "open", "status")
	content = "two"
	if got := guest.mustRead(h, 0, 2) + guest.mustRead(h, 2, 9); got != "one" {
		t.Errorf("as of the open: %q", got)
	}
	if got := guest.mustRead(h, 0, 9); got != "two" {
		t.Errorf("read again: %q", got)
	}
	failure = errs.New(errs.IO, "QEMU is silent")
	if _, err := guest.read(h, 0, 9); kindName(err) != "IO" {
		t.Errorf("a silent upstream: %v", err)
	}
	if _, err := guest.walk("open", "status").Open(fs.Read); kindName(err) != "IO" {
		t.Errorf("open at a silent upstream: %v", err)
	}
	failure = nil

	dir := guest.walk("open")
	for what, call := range map[string]func(func(error)){
		"ReadOnly create": func(done func(error)) {
			dir.Create("x", fs.Write, false, func(_ *fs.Ref, _ fs.Handle, err error) { done(err) })
		},
		"ReadOnly unlink":    func(done func(error)) { dir.Unlink("status", false, done) },
		"ReadOnly rename":    func(done func(error)) { dir.Rename("status", dir, "x", done) },
		"ReadOnly remove":    guest.walk("open", "status").Remove,
		"ReadOnly put":       func(done func(error)) { macro.Put(dir, []string{"x"}, nil, done) },
		"Permission put":     func(done func(error)) { macro.Put(dir, []string{"status"}, nil, done) },
		"NotFound unlink":    func(done func(error)) { dir.Unlink("x", false, done) },
		"NotPermitted chmod": func(done func(error)) { m := uint16(1); dir.SetStat(fs.Change{Mode: &m}, done) },
	} {
		if err := guest.await(call); kindName(err) != what[:len(kindName(err))] {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := guest.walk("open", "status").Open(fs.Read | fs.Write); kindName(err) != "Permission" {
		t.Errorf("open for writing: %v", err)
	}
	there = false
	if _, err := guest.root.Walk("open"); kindName(err) != "NotFound" {
		t.Errorf("walk to a graft that went: %v", err)
	}
	if got := listNames(t, guest.root); len(got) != 6 {
		t.Errorf("listed: %q", got)
	}
}

func listNames(t *testing.T, r *fs.Ref) (names []string) {
	t.Helper()
	if err := r.List(0, func(_ uint64, st *fs.Stat) bool {
		names = append(names, st.Name)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// TestVerbs that others add: they get what follows the name, may end at once or
// later, and are run one after the other.
func TestVerbs(t *testing.T) {
	calls, later, answers := make(chan string, 16), make(chan func(error), 16), make(chan string, 16)
	w := worldOn(t, store.NewMemory(), store.Config{}, func(tree *fs.Tree) {
		tree.VMVerb("now", func(c fs.Call, done func(error)) {
			calls <- "now " + c.Arg + " " + c.By.By
			done(nil)
		})
		tree.VMVerb("later", func(c fs.Call, done func(error)) {
			calls <- "later " + c.Arg + " " + c.Cell.UUID()[:2]
			later <- done
		})
	})
	c := w.admin()
	defer c.view.Close()
	other, a := c.open(fs.Write, "vms", vmB, "ctl"), c.open(fs.Write, "vms", vmA, "ctl")
	if _, err := c.write(other, 0, "now  a b \nnow\nnow c\n"); err != nil {
		t.Fatal(err)
	}
	write := func(data string) {
		a.Write([]byte(data), 0, fs.Author{By: "me"}, func(n int, err error) {
			answers <- fmt.Sprint(n, " ", kindName(err))
		})
	}
	write("later 1\nlater 2\n")
	write("later 3\nlater 4\n")
	write("la")
	if len(answers) != 0 || len(calls) != 4 {
		t.Fatalf("%d answers, %d calls", len(answers), len(calls))
	}
	for _, err := range []error{nil, nil, errors.New("no")} {
		taken(t, later)(err)
	}
	write("ter 5\n")
	taken(t, later)(nil)
	for _, want := range []string{
		"now a b admin", "now  admin", "now c admin", "later 1 11", "later 2 11", "later 3 11", "later 5 11",
	} {
		if got := taken(t, calls); got != want {
			t.Errorf("called %q, want %q", got, want)
		}
	}
	for _, want := range []string{"16 ok", "0 IO", "2 ok", "6 ok"} {
		if got := taken(t, answers); got != want {
			t.Errorf("answered %q, want %q", got, want)
		}
	}
	if len(calls)+len(answers) > 0 {
		t.Errorf("%d calls and %d answers more", len(calls), len(answers))
	}
}

// taken is what comes.
func taken[T any](t *testing.T, from <-chan T) (x T) {
	t.Helper()
	select {
	case x = <-from:
	case <-time.After(wait):
		t.Fatal("nothing comes")
	}
	return x
}

// TestCtlLineTooLong: a line that no verb can be as long as is refused and skipped
// up to its end, in whatever pieces it comes.
func TestCtlLineTooLong(t *testing.T) {
	w := newWorld(t, store.Config{Limits: vm.Limits{Value: 1 << 10, Keys: 16, Bytes: 1 << 10}})
	c := w.admin()
	defer c.view.Close()
	h := c.open(fs.Write, "vms", vmA, "ctl")
	long := strings.Repeat("x", 30<<10)
	for i, tt := range []struct{ data, want string }{
		{long, "ok"},
		{long, "ok"},
		{long, "TooLarge"},
		{"update {}", "TooLarge"},
		{"\nupdate {}", "TooLarge"}, // what follows in the same write is dropped too
		{"update {}\n", "ok"},
		{long + long + long + "\n", "TooLarge"},
		{"update {}\n", "ok"},
	} {
		if _, err := c.write(h, 0, tt.data); kindName(err) != tt.want {
			t.Errorf("write %d: %v, want %s", i, err, tt.want)
		}
	}
}
