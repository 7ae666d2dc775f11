package upstream_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/macro"
	"meta9/mdbridge/mdata/mdatatest"
	"meta9/mdbridge/mdata/server"
	"meta9/mdbridge/mdata/server/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const uuid = "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f"

const payload = `{"uuid":"` + uuid + `","alias":"web0","tags":{"a":"b"},"resolvers":["1.1.1.1"],
	"customer_metadata":{"color":"blue","a/b":"slash","empty":""},"internal_metadata":{"root_pw":"secret"}}`

// newTree is a tree over an empty store in memory.
func newTree(t *testing.T) *fs.Tree {
	t.Helper()
	st, err := store.Open(store.NewMemory(), store.Config{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return fs.New(st, fs.Config{Log: zerolog.Nop()})
}

// listen is a unix socket on which serve has every connection, at once.
func listen(t *testing.T, serve func(c net.Conn)) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	return path
}

// there is a service of ours with one VM, and its store.
func there(t *testing.T) (path string, cell *store.Cell, st *store.Store) {
	t.Helper()
	tree := newTree(t)
	st = tree.Store()
	r := st.Do(&store.Intent{Kind: store.CreateVM, Data: payload, Mirror: true})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	s := server.New(server.Config{Tree: tree})
	path = listen(t, func(c net.Conn) { s.Serve(c, fs.Principal{VM: uuid}, "") })
	t.Cleanup(func() { s.Drain(t.Context()) })
	return path, r.Cell, st
}

// place is a place in the tree whose steps are taken until nobody has to be asked.
type place struct {
	*fs.Ref
	view *fs.View
}

func (p place) ask(step func() error) error { return p.view.Await(new(sync.Mutex), step) }

// find is where names lead to.
func (p place) find(names ...string) (place, error) {
	var at *fs.Ref
	err := p.ask(func() (err error) {
		at, err = macro.Find(p.Ref, names)
		return err
	})
	return place{at, p.view}, err
}

// open opens the file.
func (p place) open(f fs.Flags) (opened, error) {
	var h fs.Handle
	err := p.ask(func() (err error) {
		h, err = p.Open(f)
		return err
	})
	return opened{h, p}, err
}

// opened is an open file.
type opened struct {
	fs.Handle
	at place
}

func (h opened) Read(p []byte, off uint64) (n int, err error) {
	err = h.at.ask(func() (err error) {
		n, err = h.Handle.Read(p, off)
		return err
	})
	return n, err
}

func (h opened) Stat(st *fs.Stat) error {
	return h.at.ask(func() error { return h.Handle.Stat(st) })
}

// shown is the folder that shows the service at path.
func shown(t *testing.T, path string) place {
	t.Helper()
	s := upstream.New(path)
	t.Cleanup(s.Close)
	tree := newTree(t)
	tree.GraftRoot("upstream", func(_ fs.Principal, v *fs.View) fs.Node { return s.Node(v) })
	view := tree.View(fs.Principal{Admin: true})
	t.Cleanup(view.Close)
	root, err := view.Attach("", "upstream")
	if err != nil {
		t.Fatal(err)
	}
	return place{root, view}
}

// wait does something that tells its end, and gives its error.
func wait(do func(done func(error))) error {
	ended := make(chan error, 1)
	do(func(err error) { ended <- err })
	return <-ended
}

func get(t *testing.T, root place, names ...string) string {
	t.Helper()
	var b []byte
	err := root.ask(func() (err error) {
		b, err = macro.Get(nil, root.Ref, names, 1<<20)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func list(t *testing.T, root place, names ...string) map[string]uint64 {
	t.Helper()
	lengths := map[string]uint64{}
	err := listing(root, names, func(st *fs.Stat) { lengths[st.Name] = st.Length })
	if err != nil {
		t.Error(err)
	}
	return lengths
}

func listing(root place, names []string, entry func(st *fs.Stat)) error {
	return root.ask(func() error {
		return macro.List(root.Ref, names, func(st *fs.Stat) bool {
			entry(st)
			return true
		})
	})
}

func TestShown(t *testing.T) {
	path, cell, st := there(t)
	root := shown(t, path)
	if diff := cmp.Diff(map[string]uint64{"keys": 0, "sdc": 0}, list(t, root)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]uint64{"color": 4, "a%2Fb": 5, "empty": 0, "root_pw": 6}, list(t, root, "keys")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]uint64{"uuid": 36, "alias": 4, "resolvers": 11}, list(t, root, "sdc")); diff != "" {
		t.Error(diff)
	}
	for _, tt := range []struct{ folder, name, want string }{
		{"keys", "color", "blue"},
		{"keys", "a%2Fb", "slash"},
		{"keys", "root_pw", "secret"},
		{"keys", "nope", "file does not exist"},
		{"keys", "sdc:uuid", "file does not exist"},
		{"keys", "a%2fb", "file does not exist"},
		{"sdc", "uuid", uuid},
		{"sdc", "tags.a", "b"},
		{"sdc", "tags", "file does not exist"},
		{"sdc", "nope", "file does not exist"},
	} {
		if got := get(t, root, tt.folder, tt.name); got != tt.want {
			t.Errorf("%s/%s: %q", tt.folder, tt.name, got)
		}
	}
	// It is current: what changes there is what is read here.
	r := st.Do(&store.Intent{Kind: store.Put, Cell: cell, Name: "color", Data: "green"})
	if got := get(t, root, "keys", "color"); got != "green" || r.Err != nil {
		t.Error(got, r.Err)
	}
}

func TestWholeValues(t *testing.T) {
	path, cell, _ := there(t)
	root := shown(t, path)
	put := func(value string, names ...string) error {
		return wait(func(done func(error)) { macro.Put(root.Ref, names, []byte(value), done) })
	}
	remove := func(names ...string) error {
		at, err := root.find(names...)
		if err != nil {
			return err
		}
		return wait(at.Remove)
	}
	for _, tt := range []struct {
		what string
		err  error
		want error
	}{
		{"a new one", put("\x00\xff", "keys", "new"), nil},
		{"an old one", put("red", "keys", "color"), nil},
		{"a refused one", put("x", "keys", "sdc:uuid"), errs.NotPermitted},
		{"no name", put("x", "keys", "a\nb"), errs.Invalid},
		{"a derived one", put("x", "sdc", "alias"), errs.Permission},
		{"a new derived one", put("x", "sdc", "nope"), errs.Permission},
		{"remove", remove("keys", "a%2Fb"), nil},
		{"remove what is not there", remove("keys", "nope"), errs.NotFound},
		{"remove a derived one", remove("sdc", "alias"), errs.NotPermitted},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v", tt.what, tt.err)
		}
	}
	if diff := cmp.Diff(map[string]string{"color": "red", "empty": "", "new": "\x00\xff"}, stored(cell)); diff != "" {
		t.Error(diff)
	}
}

func stored(cell *store.Cell) map[string]string {
	values := map[string]string{}
	for e := range cell.VM().Entries(0) {
		values[e.Name] = e.Value
	}
	return values
}

// absent and silent services are errs.IO with a text that names them, soon.
func TestNotThere(t *testing.T) {
	silent := listen(t, func(c net.Conn) {
		io.Copy(io.Discard, c)
		c.Close()
	})
	absent := filepath.Join(t.TempDir(), "none")
	for _, path := range []string{absent, silent} {
		root := shown(t, path)
		for range 3 {
			began := time.Now()
			_, err := root.find("keys", "color")
			if errs.KindOf(err) != errs.IO || !strings.Contains(err.Error(), path) {
				t.Error(err)
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
		}
		err := listing(root, []string{"keys"}, func(*fs.Stat) {})
		if errs.KindOf(err) != errs.IO {
			t.Error(err)
		}
		if diff := cmp.Diff(map[string]uint64{"keys": 0, "sdc": 0}, list(t, root)); diff != "" {
			t.Error(diff)
		}
	}
}

// A host of version 1 can be read only.
func TestVersion1(t *testing.T) {
	for _, h := range mdatatest.Hosts {
		if h.Put != "version 1" || h.Flood {
			continue
		}
		path := listen(t, func(c net.Conn) {
			mdatatest.Talk(c, h.New())
			c.Close()
		})
		root := shown(t, path)
		if got := get(t, root, "keys", "key"); got != h.Value {
			t.Errorf("%s: %q", h.Name, got)
		}
		err := wait(func(done func(error)) { macro.Put(root.Ref, []string{"keys", "key"}, nil, done) })
		if !errors.Is(err, errs.Unsupported) {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
}
