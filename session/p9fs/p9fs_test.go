package p9fs_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/session/p9fs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const uuid = "550e8400-e29b-41d4-a716-446655440000"

// world is a store with one VM.
type world struct {
	*testing.T
	tree *fs.Tree
}

func newWorld(t *testing.T) *world {
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t, fs.New(st, fs.Config{})}
	payload := `{"uuid": "` + uuid + `", "customer_metadata": {"a": "one", "b": "two"}, "internal_metadata": {"root_pw": "x", "hidden": "y"}}`
	if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: payload}); r.Err != nil {
		t.Fatal(r.Err)
	}
	return w
}

// attach is the root as p9's Client has it, over p9's Server.
func (w *world) attach(who fs.Principal) p9.File {
	w.Helper()
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = p9.NewServer(p9fs.New(w.tree, who)).Handle(far, far)
	}()
	c, err := p9.NewClient(near)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { near.Close(); far.Close(); <-served })
	root, err := c.Attach("/")
	if err != nil {
		w.Fatal(err)
	}
	return root
}

func (w *world) walk(from p9.File, names ...string) p9.File {
	w.Helper()
	_, f, err := from.Walk(names)
	if err != nil {
		w.Fatalf("%q: %v", names, err)
	}
	return f
}

func (w *world) open(from p9.File, flags p9.OpenFlags, names ...string) p9.File {
	w.Helper()
	f := w.walk(from, names...)
	if _, _, err := f.Open(flags); err != nil {
		w.Fatalf("%q: %v", names, err)
	}
	return f
}

func (w *world) value(from p9.File, names ...string) string {
	w.Helper()
	f := w.open(from, p9.ReadOnly, names...)
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		w.Fatalf("%q: %v", names, err)
	}
	return string(b)
}

func (w *world) list(from p9.File, names ...string) (list []string) {
	w.Helper()
	f := w.open(from, p9.ReadOnly, names...)
	defer f.Close()
	for after := uint64(0); ; {
		entries, err := f.Readdir(after, 8192)
		if err != nil && err != io.EOF {
			w.Fatal(err)
		}
		if len(entries) == 0 {
			return list
		}
		for _, e := range entries {
			list, after = append(list, e.Name), e.Offset
		}
	}
}

// TestReaddirIsOfOneMoment: what comes after the first Readdir is as it was then.
func TestReaddirIsOfOneMoment(t *testing.T) {
	w := newWorld(t)
	root, err := p9fs.New(w.tree, fs.Principal{VM: uuid}).Attach() // p9's Client counts bytes, and a File entries
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	before := w.list(root, "keys")
	f := w.open(root, p9.ReadOnly, "keys")
	defer f.Close()
	first, err := f.Readdir(0, 1)
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	keys := w.walk(root, "keys")
	defer keys.Close()
	made, _, _, err := keys.Create("later", p9.ReadWrite, 0o600, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	rest, err := f.Readdir(first[0].Offset, 100)
	if err != nil || len(rest)+1 != len(before) {
		t.Errorf("%v after %v, want what was there: %q (%v)", rest, first, before, err)
	}
	if again, err := f.Readdir(0, 100); err != nil || len(again) != len(before)+1 {
		t.Errorf("from the start: %v (%v)", again, err)
	}
}

func (w *world) want(what string, err error, errno linux.Errno) {
	w.Helper()
	if !errors.Is(err, errno) {
		w.Errorf("%s: %v, want %v", what, err, errno)
	}
}

func TestFiles(t *testing.T) {
	w := newWorld(t)
	root := w.attach(fs.Principal{VM: uuid})
	if got := w.value(root, "keys", "a"); got != "one" {
		t.Errorf("keys/a is %q", got)
	}
	if got := w.list(root, "keys"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("keys has %q", got)
	}
	keys := w.walk(root, "keys")

	a := w.open(root, p9.ReadWrite, "keys", "a")
	if n, err := a.WriteAt([]byte("X"), 1); n != 1 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if got := w.value(root, "keys", "a"); got != "oXe" {
		t.Errorf("after a write: %q", got)
	}
	if err := keys.RenameAt("a", keys, "b"); err != nil {
		t.Error(err)
	}
	if got := w.list(root, "keys"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("after a rename: %q", got)
	}
	if _, err := a.WriteAt([]byte("Y"), 2); err != nil { // the object, under its new name
		t.Error(err)
	}
	if got := w.value(root, "keys", "b"); got != "oXY" {
		t.Errorf("after a write to the renamed file: %q", got)
	}
	_, made, _, err := w.walk(root, "keys").Create("c", p9.WriteOnly, 0o600, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if made.Path == 0 {
		t.Error("the new file has no qid")
	}
	if err := keys.UnlinkAt("c", 0); err != nil {
		t.Error(err)
	}
	_, _, err = keys.Walk([]string{"c"})
	w.want("a removed file", err, linux.ENOENT)
	st, err := keys.StatFS()
	if err != nil || st.NameLength != 255 {
		t.Errorf("statfs: %+v, %v", st, err)
	}
}

// TestHeldTruncation: nobody sees the empty value between a truncation and its write.
func TestHeldTruncation(t *testing.T) {
	w := newWorld(t)
	root, other := w.attach(fs.Principal{VM: uuid}), w.attach(fs.Principal{Admin: true})
	a := w.open(root, p9.WriteOnly|p9.OpenFlags(0o1000), "keys", "a")
	if got := w.value(other, "vms", uuid, "keys", "a"); got != "one" {
		t.Errorf("others see %q before the write", got)
	}
	if got := w.value(root, "keys", "a"); got != "" {
		t.Errorf("who truncated sees %q", got)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := w.value(other, "vms", uuid, "keys", "a"); got != "" {
		t.Errorf("others see %q after the clunk", got)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	root := w.attach(fs.Principal{VM: uuid})
	keys := w.walk(root, "keys")
	_, _, err := root.Walk([]string{"vms"})
	w.want("the admin's folder", err, linux.ENOENT)
	_, _, err = root.Walk([]string{"internal", "hidden"})
	w.want("a hidden key", err, linux.ENOENT)
	_, err = keys.Mkdir("d", 0o755, 0, 0)
	w.want("mkdir", err, linux.EPERM)
	_, err = keys.Mkdir("a", 0o755, 0, 0)
	w.want("mkdir over a file", err, linux.EEXIST)
	_, err = keys.Symlink("a", "l", 0, 0)
	w.want("symlink", err, linux.EPERM)
	w.want("chown", w.walk(root, "keys", "a").SetAttr(p9.SetAttrMask{UID: true}, p9.SetAttr{UID: 7}), linux.EPERM)
	w.want("a rename to another folder", keys.RenameAt("a", w.walk(root, "internal"), "a"), linux.EXDEV)
	events := w.open(root, p9.ReadOnly, "events")
	_, err = events.ReadAt(make([]byte, 512), 0)
	w.want("events, when there are none", err, linux.EAGAIN)
	_, err = w.open(root, p9.WriteOnly, "keys", "a").WriteAt([]byte(strings.Repeat("x", 10)), 1<<20)
	w.want("a value over its limit", err, linux.EFBIG)
	_, err = p9fs.New(w.tree, fs.Principal{}).Attach()
	w.want("nobody", err, linux.ECONNREFUSED)
	_, err = p9fs.New(w.tree, fs.Principal{VM: "550e8400-e29b-41d4-a716-446655440001"}).Attach()
	w.want("a VM that is not there", err, linux.ENOENT)
}

// TestReplaced: a File that was walked to does not fail because its key is replaced.
func TestReplaced(t *testing.T) {
	w := newWorld(t)
	root := w.attach(fs.Principal{VM: uuid})
	a := w.walk(root, "keys", "a")
	keys := w.walk(root, "keys")
	if err := keys.RenameAt("b", keys, "a"); err != nil {
		t.Fatal(err)
	}
	if _, _, attr, err := a.GetAttr(p9.AttrMaskAll); err != nil || attr.Size != 3 {
		t.Errorf("stat of a replaced file: %+v, %v", attr, err)
	}
}

// TestTogether has many clients of one tree at it at once.
func TestTogether(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	for i := range 4 {
		root := w.attach(fs.Principal{VM: uuid})
		name := fmt.Sprint("k", i)
		all.Go(func() {
			f, _, _, err := w.walk(root, "keys").Create(name, p9.WriteOnly, 0o600, 0, 0)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range 50 {
				if _, err := f.WriteAt([]byte{'x'}, int64(n)); err != nil {
					t.Error(err)
				}
			}
			if got := w.value(root, "keys", name); len(got) != 50 {
				t.Errorf("%s has %d bytes", name, len(got))
			}
		})
	}
	all.Wait()
}
