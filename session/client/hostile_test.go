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

// exercise does one of everything, of which nothing needs to succeed.
func exercise(ctx context.Context, c *client.Client) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c.ReadFile(ctx, "keys/a")
	c.ReadDir(ctx, "keys")
	c.WriteFile(ctx, "keys/a", []byte("v"))
	if file, err := c.OpenFile(ctx, "keys/a", os.O_RDWR|os.O_TRUNC); err == nil {
		file.ReadAt(ctx, make([]byte, 10), 0)
		file.Close()
	}
}

// dialer makes a transport for each server, once, and then no more.
func dialer(servers ...func(net.Conn)) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		if len(servers) == 0 {
			return nil, io.ErrClosedPipe
		}
		ours, theirs := net.Pipe()
		go servers[0](ours)
		servers = servers[1:]
		return theirs, nil
	}
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
		frame := frames(f, m)
		f.Add(frame)
		f.Add(append(frame, frame...))
		f.Add(frame[:len(frame)-1])
	}
	f.Fuzz(func(t *testing.T, replies []byte) {
		dial := dialer(func(conn net.Conn) { babble(conn, "9P2000.e", announced, replies) })
		c, err := client.Dial(t.Context(), "fuzz", client.Options{Dial: dial, Patience: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		exercise(t.Context(), c)
	})
}

// FuzzResume: whatever a server says to have become of a request, nothing panics
// and every operation ends.
func FuzzResume(f *testing.F) {
	resume := func(states ...uint8) []byte {
		return frames(f, wire.Msg{Type: wire.Rresume, Tag: wire.NoTag, States: states})
	}
	f.Add(resume(wire.Unseen))
	f.Add(resume(wire.Running))
	f.Add(resume(wire.Answered))
	f.Add(append(resume(wire.Running), frames(f, wire.Msg{Type: wire.Rsread, Data: []byte("v")})...))
	f.Add(append(resume(wire.Answered), frames(f, wire.Msg{Type: wire.Rerror, Ename: errs.NotFound.Text()})...))
	f.Add(resume(wire.Unseen, wire.Answered))
	f.Add(frames(f, wire.Msg{Type: wire.Rerror, Tag: wire.NoTag, Ename: errs.Invalid.Text()}))
	f.Fuzz(func(t *testing.T, replies []byte) {
		dial := dialer(
			func(conn net.Conn) {
				greeted(conn, "9P2000.e.n", announced)
				conn.Read(make([]byte, 1<<10)) // a request, which gets no answer
				conn.Close()
			},
			func(conn net.Conn) {
				babble(conn, "9P2000.e.n", []wire.Msg{{Type: wire.Rsession, Tag: wire.NoTag}}, replies)
			},
		)
		c, err := client.Dial(t.Context(), "fuzz", client.Options{Dial: dial, Patience: 2 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		exercise(t.Context(), c)
	})
}

// frames are messages of 9P2000.e.n on the wire.
func frames(t testing.TB, list ...wire.Msg) (b []byte) {
	for i := range list {
		frame, err := wire.Append(b, &list[i], wire.EN)
		if err != nil {
			t.Fatal(err)
		}
		b = frame
	}
	return b
}

// announced is how a server answers a session that it did not have.
var announced = []wire.Msg{{Type: wire.Rerror, Tag: wire.NoTag, Ename: errs.CannotRecover.Text()}, {Type: wire.Rattach}}

// greeted answers Tversion and what follows; false: the client is gone.
func greeted(conn net.Conn, version string, answers []wire.Msg) bool {
	buf := make([]byte, 1<<10)
	for _, m := range append([]wire.Msg{{Type: wire.Rversion, Tag: wire.NoTag, Msize: wire.MinMsize, Version: version}}, answers...) {
		if _, err := conn.Read(buf); err != nil {
			return false
		}
		frame, _ := wire.Append(nil, &m, wire.EN)
		conn.Write(frame)
	}
	return true
}

// babble greets, sends replies while it takes what comes, and hangs up.
func babble(conn net.Conn, version string, answers []wire.Msg, replies []byte) {
	defer conn.Close()
	if !greeted(conn, version, answers) {
		return
	}
	go func() {
		buf := make([]byte, 1<<10)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	conn.Write(replies)
}
