// Package mdata tests the Joyent metadata protocol from outside: against a running
// meta9d by recorded requests and by Debian's cloud-init, beside 9P on the same
// keys, and meta9's own client against hosts that misbehave.
package mdata

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/mdbridge/mdata"
	"meta9/mdbridge/mdata/mdatatest"
	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// recorded is the VM of the recordings, and its UUID.
const recorded = "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f"

// host is a meta9d with one VM.
type host struct {
	*testenv.Server
	t *testing.T
}

// newHost makes the VM of the recordings, with more members: `,"name":value`.
func newHost(t *testing.T, more string) host {
	t.Helper()
	h := host{testenv.Start(t, daemon.Options{Memory: true}), t}
	h.makeVM(more)
	return h
}

func (h host) makeVM(more string) {
	h.t.Helper()
	var line bytes.Buffer
	if err := json.Compact(&line, load(h.t).VM); err != nil {
		h.t.Fatal(err)
	}
	h.NewVM(recorded, strings.TrimSuffix(line.String(), "}")+more+"}")
	h.dial().Close()
}

// chardevIs is the member for newHost by which a VM has the device.
func chardevIs(path string) string { return `,"mdata_chardev":"` + path + `"` }

func load(t *testing.T) mdatatest.Recorded {
	return mdatatest.Load(t, testenv.Recorded(t, "mdata", "mdata.json"))
}

// sock is the VM's socket of the protocol.
func (h host) sock() string { return filepath.Join(h.Run(), recorded, "mdata.sock") }

// dial connects to it, waiting until it is there.
func (h host) dial() *net.UnixConn {
	h.t.Helper()
	var c net.Conn
	testenv.Eventually(h.t, "the VM's mdata.sock answers", func() (ok bool) {
		var err error
		c, err = net.Dial("unix", h.sock())
		return err == nil
	})
	h.t.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

// client is meta9's own.
func (h host) client() *mdata.Client {
	h.t.Helper()
	c, err := mdata.Dial(within(h.t), h.sock())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// within is a context for what should take far less.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// chardev is a hypervisor's character device: a unix socket that it owns, at path,
// and the guest's serial line at its other end. It is made by make, since a host
// has to wait for it.
type chardev struct {
	path, tty string
	make      func()
}

func newChardev(t *testing.T) chardev {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	line, tty := mdatatest.PTY(t)
	mdatatest.OpenRaw(t, tty)
	d := chardev{path: filepath.Join(dir, "mdata.chardev"), tty: tty}
	d.make = func() {
		l, err := net.Listen("unix", d.path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second))
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("meta9d did not dial: %v", err)
		}
		mdatatest.Join(t, line, c)
	}
	return d
}

func TestRecordedApart(t *testing.T) {
	load(t).Apart(t, newHost(t, "").dial)
}

func TestRecordedTogether(t *testing.T) {
	load(t).Together(t, newHost(t, "").dial())
}

func TestRecordedChardev(t *testing.T) {
	d := newChardev(t)
	newHost(t, chardevIs(d.path))
	d.make()
	load(t).Together(t, mdatatest.OpenRaw(t, d.tty))
}
