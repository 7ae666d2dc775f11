package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

const (
	uuidA = "00000000-0000-4000-8000-00000000000a"
	uuidB = "00000000-0000-4000-8000-00000000000b"
	uuidC = "00000000-0000-4000-8000-00000000000c"
)

// soon bounds what a test waits for something that must happen.
const soon = 20 * time.Second

// open opens a store that is closed with the test.
func open(t testing.TB, e store.Engine, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(e, cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// withVM opens a store in memory that has one VM.
func withVM(t testing.TB, cfg store.Config) (*store.Store, *store.Cell) {
	t.Helper()
	s := open(t, store.NewMemory(), cfg)
	return s, create(t, s, `{"uuid":"`+uuidA+`"}`)
}

func create(t testing.TB, s *store.Store, payload string) *store.Cell {
	t.Helper()
	r := do(t, s, store.Intent{Kind: store.CreateVM, Data: payload})
	return r.Cell
}

// do is Do of an intent that must not be refused.
func do(t testing.TB, s *store.Store, in store.Intent) store.Result {
	t.Helper()
	r := s.Do(&in)
	if r.Err != nil {
		t.Fatalf("kind %d, name %q: %v", in.Kind, in.Name, r.Err)
	}
	return r
}

func put(t testing.TB, s *store.Store, c *store.Cell, name, value string) *vm.Entry {
	t.Helper()
	return do(t, s, store.Intent{Kind: store.Put, Cell: c, Name: name, Data: value}).Entry
}

// refused is Do of an intent that must be refused so, and leave no trace.
func refused(t testing.TB, s *store.Store, in store.Intent, kind errs.Kind) error {
	t.Helper()
	before, rev := storetest.Rows(s), s.Rev()
	err := s.Do(&in).Err
	if !errors.Is(err, kind) {
		t.Errorf("kind %d, name %q: %v; want %v", in.Kind, in.Name, err, kind)
	}
	if d := cmp.Diff(before, storetest.Rows(s)); d != "" || s.Rev() != rev {
		t.Errorf("kind %d, name %q: refused with a trace (rev %d, was %d):\n%s", in.Kind, in.Name, s.Rev(), rev, d)
	}
	return err
}

// value is what the VM's key holds; it must be there.
func value(t testing.TB, c *store.Cell, name string) string {
	t.Helper()
	e := c.VM().Get(vm.Keys, name)
	if e == nil {
		t.Fatalf("no key %q", name)
	}
	return e.Value
}

func wantValue(t testing.TB, c *store.Cell, name, want string) {
	t.Helper()
	if got := value(t, c, name); got != want {
		t.Errorf("%s is %q, want %q", name, got, want)
	}
}

// submit is Submit; the result comes through the channel.
func submit(s *store.Store, in store.Intent) <-chan store.Result {
	done := make(chan store.Result, 1)
	in.Done = func(r store.Result) { done <- r }
	s.Submit(&in)
	return done
}

// wait is what comes through the channel, soon.
func wait[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(soon):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

func ptr[T any](v T) *T { return &v }
