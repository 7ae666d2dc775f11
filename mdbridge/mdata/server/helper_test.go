package server_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/mdbridge/mdata/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const uuid = "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f"

// world is a tree over a store in memory, and a server of it.
type world struct {
	t    *testing.T
	st   *store.Store
	tree *fs.Tree
	*server.Server
	path string // of a unix socket on which every connection is the VM's
}

func newWorld(t *testing.T, cfg store.Config, limits server.Limits) *world {
	t.Helper()
	cfg.Log = zerolog.Nop()
	st, err := store.Open(store.NewMemory(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, st: st, tree: fs.New(st, fs.Config{Log: zerolog.Nop()})}
	w.Server = server.New(server.Config{Tree: w.tree, Limits: limits})
	t.Cleanup(func() {
		if err := w.Drain(t.Context()); err != nil {
			t.Log("drain:", err) // the test's own connections are still open
		}
		st.Close()
	})
	w.listen()
	return w
}

func (w *world) listen() {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.path = filepath.Join(dir, "mdata.sock")
	l, err := net.Listen("unix", w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.Serve(c, fs.Principal{VM: uuid})
		}
	}()
}

// do does one intent that must succeed.
func (w *world) do(in store.Intent) {
	w.t.Helper()
	if in.Kind != store.CreateVM {
		in.Cell = w.st.Cell(uuid)
	}
	if r := w.st.Do(&in); r.Err != nil {
		w.t.Fatal(r.Err)
	}
}

func (w *world) create(payload string) {
	w.t.Helper()
	w.do(store.Intent{Kind: store.CreateVM, Data: payload})
}

func (w *world) dial() *net.UnixConn {
	w.t.Helper()
	c, err := net.Dial("unix", w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}
