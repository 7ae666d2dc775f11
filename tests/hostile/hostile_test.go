// Package hostile attacks a running meta9d from outside: whatever a guest
// sends, slowly, halfway or in masses, others are served meanwhile and after,
// and what it cost is bounded and given back.
package hostile

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var seed = flag.Uint64("seed", 20121217, "what random bytes grow from")

// target is a meta9d with two VMs: the attacker's and a bystander's.
type target struct {
	*testenv.Server
	t         *testing.T
	bystander *raw.Conn
	fds       int
	rss       int64
}

const (
	attacker = 0
	innocent = 1
	value    = "the bystander's value"
)

// rssGrowth is what an attack may leave behind: buffers that Go has not given
// back. The race detector has its own books beside.
func rssGrowth() int64 {
	if os.Getenv(testenv.RaceEnv) != "" {
		return 1 << 30
	}
	return 256 << 20
}

func newTarget(t *testing.T, config string) *target {
	t.Helper()
	srv := testenv.Start(t, daemon.Options{Config: config})
	for i := range 2 {
		srv.NewVM(testenv.UUID(i), fmt.Sprintf(`{"uuid":%q,"customer_metadata":{"key":%q}}`, testenv.UUID(i), value))
	}
	g := &target{Server: srv, t: t}
	g.bystander = g.attached(innocent)
	g.fds, _ = srv.FDs()
	g.rss, _ = srv.RSS()
	return g
}

// attached is a 9P2000.e connection over a VM's socket; fid 0 is its folder.
// Connections that were closed a moment ago still count among the VM's 64, so it
// tries again when it is turned away.
func (g *target) attached(vm int) (c *raw.Conn) {
	g.t.Helper()
	testenv.Eventually(g.t, "a connection of the VM is served", func() bool {
		c = g.dial(vm)
		err := daemon.Hello(c, "9P2000.e", "")
		if err != nil && !gone(err) {
			g.t.Fatal(err)
		}
		return err == nil
	})
	return c
}

func (g *target) dial(vm int) *raw.Conn {
	g.t.Helper()
	c, err := raw.Dial("unix", g.VM(testenv.UUID(vm)))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

// serves wants the bystander served, on its old connection and on a new one,
// reading and writing.
func (g *target) serves() {
	g.t.Helper()
	another := g.attached(innocent)
	defer another.Close()
	for _, c := range []*raw.Conn{g.bystander, another} {
		if b, err := c.Sread(0, "keys", "key"); err != nil || string(b) != value {
			g.t.Fatalf("the bystander reads %q, %v", b, err)
		}
		if err := c.Swrite(0, []byte("x"), "keys", "other"); err != nil {
			g.t.Fatalf("the bystander writes: %v", err)
		}
	}
}

// survived wants the bystander served, the attacker's connections gone, and
// memory within its bound. The test must have closed what it opened.
func (g *target) survived() {
	g.t.Helper()
	g.released()
	rss, err := g.RSS()
	if err != nil || rss > g.rss+rssGrowth() {
		g.t.Errorf("RSS was %d MiB and is %d MiB, %v", g.rss>>20, rss>>20, err)
	}
	if strings.Contains(g.Log(), "panic") || strings.Contains(g.Log(), "DATA RACE") {
		g.t.Errorf("meta9d's log:\n%s", g.Log())
	}
}

// released wants the bystander served and the attacker's connections gone.
func (g *target) released() {
	g.t.Helper()
	g.serves()
	ok := false
	defer func() {
		if !ok {
			g.t.Logf("%d descriptors at first, now:\n%s", g.fds, g.Open())
		}
	}()
	testenv.Eventually(g.t, "the attacker's descriptors are closed", func() bool {
		n, err := g.FDs()
		ok = err == nil && n <= g.fds+4
		return ok
	})
}

// gone tells whether err says that the server closed the connection.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// wantClosed wants the connection closed, after whatever replies.
func (g *target) wantClosed(what string, c *raw.Conn) {
	g.t.Helper()
	for {
		_, err := c.Recv()
		if err == nil {
			continue
		}
		if !gone(err) {
			g.t.Errorf("%s: %v, want the connection closed", what, err)
		}
		return
	}
}

func TestRandomBytes(t *testing.T) {
	g := newTarget(t, "")
	random := rand.New(rand.NewPCG(*seed, 1))
	for i := range 300 {
		connect := g.dial
		if i%2 == 0 {
			connect = g.attached
		}
		c := connect(attacker)
		b := make([]byte, 1+random.IntN(5000))
		for j := range b {
			b[j] = byte(random.Uint32())
		}
		if i%3 == 0 { // a size that is believed
			copy(b, []byte{byte(len(b)), byte(len(b) >> 8), 0, 0, byte(100 + random.IntN(60))})
		}
		c.Send(b) // it may have hung up already
		c.Close()
	}
	g.survived()
}

// TestEveryLength sends every type at every length up to that of a whole, well
// made message, as a frame whose size field is true: an error reply or none,
// and the connection lives or was closed; never silence about the next request.
func TestEveryLength(t *testing.T) {
	g := newTarget(t, "")
	for _, whole := range messages() {
		kind := wire.Type(whole[4])
		t.Run(kind.String(), func(t *testing.T) {
			g.t = t
			c := g.attached(attacker)
			for n := raw.HeaderLen; n <= len(whole)+3; n++ {
				cut := make([]byte, n)
				copy(cut, whole)
				copy(cut, []byte{byte(n), byte(n >> 8), 0, 0})
				c = g.probe(c, cut)
			}
			c.Close()
		})
	}
	g.t = t
	g.survived()
}

// probe sends a frame and then a request that must be answered. It gives the
// connection to go on with: where the frame ended the session, a new one.
func (g *target) probe(c *raw.Conn, frame []byte) *raw.Conn {
	g.t.Helper()
	const probeTag = 0x7777
	if err := c.Send(append(frame, raw.Frame(wire.Tsread, probeTag, uint32(0), []string{"keys", "key"})...)); err != nil && !gone(err) {
		g.t.Fatal(err)
	}
	for {
		r, err := c.Recv()
		if gone(err) {
			return g.attached(attacker)
		}
		if err != nil {
			g.t.Fatalf("after %x: %v", frame, err)
		}
		if r.Tag != probeTag {
			continue
		}
		if r.Err() != nil { // a whole Tversion, Tclunk or Tremove of fid 0 does that
			c.Close()
			return g.attached(attacker)
		}
		return c
	}
}

// messages is a well made frame of every type that there is, and of some that
// there is not.
func messages() [][]byte {
	const fid, newfid = uint32(0), uint32(5)
	dir := append([]byte{60, 0, 58, 0}, make([]byte, 58)...)
	known := [][]byte{
		raw.Frame(wire.Tversion, raw.NoTag, uint32(8192), "9P2000.e"),
		raw.Frame(wire.Tauth, 1, newfid, "u", "a"),
		raw.Frame(wire.Tattach, 1, newfid, raw.NoFid, "u", ""),
		raw.Frame(wire.Tflush, 1, uint16(9)),
		raw.Frame(wire.Twalk, 1, fid, newfid, []string{"keys", "key"}),
		raw.Frame(wire.Topen, 1, fid, uint8(0)),
		raw.Frame(wire.Tcreate, 1, fid, "name", uint32(0o600), uint8(1)),
		raw.Frame(wire.Tread, 1, fid, uint64(0), uint32(100)),
		raw.Frame(wire.Twrite, 1, fid, uint64(0), raw.Data("data")),
		raw.Frame(wire.Tclunk, 1, fid),
		raw.Frame(wire.Tremove, 1, fid),
		raw.Frame(wire.Tstat, 1, fid),
		raw.Frame(wire.Twstat, 1, fid, dir),
		raw.Frame(wire.Tsession, raw.NoTag, make([]byte, 8)),
		raw.Frame(wire.Tsread, 1, fid, []string{"keys"}),
		raw.Frame(wire.Tswrite, 1, fid, []string{"keys", "mine"}, raw.Data("data")),
	}
	seen := map[byte]bool{}
	for _, m := range known {
		seen[m[4]] = true
	}
	for kind := range 256 {
		if !seen[byte(kind)] {
			known = append(known, raw.Frame(wire.Type(kind), 1, make([]byte, 24)))
		}
	}
	return known
}

func TestHalfFrames(t *testing.T) {
	g := newTarget(t, "")
	for _, whole := range messages()[:16] {
		for _, n := range []int{1, 4, 6, 7, len(whole) - 1} {
			c := g.attached(attacker)
			if err := c.Send(whole[:min(n, len(whole)-1)]); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	}
	g.survived()
}

func TestBadFraming(t *testing.T) {
	g := newTarget(t, "")
	for what, head := range map[string][]byte{
		"size 0":          {0, 0, 0, 0, byte(wire.Tread), 1, 0},
		"size 6":          {6, 0, 0, 0, byte(wire.Tread), 1, 0},
		"size over msize": {0xff, 0xff, 0xff, 0x7f, byte(wire.Twrite), 1, 0},
		"size ~0":         {0xff, 0xff, 0xff, 0xff, byte(wire.Twrite), 1, 0},
	} {
		c := g.attached(attacker)
		if err := c.Send(head); err != nil {
			t.Fatal(err)
		}
		g.wantClosed(what, c)
		c.Close()
	}
	g.survived()
	if n := strings.Count(g.Log(), "\n"); n > 40 {
		t.Errorf("%d lines of log", n)
	}
}

func TestMsize(t *testing.T) {
	g := newTarget(t, "")
	for _, msize := range []uint32{0, 1, 7, 256, 4095} {
		c := g.dial(attacker)
		if _, version, err := c.Version(msize, "9P2000"); err == nil {
			t.Errorf("msize %d: granted %s", msize, version)
		}
		if _, _, err := c.Version(8192, "9P2000"); err != nil {
			t.Errorf("after msize %d: %v", msize, err)
		}
		c.Close()
	}
	c := g.dial(attacker)
	if got, _, err := c.Version(^uint32(0), "9P2000"); err != nil || got != wire.MaxMsize {
		t.Errorf("msize ~0: granted %d, %v", got, err)
	}
	c.Close()
	c = g.dial(attacker)
	if _, _, err := c.Version(4096, "9P2000.e"); err != nil {
		t.Fatal(err)
	}
	if err := c.Attach(0, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(raw.Frame(wire.Tswrite, 1, uint32(0), []string{"keys", "big"}, raw.Data(make([]byte, 4096)))); err != nil {
		t.Fatal(err)
	}
	g.wantClosed("a frame over the msize granted", c)
	c.Close()
	g.survived()
}

func TestBeforeVersion(t *testing.T) {
	g := newTarget(t, "")
	for _, m := range messages()[1:] {
		c := g.dial(attacker)
		if err := c.Send(m); err != nil {
			t.Fatal(err)
		}
		if r, err := c.Recv(); err == nil && r.Err() == nil {
			t.Errorf("%v before Tversion: %v", wire.Type(m[4]), r.Type)
		}
		c.Close()
	}
	g.survived()
}
