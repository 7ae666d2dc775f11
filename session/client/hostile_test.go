package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/client"
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

// FuzzReplies: whatever a server sends after a good greeting, nothing panics and
// every operation ends.
func FuzzReplies(f *testing.F) {
	for _, m := range []wire.Msg{
		{Type: wire.Rsread, Tag: 0, Data: []byte("value")},
		{Type: wire.Rerror, Tag: 0, Ename: errs.TooBig.Text()},
		{Type: wire.Rwalk, Tag: 0, QIDs: []p9.QID{{Type: p9.TypeDir}, {}}},
		{Type: wire.Rflush, Tag: 0x8000},
		{Type: wire.Rversion, Tag: wire.NoTag, Msize: 8192, Version: "9P2000.e"},
	} {
		frame, err := wire.Append(nil, &m, wire.E)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
		f.Add(append(frame, frame...))
		f.Add(frame[:len(frame)-1])
	}
	f.Fuzz(func(t *testing.T, replies []byte) {
		dialled := false
		dial := func(context.Context) (net.Conn, error) {
			if dialled {
				return nil, io.ErrClosedPipe
			}
			dialled = true
			ours, theirs := net.Pipe()
			go babble(ours, replies)
			return theirs, nil
		}
		c, err := client.Dial(t.Context(), "fuzz", client.Options{Dial: dial, Patience: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.ReadFile(ctx, "keys/a")
		c.ReadDir(ctx, "keys")
		c.WriteFile(ctx, "keys/a", []byte("v"))
		if file, err := c.OpenFile(ctx, "keys/a", os.O_RDWR|os.O_TRUNC); err == nil {
			file.ReadAt(ctx, make([]byte, 10), 0)
			file.Close()
		}
	})
}

// babble greets, sends replies while it takes what comes, and hangs up.
func babble(conn net.Conn, replies []byte) {
	defer conn.Close()
	buf := make([]byte, 1<<10)
	for _, m := range []wire.Msg{
		{Type: wire.Rversion, Tag: wire.NoTag, Msize: wire.MinMsize, Version: "9P2000.e"},
		{Type: wire.Rerror, Tag: wire.NoTag, Ename: errs.CannotRecover.Text()},
		{Type: wire.Rattach},
	} {
		if _, err := conn.Read(buf); err != nil {
			return
		}
		frame, _ := wire.Append(nil, &m, wire.E)
		conn.Write(frame)
	}
	go func() {
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	conn.Write(replies)
}
