package client_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// A server that lies gets an error, and the client stays whole.
func TestLies(t *testing.T) {
	read := func(c *client.Client, t *testing.T) error { return second(c.ReadFile(t.Context(), "keys/a")) }
	write := func(c *client.Client, t *testing.T) error { return c.WriteFile(t.Context(), "keys/a", []byte("new")) }
	list := func(c *client.Client, t *testing.T) error { return second(c.ReadDir(t.Context(), "keys")) }
	for _, tt := range []struct {
		name    string
		version string
		twist   func(r *wire.Msg)
		op      func(c *client.Client, t *testing.T) error
		want    errs.Kind
	}{
		{"more data than was asked for", "9P2000", func(r *wire.Msg) {
			if r.Type == wire.Rread {
				r.Data = make([]byte, wire.MinMsize-12)
			}
		}, read, errs.Protocol},
		{"less written than was sent", "9P2000.e", func(r *wire.Msg) { r.Count = 0 }, write, errs.IO},
		{"more written than was sent", "9P2000", func(r *wire.Msg) { r.Count++ }, write, errs.IO},
		{"more qids than names", "9P2000", func(r *wire.Msg) {
			if r.Type == wire.Rwalk {
				r.QIDs = append(r.QIDs, p9.QID{}, p9.QID{Type: p9.TypeDir})
			}
		}, list, errs.Protocol},
		{"a listing that is none", "9P2000.e", func(r *wire.Msg) {
			if r.Type == wire.Rsread {
				r.Data = []byte("nonsense")
			}
		}, list, errs.Protocol},
		{"a name that leads elsewhere", "9P2000.e", lists("../../etc/passwd"), list, errs.Protocol},
		{"the folder above", "9P2000", lists(".."), list, errs.Protocol},
		{"no name", "9P2000.e", lists(""), list, errs.Protocol},
	} {
		f := newFake(t)
		f.put("keys/a", []byte("value"))
		f.version, f.msize = tt.version, wire.MinMsize
		c := f.dial(client.Options{})
		f.with(func() { f.twist = tt.twist })
		if err := tt.op(c, t); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		f.with(func() { f.twist = nil })
		if got, err := c.ReadFile(t.Context(), "keys/a"); err != nil {
			t.Errorf("%s: afterwards %q, %v", tt.name, got, err)
		}
	}
}

// lists makes a listing one of a file of that name.
func lists(name string) func(r *wire.Msg) {
	return func(r *wire.Msg) {
		if (r.Type == wire.Rsread || r.Type == wire.Rread) && len(r.Data) > 0 {
			r.Data = wire.AppendDir(nil, &wire.Dir{Name: name}, wire.Plain)
		}
	}
}

// A server that cannot be understood is not connected to.
func TestBadGreetings(t *testing.T) {
	for name, twist := range map[string]func(r *wire.Msg){
		"a small msize":    func(r *wire.Msg) { r.Msize = 1024 },
		"a large msize":    func(r *wire.Msg) { r.Msize = wire.MaxMsize + 1 },
		"another dialect":  func(r *wire.Msg) { r.Version = "9P2000.L" },
		"no dialect":       func(r *wire.Msg) { r.Version = "unknown" },
		"a reply to none":  func(r *wire.Msg) { r.Tag ^= 1 },
		"another reply":    func(r *wire.Msg) { r.Type = wire.Rversion; r.Version = "x" },
		"only errors":      func(r *wire.Msg) { *r = wire.Msg{Type: wire.Rerror, Tag: r.Tag, Ename: "no"} },
		"a refused attach": func(r *wire.Msg) { r.Type += b2t(r.Type == wire.Rattach) * 2 },
	} {
		f := newFake(t)
		f.twist = twist
		c, err := client.Dial(t.Context(), "fake", client.Options{Dial: f.Dial})
		if err == nil {
			c.Close()
			t.Errorf("%s: connected", name)
		}
	}
}

func b2t(b bool) wire.Type {
	if b {
		return 1
	}
	return 0
}

// tryLies has several goroutines do all that a Client can, with a server that lies: nothing
// panics, everything ends, and once the server tells the truth it is understood.
func tryLies(t *testing.T, lies []byte) {
	s := redialtest.NewLiar(wire.EN, lies)
	c, err := client.Dial(t.Context(), "liar", client.Options{Dial: s.Dial, Patience: time.Minute, Msize: 8192})
	if err != nil {
		return
	}
	truth := time.AfterFunc(10*time.Minute, s.Repent)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			exercise(ctx, c)
			if err := context.Cause(ctx); err != nil {
				t.Errorf("an operation did not end by itself: %v", err)
			}
		})
	}
	all.Wait()
	truth.Stop()
	s.Repent()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) { // a refusal of before is told until the next try
		if _, err = c.Stat(t.Context(), "keys/a"); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Errorf("the truth is not understood: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	s.Repent()
}

// exercise does one of everything, of which nothing needs to succeed. What may take long
// is given up soon.
func exercise(ctx context.Context, c *client.Client) {
	c.ReadFile(ctx, "keys/a")
	c.ReadDir(ctx, "keys")
	c.WriteFile(ctx, "keys/a", []byte("v"))
	c.WriteFile(ctx, "keys/long", make([]byte, 20_000))
	c.Rename(ctx, "keys/a", "keys/b")
	c.Remove(ctx, "keys/b")
	file, err := c.OpenFile(ctx, "keys/a", os.O_RDWR|os.O_TRUNC)
	if err != nil {
		return
	}
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	file.ReadAt(soon, make([]byte, 10), 0)
	file.WriteAt(soon, make([]byte, 10_000), 0)
	file.ReadAt(ctx, make([]byte, 10), 0)
	file.Close()
}

// TestLiar: random lies.
func TestLiar(t *testing.T) { redialtest.RandomLies(t, tryLies) }

// FuzzLiar: any lies.
func FuzzLiar(f *testing.F) { redialtest.FuzzLies(f, tryLies) }
