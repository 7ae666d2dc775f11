package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/session/wire"
)

// servers are the ways a server may speak: what it offers, and what the client
// ends up with.
var servers = map[string]string{"9P2000.e": "9P2000.e", "9P2000": "9P2000", "unknown": "9P2000", "error": "9P2000"}

func forEachServer(t *testing.T, test func(t *testing.T, f *fake)) {
	for version := range servers {
		t.Run(version, func(t *testing.T) {
			f := newFake(t)
			f.version = version
			test(t, f)
		})
	}
}

func names(list []client.Info) (out []string) {
	for _, i := range list {
		out = append(out, i.Name)
	}
	return out
}

func TestFilesByPath(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *fake) {
		c, ctx := f.dial(client.Options{}), t.Context()
		if got, want := c.Dialect(), servers[f.version]; got != want {
			t.Errorf("dialect %s, want %s", got, want)
		}
		for _, value := range []string{"first, a long one", "second", ""} {
			if err := c.WriteFile(ctx, "/keys/a", []byte(value)); err != nil {
				t.Fatal(err)
			}
			if got, err := c.ReadFile(ctx, "keys//a"); err != nil || string(got) != value {
				t.Errorf("read %q, %v; want %q", got, err, value)
			}
		}
		if err := c.Rename(ctx, "keys/a", "/keys/b"); err != nil {
			t.Error(err)
		}
		list, err := c.ReadDir(ctx, "keys")
		if diff := cmp.Diff([]string{"b"}, names(list)); diff != "" || err != nil {
			t.Errorf("listing: %v\n%s", err, diff)
		}
		info, err := c.Stat(ctx, "keys/b")
		if err != nil || info.Name != "b" || info.IsDir() || info.Mode.String() != "-rw-------" || info.Mtime.Unix() != 1780000000 || info.Muid != "root" {
			t.Errorf("stat %+v, %v", info, err)
		}
		if info, err = c.Stat(ctx, "/"); err != nil || !info.IsDir() || info.Mode.String() != "drwxr-xr-x" {
			t.Errorf("stat of the root %+v, %v", info, err)
		}
		if err := c.Remove(ctx, "keys/b"); err != nil {
			t.Error(err)
		}
		if list, err := c.ReadDir(ctx, "keys"); err != nil || len(list) != 0 {
			t.Errorf("listed %v, %v; want nothing", names(list), err)
		}
		until(t, "all fids but the root are clunked", func() (ok bool) {
			f.with(func() { ok = len(f.fids) == 1 })
			return ok
		})
	})
}

func TestErrorsByPath(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *fake) {
		c, ctx := f.dial(client.Options{}), t.Context()
		f.with(func() { f.put("keys/a", []byte("v")) })
		for _, tt := range []struct {
			name string
			err  error
			want errs.Kind
		}{
			{"read", second(c.ReadFile(ctx, "keys/none")), errs.NotFound},
			{"read a folder", second(c.ReadFile(ctx, "keys")), errs.IsDir},
			{"read an empty folder", second(c.ReadFile(ctx, "/")), errs.IsDir},
			{"list", second(c.ReadDir(ctx, "none")), errs.NotFound},
			{"list a file", second(c.ReadDir(ctx, "keys/a")), errs.NotDir},
			{"stat", second(c.Stat(ctx, "keys/none/deeper")), errs.NotFound},
			{"stat below a file", second(c.Stat(ctx, "keys/a/deeper")), errs.NotDir},
			{"remove", c.Remove(ctx, "none"), errs.NotFound},
			{"rename", c.Rename(ctx, "keys/none", "keys/other"), errs.NotFound},
			{"rename to a folder", c.Rename(ctx, "keys/a", "a"), errs.Invalid},
			{"rename the root", c.Rename(ctx, "/", "a"), errs.Invalid},
			{"a name too long", second(c.Stat(ctx, strings.Repeat("x", 1<<16))), errs.Invalid},
		} {
			var e *client.Error
			if !errors.As(tt.err, &e) || e.Kind != tt.want || !errors.Is(tt.err, tt.want) {
				t.Errorf("%s: %v, want kind %q", tt.name, tt.err, tt.want)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// A value by path is one request where the server has macros and is known to write a
// whole value by one.
func TestMacrosAreOneRequest(t *testing.T) {
	s := newRealServer(t, time.Minute)
	c, ctx := s.dial(client.Options{}), t.Context()
	s.create(c)
	before := s.server.Stats().Requests
	if err := c.WriteFile(ctx, onceKeys+"a", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ReadFile(ctx, onceKeys+"a"); err != nil || string(got) != "v" {
		t.Fatalf("read %q, %v", got, err)
	}
	if n := s.server.Stats().Requests - before; n != 2 {
		t.Errorf("%d requests", n)
	}
}

// Another server of 9P2000.e, LING's, writes by Tswrite at offset 0, and creates
// nothing: it is not asked for a whole value so.
func TestWholeValueWithoutNumbers(t *testing.T) {
	f := newFake(t)
	c, ctx := f.dial(client.Options{}), t.Context()
	for _, value := range []string{"hello world", "XY", ""} { // creates, shortens, empties
		if err := c.WriteFile(ctx, "keys/a", []byte(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := c.ReadFile(ctx, "keys/a"); err != nil || string(got) != value {
			t.Errorf("read %q, %v; want %q", got, err, value)
		}
	}
	if n := f.count("Tswrite"); n != 0 {
		t.Errorf("%d times Tswrite", n)
	}
}

// A value that looks like a folder's stat records is a value all the same.
func TestValueLikeAFolder(t *testing.T) {
	f := newFake(t)
	dir := wire.Dir{Name: "evil"}
	value := wire.AppendDir(nil, &dir, wire.E)
	f.put("keys/a", value)
	c := f.dial(client.Options{})
	if got, err := c.ReadFile(t.Context(), "keys/a"); err != nil || !bytes.Equal(got, value) {
		t.Errorf("read %q, %v", got, err)
	}
	if list, err := c.ReadDir(t.Context(), "keys/a"); !errors.Is(err, errs.NotDir) {
		t.Errorf("listed %v, %v", list, err)
	}
}

// What does not fit one message goes in several.
func TestTooBigForAMessage(t *testing.T) {
	for _, version := range []string{"9P2000.e", "9P2000"} {
		f := newFake(t)
		f.version, f.msize = version, wire.MinMsize
		value := bytes.Repeat([]byte("0123456789abcdef"), 1000)
		c, ctx := f.dial(client.Options{}), t.Context()
		for range 2 { // creates, then replaces
			if err := c.WriteFile(ctx, "keys/big", value); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := c.ReadFile(ctx, "keys/big"); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%s: read %d bytes, %v", version, len(got), err)
		}
		if n := f.count("Twrite"); n < 2*len(value)/wire.MinMsize {
			t.Errorf("%s: %d writes", version, n)
		}
		f.with(func() {
			for i := range 100 {
				f.put(fmt.Sprintf("keys/%03d", i), []byte("v"))
			}
		})
		if list, err := c.ReadDir(ctx, "keys"); err != nil || len(list) != 101 {
			t.Errorf("%s: %d entries, %v", version, len(list), err)
		}
	}
}

// A path deeper than one walk goes in several steps.
func TestDeepPath(t *testing.T) {
	f := newFake(t)
	deep := "d"
	for range 40 {
		f.put(deep, nil)
		deep += "/d"
	}
	f.put(deep, []byte("deep"))
	c := f.dial(client.Options{})
	if got, err := c.ReadFile(t.Context(), deep); err != nil || string(got) != "deep" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := c.Stat(t.Context(), deep+"/e"); !errors.Is(err, errs.NotDir) {
		t.Errorf("stat below a file: %v", err)
	}
	if _, err := c.Stat(t.Context(), strings.TrimSuffix(deep, "/d")+"/e"); !errors.Is(err, errs.NotFound) {
		t.Errorf("stat of what is not there: %v", err)
	}
	until(t, "the fids of the failed walk are clunked", func() (ok bool) {
		f.with(func() { ok = len(f.fids) == 1 })
		return ok
	})
}

func TestManyGoroutines(t *testing.T) {
	f := newFake(t)
	c, ctx := f.dial(client.Options{}), t.Context()
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			name := fmt.Sprintf("keys/%d", i)
			for range 20 {
				if err := c.WriteFile(ctx, name, []byte(name)); err != nil {
					t.Error(err)
				}
				if got, err := c.ReadFile(ctx, name); err != nil || string(got) != name {
					t.Errorf("read %q, %v", got, err)
				}
				if info, err := c.Stat(ctx, name); err != nil || "keys/"+info.Name != name {
					t.Errorf("stat %q, %v", info.Name, err)
				}
			}
		})
	}
	all.Wait()
}
