package keep_test

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/fsimpl/localfs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/keep"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// TestDialects: whatever the client speaks, it survives a cut, where the server
// keeps sessions in a dialect above it.
func TestDialects(t *testing.T) {
	for version, resumed := range map[string]bool{
		"9P2000.L": true, "9P2000.L.Google.7": true, "9P2000.L.e": true, "9P2000.e": true, "9P2000.e.n": true, "9P2000.L.e.2": true, "9P2000.e.n.2": true, "9P2000": true,
		"9P2000.x": true, "9P2000.u": false,
	} {
		t.Run(version, func(t *testing.T) {
			h := newHost(t)
			h.put("k", "v")
			c := newRaw(t, h.keeper(keep.Options{})) // which foresees another version
			c.hello(version)
			c.walk(1, "keys", "k")
			if c.Dialect.IsL() {
				c.do(&wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: 1}, wire.Rlopen)
			} else {
				c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1}, wire.Ropen)
			}
			h.drop()
			if got := c.read(1, 0); got != "v" {
				t.Errorf("read %q", got)
			}
			if n := h.server.Stats().Resumed; n == 1 != resumed {
				t.Errorf("%d resumed", n)
			}
			if strings.Contains(h.log.String(), "keeps no sessions") {
				t.Error(h.log.String())
			}
		})
	}
}

// TestErrorTexts: plain 9P2000 gets the exact texts that Linux knows, .e the detail.
func TestErrorTexts(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	for version, want := range map[string]string{"9P2000": "Invalid argument", "9P2000.e": "Invalid argument: open mode 0x80"} {
		c := newRaw(t, h.keeper(keep.Options{Version: version}))
		c.hello(version)
		c.walk(1, "keys", "k")
		if m := c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1, Mode: 0x80}, wire.Rerror); m.Ename != want {
			t.Errorf("%s: %q", version, m.Ename)
		}
		if m := c.do(&wire.Msg{Type: wire.Tstat, Tag: 1, Fid: 99}, wire.Rerror); m.Ename != "fid unknown or out of range" {
			t.Errorf("%s: %q", version, m.Ename)
		}
	}
}

// TestVersions: a client may ask again, for less and for what nobody has, and all
// that it had is gone then.
func TestVersions(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	c := newRaw(t, h.keeper(keep.Options{Msize: 65536}))
	if m := c.version("nonsense", 8192); m.Version != "unknown" {
		t.Errorf("%v", m)
	}
	if m := c.version("9P2000.L", 1<<20); m.Msize != 65536 || m.Version != "9P2000.L" {
		t.Errorf("%v", m)
	}
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid}, wire.Rattach)
	c.walk(1, "events")
	c.do(&wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: 1}, wire.Rlopen)
	c.Send(&wire.Msg{Type: wire.Tread, Tag: 9, Fid: 1, Count: 100})
	if m := c.version("9P2000", 4096); m.Msize != 4096 || m.Version != "9P2000" {
		t.Errorf("%v", m)
	}
	if m := c.do(&wire.Msg{Type: wire.Tstat, Tag: 9, Fid: 1}, wire.Rerror); m.Ename != "fid unknown or out of range" {
		t.Errorf("%v", m)
	}
	h.until("the end of what was before", func() bool { s := h.server.Stats(); return s.Sessions == 0 && s.Conns == 1 })
	// Sessions are the keeper's business.
	c.Dialect = wire.E
	c.do(&wire.Msg{Type: wire.Tsession, Tag: 2}, wire.Rerror)
	c.Dialect = wire.None
	c.do(&wire.Msg{Type: wire.Tversion, Tag: 3, Msize: 100, Version: "9P2000"}, wire.Rerror)
}

// TestMisuse: a client that breaks the protocol is hung up on.
func TestMisuse(t *testing.T) {
	h := newHost(t)
	for name, say := range map[string]func(c *raw){
		"no version": func(c *raw) {
			c.Dialect = wire.L
			c.Send(&wire.Msg{Type: wire.Tgetattr, Tag: 1})
		},
		"a tag twice": func(c *raw) {
			c.hello("9P2000.L")
			c.open(1, 0, "events")
			m := &wire.Msg{Type: wire.Tread, Tag: 9, Fid: 1, Count: 100}
			c.Send(m)
			c.Send(m)
		},
		"no tag":         func(c *raw) { c.hello("9P2000.L"); c.Send(&wire.Msg{Type: wire.Tgetattr, Tag: wire.NoTag}) },
		"a large frame":  func(c *raw) { c.hello("9P2000.L"); c.NC.Write([]byte{1, 0, 1, 0, 100, 0, 0}) },
		"a small frame":  func(c *raw) { c.NC.Write([]byte{6, 0, 0, 0, 100, 0, 0}) },
		"a torn version": func(c *raw) { c.NC.Write([]byte{7, 0, 0, 0, byte(wire.Tversion), 0, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			k, err := keep.Dial(t.Context(), keep.Options{Dial: h.Dial})
			if err != nil {
				t.Fatal(err)
			}
			down, end := redialtest.Pair(t)
			defer end.Close()
			done := make(chan error, 1)
			go func() { done <- k.Serve(t.Context(), down) }()
			c := newRaw(t, end)
			say(c)
			if m := c.Receive(); m != nil {
				t.Errorf("got %v", m)
			}
			if err := <-done; err == nil {
				t.Error("no error")
			}
		})
	}
}

// TestMisuseUnread: also one that has left more answers unread than its socket takes.
func TestMisuseUnread(t *testing.T) {
	h := newHost(t)
	h.put("k", strings.Repeat("x", 1<<20))
	k, err := keep.Dial(t.Context(), keep.Options{Dial: h.Dial})
	if err != nil {
		t.Fatal(err)
	}
	down, end := redialtest.Pair(t)
	defer end.Close()
	done := make(chan error, 1)
	go func() { done <- k.Serve(t.Context(), down) }()
	c := newRaw(t, end)
	c.version("9P2000.L", wire.MaxMsize)
	c.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid}, wire.Rattach)
	c.open(1, 0, "keys", "k")
	c.Send(&wire.Msg{Type: wire.Tread, Tag: 1, Fid: 1, Count: 1 << 20})
	if _, err := io.ReadFull(c.NC, make([]byte, wire.HeaderLen)); err != nil { // the rest is in the way
		t.Fatal(err)
	}
	c.NC.Write([]byte{6, 0, 0, 0, 100, 0, 0})
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(patient):
		t.Fatal("Serve does not end")
	}
}

// TestEnds: the session ends with the client, and with ctx.
func TestEnds(t *testing.T) {
	h := newHost(t)
	for _, byClient := range []bool{true, false} {
		k, err := keep.Dial(t.Context(), keep.Options{Dial: h.Dial})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		down, end := redialtest.Pair(t)
		done := make(chan error, 1)
		go func() { done <- k.Serve(ctx, down) }()
		c := newRaw(t, end)
		c.hello("9P2000.L")
		if byClient {
			end.Close()
		} else {
			cancel()
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		h.until("the end of the session", func() bool { s := h.server.Stats(); return s.Sessions == 0 || s.Parked == 1 && !byClient })
		end.Close()
	}
	k, err := keep.Dial(t.Context(), keep.Options{Dial: h.Dial})
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	h.until("the end of the connection", func() bool { return h.server.Stats().Conns == 0 })
}

// TestDialFails: what is wrong is told at once.
func TestDialFails(t *testing.T) {
	h := newHost(t)
	h.away = true
	if _, err := keep.Dial(t.Context(), keep.Options{Dial: h.Dial}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("no server: %v", err)
	}
	if _, err := keep.Dial(t.Context(), keep.Options{Dial: h.Dial, Version: "8P"}); err == nil || !strings.Contains(err.Error(), "8P") {
		t.Errorf("no version: %v", err)
	}
	if _, err := keep.Dial(t.Context(), keep.Options{Dial: h.Dial, Mumble: "x"}); err == nil {
		t.Error("no message")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	var mute net.Conn
	_, err := keep.Dial(ctx, keep.Options{Dial: func(context.Context) (net.Conn, error) {
		ours, theirs := redialtest.Pair(t)
		mute = ours
		return theirs, nil
	}})
	if err == nil {
		t.Error("a mute server")
	}
	mute.Close()
}

// TestForeign: p9's server keeps no session. A cut transport is replaced all the
// same; what was open is opened again.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/k", []byte("value"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := p9.NewServer(localfs.Attacher(dir))
	h := newHost(t)
	dial := func(context.Context) (net.Conn, error) {
		ours, theirs := redialtest.Pair(t)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.conns = append(h.conns, ours)
		h.served.Go(func() { _ = server.Handle(ours, ours); ours.Close() })
		return theirs, nil
	}
	c := newRaw(t, h.keeper(keep.Options{Dial: dial, Msize: 8192}))
	c.hello("9P2000.L")
	c.open(1, rdwr, "k")
	for range 5 {
		h.drop()
		if got := c.read(1, 0); got != "value" {
			t.Errorf("read %q", got)
		}
		c.do(write(1, 0, "v"), wire.Rwrite)
	}
	if err := os.Rename(dir+"/k", dir+"/l"); err != nil {
		t.Fatal(err)
	}
	h.drop()
	if e := c.errno(write(1, 0, "v")); e != uint32(linux.ESTALE) {
		t.Errorf("got %d", e)
	}
	if n := strings.Count(h.log.String(), "keeps no sessions"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestMumble: on a channel that proves nobody the message does, and its key brings
// the session back.
func TestMumble(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	h.stop()
	secret := []byte("meta9-example-secret")
	h.who = fs.Principal{}
	h.change = func(c *session.Config) {
		c.Auth = &auth.Keyring{Secret: secret, VMExists: func(string) bool { return true }, Now: time.Now}
	}
	h.start()
	m := auth.Message{Node: vmOne, Time: uint32(time.Now().Unix()), Key: [8]byte{1, 2, 3}}
	if _, err := keep.Dial(t.Context(), keep.Options{Dial: h.Dial, Mumble: m.Sign([]byte("another secret"))}); err == nil || !strings.Contains(err.Error(), "MUMBLE") {
		t.Errorf("a wrong message: %v", err)
	}
	c := newRaw(t, h.keeper(keep.Options{Mumble: m.Sign(secret), Msize: 8192}))
	c.hello("9P2000.L")
	c.open(1, rdwr, "keys", "k")
	for i := range 3 {
		h.drop()
		c.do(write(1, 0, "w"), wire.Rwrite)
		if n := h.server.Stats().Resumed; n != int64(i+1) {
			t.Errorf("%d resumed", n)
		}
	}
	h.stop()
	h.start()
	c.do(write(1, 0, "x"), wire.Rwrite)
}

// TestMsizeShrinks: a client that was promised an msize keeps it.
func TestMsizeShrinks(t *testing.T) {
	h, c, _ := lost(t)
	h.stop()
	h.change = func(c *session.Config) { c.Limits.Msize = 4096 }
	h.start()
	h.until("the log", func() bool { return strings.Contains(h.log.String(), "msize is 4096 now") })
	h.stop()
	h.change = nil
	h.start()
	c.do(&wire.Msg{Type: wire.Tgetattr, Tag: 1}, wire.Rgetattr)
}
