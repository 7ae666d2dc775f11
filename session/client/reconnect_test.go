package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/session/wire"
)

// states gathers what Notify is told.
func states(opt *client.Options) <-chan client.State {
	ch := make(chan client.State, 100)
	opt.Notify = func(s client.State) { ch <- s }
	return ch
}

// nextUp waits for the next transport.
func nextUp(t *testing.T, ch <-chan client.State) client.State {
	t.Helper()
	for {
		select {
		case s := <-ch:
			if s.Up {
				return s
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no new transport")
		}
	}
}

func openFile(t *testing.T, c *client.Client, path string, flag int) *client.File {
	t.Helper()
	file, err := c.OpenFile(t.Context(), path, flag)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestResume(t *testing.T) {
	f := newFake(t)
	f.put("keys/a", []byte("value"))
	var opt client.Options
	ch := states(&opt)
	c, ctx := f.dial(opt), t.Context()
	file := openFile(t, c, "keys/a", os.O_RDWR)
	for i := range 3 {
		f.drop()
		if s := nextUp(t, ch); !s.Resumed {
			t.Errorf("drop %d: not resumed", i)
		}
		if n, err := file.WriteAt(ctx, []byte("V"), 0); n != 1 || err != nil {
			t.Errorf("drop %d: wrote %d, %v", i, n, err)
		}
	}
	if f.count("Tattach") != 1 || f.count("Topen") != 1 || f.count("Tsession") != 4 {
		t.Errorf("not the same fids: %q", f.seen)
	}
	b := make([]byte, 10)
	if n, err := file.ReadAt(ctx, b, 0); string(b[:n]) != "Value" || err != nil {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if n, err := file.ReadAt(ctx, b, 5); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v at the end", n, err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	if _, err := file.ReadAt(ctx, b, 0); !errors.Is(err, client.ErrClosed) {
		t.Errorf("read of a closed file: %v", err)
	}
}

// forget makes the server lose its sessions and connections.
func (f *fake) forget() {
	f.with(func() {
		for key := range f.sessions {
			delete(f.sessions, key)
		}
	})
	f.drop()
}

func TestLostSession(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"keys/a", "keys/removed", "keys/replaced", "keys/trunc", "keys/events"} {
		f.put(name, []byte("old value"))
	}
	f.nodes["keys/events"].qid.Version = 0
	var opt client.Options
	ch := states(&opt)
	c, ctx := f.dial(opt), t.Context()
	good := openFile(t, c, "keys/a", os.O_RDWR)
	stale := []*client.File{
		openFile(t, c, "keys/removed", os.O_RDONLY),
		openFile(t, c, "keys/replaced", os.O_RDONLY),
		openFile(t, c, "keys/trunc", os.O_WRONLY|os.O_TRUNC),
		openFile(t, c, "keys/events", os.O_RDONLY),
	}
	f.with(func() {
		delete(f.nodes, "keys/removed")
		f.put("keys/replaced", []byte("new"))
	})
	f.forget()
	if s := nextUp(t, ch); s.Resumed {
		t.Error("resumed what was forgotten")
	}
	if n, err := good.WriteAt(ctx, []byte("OLD"), 0); n != 3 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	for i, file := range stale {
		_, err := file.ReadAt(ctx, make([]byte, 10), 0)
		if i == 2 {
			_, err = file.WriteAt(ctx, []byte("x"), 0)
		}
		if !errors.Is(err, errs.Stale) {
			t.Errorf("file %d: %v, want stale", i, err)
		}
	}
	if got, _ := c.ReadFile(ctx, "keys/trunc"); string(got) != "old value" {
		t.Errorf("the lost truncation left %q", got)
	}
	if got, _ := c.ReadFile(ctx, "keys/a"); string(got) != "OLD value" {
		t.Errorf("read %q", got)
	}
	for _, file := range append(stale, good) {
		if err := file.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// A File whose truncation is lost while it is being closed says so.
func TestCloseOfALostTruncation(t *testing.T) {
	f := newFake(t)
	f.put("keys/a", []byte("old"))
	var opt client.Options
	ch := states(&opt)
	c := f.dial(opt)
	file := openFile(t, c, "keys/a", os.O_WRONLY|os.O_TRUNC)
	f.forget()
	nextUp(t, ch)
	if err := file.Close(); !errors.Is(err, errs.Stale) {
		t.Errorf("close: %v", err)
	}
}

// Requests that change nothing are sent again, whatever became of the first.
func TestReadsAreSentAgain(t *testing.T) {
	for _, version := range []string{"9P2000.e", "9P2000"} {
		for _, what := range []fate{cut, doCut, torn, garble, wrong, huge} {
			t.Run(fmt.Sprint(version, what), func(t *testing.T) {
				f := newFake(t)
				f.version = version
				f.put("keys/a", []byte("value"))
				c, ctx := f.dial(client.Options{}), t.Context()
				for _, typ := range []wire.Type{wire.Tsread, wire.Twalk, wire.Topen, wire.Tread, wire.Tstat} {
					f.next(typ, what)
				}
				if got, err := c.ReadFile(ctx, "keys/a"); err != nil || string(got) != "value" {
					t.Errorf("read %q, %v", got, err)
				}
				if list, err := c.ReadDir(ctx, "keys"); err != nil || len(list) != 1 {
					t.Errorf("listed %v, %v", list, err)
				}
				if info, err := c.Stat(ctx, "keys/a"); err != nil || info.Length != 5 {
					t.Errorf("stat %v, %v", info, err)
				}
				f.drop() // what a lost walk left is clunked by the next transport
				if _, err := c.Stat(ctx, "keys/a"); err != nil {
					t.Error(err)
				}
				until(t, "no fid is left behind", func() (ok bool) {
					f.with(func() { ok = len(f.fids) == 1 })
					return ok
				})
			})
		}
	}
}

// changes are all operations that change something, with the request that does.
var changes = map[wire.Type]func(ctx context.Context, c *client.Client) error{
	wire.Tremove: func(ctx context.Context, c *client.Client) error { return c.Remove(ctx, "keys/a") },
	wire.Twstat:  func(ctx context.Context, c *client.Client) error { return c.Rename(ctx, "keys/a", "keys/b") },
	wire.Tcreate: func(ctx context.Context, c *client.Client) error {
		return second(c.OpenFile(ctx, "keys/new", os.O_WRONLY|os.O_CREATE))
	},
	wire.Topen: func(ctx context.Context, c *client.Client) error {
		return second(c.OpenFile(ctx, "keys/a", os.O_WRONLY|os.O_TRUNC))
	},
	wire.Twrite: func(ctx context.Context, c *client.Client) error {
		file, err := c.OpenFile(ctx, "keys/a", os.O_WRONLY)
		if err != nil {
			return err
		}
		defer file.Close()
		return second(file.WriteAt(ctx, []byte("new"), 0))
	},
	wire.Tclunk: func(ctx context.Context, c *client.Client) error {
		file, err := c.OpenFile(ctx, "keys/a", os.O_WRONLY|os.O_TRUNC)
		if err != nil {
			return err
		}
		return file.Close()
	},
}

// nextChange is next, but of clunks only that of a truncated file suffers: others
// are not waited for.
func (f *fake) nextChange(t wire.Type, what fate) {
	if t != wire.Tclunk {
		f.next(t, what)
		return
	}
	f.with(func() {
		done := false
		f.fates = append(f.fates, func(m *wire.Msg) (fate, bool) {
			p := f.fids[m.Fid]
			if done || m.Type != t || p == nil || !p.held {
				return serve, false
			}
			done = true
			return what, true
		})
	})
}

func TestUnansweredChangeIsUnknown(t *testing.T) {
	for typ, change := range changes {
		for _, what := range []fate{cut, doCut, torn} {
			t.Run(fmt.Sprint(typ, what), func(t *testing.T) {
				f := newFake(t)
				f.put("keys/a", []byte("old"))
				c := f.dial(client.Options{})
				f.nextChange(typ, what)
				err := change(t.Context(), c)
				if !errors.Is(err, client.ErrUnknown) {
					t.Errorf("%v, want unknown", err)
				}
				if typ != wire.Tclunk && f.count(typ.String()) != 1 {
					t.Errorf("sent %d times", f.count(typ.String()))
				}
				if _, err := c.Stat(t.Context(), "keys"); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}

// A value in several messages is unknown from the first on, even if the transport
// goes between two.
func TestUnansweredLongWrite(t *testing.T) {
	f := newFake(t)
	f.msize = wire.MinMsize
	c := f.dial(client.Options{})
	f.next(wire.Twrite, doCut)
	err := c.WriteFile(t.Context(), "keys/long", make([]byte, 3*wire.MinMsize))
	if !errors.Is(err, client.ErrUnknown) || f.count("Twrite") != 1 {
		t.Errorf("%v after %d writes", err, f.count("Twrite"))
	}
}

func TestPatience(t *testing.T) {
	f := newFake(t)
	c := f.dial(client.Options{Patience: 50 * time.Millisecond})
	f.with(func() { f.down = true })
	f.drop()
	_, err := c.ReadFile(t.Context(), "keys/a")
	if !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v, want no connection", err)
	}
	if c.Dialect() != "" {
		t.Error("a dialect without a connection")
	}
	f.with(func() {
		f.put("keys/a", []byte("back"))
		f.down = false
	})
	until(t, "the server is found again", func() bool {
		got, err := c.ReadFile(t.Context(), "keys/a")
		return err == nil && string(got) == "back"
	})
}

// Without patience of its own a request waits as long as its context.
func TestContextEndsTheWait(t *testing.T) {
	f := newFake(t)
	c := f.dial(client.Options{Patience: -1})
	f.with(func() { f.down = true })
	f.drop()
	until(t, "the loss is noticed", func() bool { return c.Dialect() == "" })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.WriteFile(ctx, "keys/a", nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("%v, want only the context's error", err)
	}
}

// A server that breaks off whatever is asked is given up after a while.
func TestPoison(t *testing.T) {
	for _, what := range []fate{cut, torn, garble, wrong, huge} {
		f := newFake(t)
		f.put("keys/a", []byte("value"))
		c := f.dial(client.Options{Patience: 100 * time.Millisecond})
		f.with(func() {
			f.fates = append(f.fates, func(m *wire.Msg) (fate, bool) { return what, m.Type == wire.Tsread })
		})
		if _, err := c.ReadFile(t.Context(), "keys/a"); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("fate %d: %v", what, err)
		}
	}
}

func TestRefused(t *testing.T) {
	f := newFake(t)
	f.deny = errs.Permission
	_, err := client.Dial(t.Context(), "fake", client.Options{Dial: f.Dial})
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != errs.Permission || e.Op != "connect" || e.Path != "fake" {
		t.Errorf("dial: %v", err)
	}
	f.with(func() { f.deny = nil })
	c := f.dial(client.Options{Patience: -1})
	f.with(func() { f.deny = errs.NotFound })
	f.forget()
	until(t, "the refusal is told", func() bool {
		_, err := c.Stat(t.Context(), "keys")
		return errors.Is(err, errs.NotFound)
	})
}

func TestClose(t *testing.T) {
	f := newFake(t)
	c := f.dial(client.Options{})
	f.next(wire.Tsread, hang)
	ended := make(chan error)
	go func() { ended <- second(c.ReadFile(context.Background(), "keys/a")) }()
	until(t, "the read hangs", func() bool { return f.count("Tsread") == 1 })
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, client.ErrClosed) {
		t.Errorf("the hung read: %v", err)
	}
	if len(f.sessions) != 0 {
		t.Error("the server still keeps the session")
	}
	if err := c.Close(); !errors.Is(err, client.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if err := c.Remove(t.Context(), "keys"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after the close: %v", err)
	}
}

// A server without sessions is attached to anew.
func TestServerWithoutSessions(t *testing.T) {
	f := newFake(t)
	f.sessions = nil
	f.put("keys/a", []byte("value"))
	c := f.dial(client.Options{})
	file := openFile(t, c, "keys/a", os.O_RDONLY)
	defer file.Close()
	f.drop()
	b := make([]byte, 10)
	if n, err := file.ReadAt(t.Context(), b, 0); err != nil || string(b[:n]) != "value" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if n := f.count("Tattach"); n != 2 {
		t.Errorf("%d attaches", n)
	}
}

const message = "MUMBLE:AAHo9hM9AkDLEfHrdcC1gDKRVl3UnAECAwQFBgcIAKUYagAAAAAkADU1MGU4NDAwLWUyOWItNDFkNC1hNzE2LTQ0NjY1NTQ0MDAwMAYAc3dhcm0xAAAAAA==:"

func TestMumble(t *testing.T) {
	f := newFake(t)
	f.proves, f.mumble = false, message
	if _, err := client.Dial(t.Context(), "fake", client.Options{Dial: f.Dial}); !errors.Is(err, errs.Permission) {
		t.Errorf("without a message: %v", err)
	}
	if n := f.count("Tsession"); n != 1 {
		t.Errorf("without a message: %d times Tsession", n)
	}
	opt := client.Options{Mumble: message}
	ch := states(&opt)
	c := f.dial(opt)
	if n := f.count("Tsession"); n != 1 {
		t.Error("asked for a session that Tauth was yet to set")
	}
	f.drop()
	if s := nextUp(t, ch); !s.Resumed {
		t.Error("not resumed by the message's key")
	}
	f.forget()
	if s := nextUp(t, ch); s.Resumed {
		t.Error("resumed what was forgotten")
	}
	if _, err := c.Stat(t.Context(), "keys"); err != nil {
		t.Error(err)
	}
	if n := f.count("Tauth"); n != 2 {
		t.Errorf("%d times Tauth", n)
	}
	for _, bad := range []string{message[:40], "nonsense", strings.Replace(message, "A", "!", 1)} {
		if _, err := client.Dial(t.Context(), "fake", client.Options{Dial: f.Dial, Mumble: bad}); !errors.Is(err, errs.Protocol) {
			t.Errorf("%.20s: %v", bad, err)
		}
	}

	f.with(func() { f.mumble = "another" })
	if _, err := client.Dial(t.Context(), "fake", client.Options{Dial: f.Dial, Mumble: message}); !errors.Is(err, errs.AuthFailed) {
		t.Errorf("a message of another secret: %v", err)
	}
	f.with(func() { f.mumble, f.proves = "", true })
	if c, err := client.Dial(t.Context(), "fake", client.Options{Dial: f.Dial, Mumble: message}); err != nil {
		t.Errorf("a server that wants no authentication: %v", err)
	} else {
		c.Close()
	}
}
