package fs_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The VMs of every world.
const (
	vmA = "11111111-1111-4111-8111-111111111111"
	vmB = "22222222-2222-4222-8222-222222222222"

	payloadA = `{"uuid":"` + vmA + `","alias":"web","state":"running","ram":512,
		"hostname":"web.example",
		"internal_metadata_namespaces":["ns"],
		"customer_metadata":{"color":"blue","motd":"hello","ns:mine":"c","old_pw":"c","a/b":"slash"},
		"internal_metadata":{"root_pw":"s3cret","ns:role":"db","secret":"x","operator-script":"#!/bin/sh"}}`
	payloadB = `{"uuid":"` + vmB + `","alias":"db/1","customer_metadata":{"color":"red"}}`
)

// wait is how long anything may take that should be at once.
const wait = 10 * time.Second

// world is a store with a tree, and the clients of a test.
type world struct {
	testing.TB
	st   *store.Store
	tree *fs.Tree
}

// newWorld makes one over an engine of its own, with VMs A and B.
func newWorld(t testing.TB, cfg store.Config) *world {
	return worldOn(t, store.NewMemory(), cfg, nil)
}

// worldOn makes one over e; prepare may add to the tree before anything runs.
func worldOn(t testing.TB, e store.Engine, cfg store.Config, prepare func(*fs.Tree)) *world {
	t.Helper()
	st, err := store.Open(e, cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, st: st, tree: fs.New(st, fs.Config{Version: "test"})}
	if prepare != nil {
		prepare(w.tree)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, p := range []string{payloadA, payloadB} {
		if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: p, By: "setup"}); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return w
}

// in is the same world, for a sub-test or a fuzz target.
func (w *world) in(t testing.TB) *world {
	sub := *w
	sub.TB = t
	return &sub
}

// cell is the VM's.
func (w *world) cell(uuid string) *store.Cell {
	w.Helper()
	c := w.st.Cell(uuid)
	if c == nil {
		w.Fatalf("no VM %s", uuid)
	}
	return c
}

// client is one View.
type client struct {
	w    *world
	view *fs.View
	root *fs.Ref
}

// attach makes a client of its own.
func (w *world) attach(p fs.Principal) *client {
	w.Helper()
	v := w.tree.View(p)
	root, err := v.Attach("", "")
	if err != nil {
		w.Fatal(err)
	}
	return &client{w: w, view: v, root: root}
}

func (w *world) admin() *client            { return w.attach(fs.Principal{Admin: true}) }
func (w *world) guest(uuid string) *client { return w.attach(fs.Principal{VM: uuid}) }

// await waits for an asynchronous call and settles the View, as a session does
// before it answers.
func (c *client) await(call func(done func(error))) error {
	c.w.Helper()
	ch := make(chan error, 2)
	call(func(err error) { ch <- err })
	return c.settle(ch)
}

func (c *client) settle(ch <-chan error) error {
	c.w.Helper()
	select {
	case err := <-ch:
		c.view.Settle()
		return err
	case <-time.After(wait):
		c.w.Fatal("done was not called")
		return nil
	}
}

// walk goes down a path.
func (c *client) walk(names ...string) *fs.Ref {
	c.w.Helper()
	r := c.root
	for _, name := range names {
		next, err := r.Walk(name)
		if err != nil {
			c.w.Fatalf("walk %q: %v", names, err)
		}
		r = next
	}
	return r
}

// open opens a file of a path.
func (c *client) open(f fs.Flags, names ...string) fs.Handle {
	c.w.Helper()
	h, err := c.walk(names...).Open(f)
	if err != nil {
		c.w.Fatalf("open %q: %v", names, err)
	}
	return h
}

// write writes and waits.
func (c *client) write(h fs.Handle, off uint64, data string) (int, error) {
	c.w.Helper()
	var n int
	err := c.await(func(done func(error)) {
		h.Write([]byte(data), off, c.root.By(), func(m int, err error) {
			n = m
			done(err)
		})
	})
	return n, err
}

// put sets a key of the VM behind everybody's back.
func (w *world) put(uuid, key, value string) {
	w.Helper()
	in := &store.Intent{Kind: store.Put, Cell: w.cell(uuid), Name: key, Data: value, By: "test"}
	if r := w.st.Do(in); r.Err != nil {
		w.Fatal(r.Err)
	}
	w.barrier()
}

// barrier returns when the observers have seen all commits so far: they run
// before the next batch.
func (w *world) barrier() {
	w.st.Do(&store.Intent{Kind: store.Remove, Cell: nil, Space: vm.NumSpaces})
}

// read reads n bytes at off.
func (c *client) read(h fs.Handle, off uint64, n int) (string, error) {
	p := make([]byte, n)
	n, err := h.Read(p, off)
	return string(p[:n]), err
}

// mustRead reads n bytes at off.
func (c *client) mustRead(h fs.Handle, off uint64, n int) string {
	c.w.Helper()
	s, err := c.read(h, off, n)
	if err != nil {
		c.w.Fatalf("read at %d: %v", off, err)
	}
	return s
}

// kindNames are the names by which tests call the errors.
var kindNames = map[errs.Kind]string{
	errs.NotFound: "NotFound", errs.Exists: "Exists", errs.Permission: "Permission",
	errs.NotPermitted: "NotPermitted", errs.NotEmpty: "NotEmpty", errs.NotDir: "NotDir", errs.IsDir: "IsDir",
	errs.NameTooLong: "NameTooLong", errs.Invalid: "Invalid", errs.TooLarge: "TooLarge",
	errs.NoSpace: "NoSpace", errs.Quota: "Quota", errs.ReadOnly: "ReadOnly",
	errs.BadUse: "BadUse", errs.Gone: "Gone", errs.Stale: "Stale", errs.IO: "IO",
	errs.CrossDevice: "CrossDevice", errs.Again: "Again", errs.AuthFailed: "AuthFailed", errs.TooBig: "TooBig",
	errs.Canceled: "Canceled",
}

func kindName(err error) string {
	if err == nil {
		return "ok"
	}
	if name := kindNames[errs.KindOf(err)]; name != "" {
		return name
	}
	return err.Error()
}
