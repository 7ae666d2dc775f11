package mdata

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// shows is a meta9d that shows the service at addr.
func shows(t *testing.T, addr string) (run func(args ...string) outcome) {
	t.Helper()
	s := testenv.Start(t, daemon.Options{Memory: true, Args: []string{"--mdata-from", addr}})
	return func(args ...string) outcome {
		t.Helper()
		return meta9(t, append([]string{"--addr", "unix:" + s.Admin()}, args...)...)
	}
}

// Somebody else's metadata service as files: over its socket and its serial line.
func TestUpstream(t *testing.T) {
	for name, reach := range map[string]func(*testing.T) (host, string){
		"unix": func(t *testing.T) (host, string) {
			h := newHost(t, "")
			return h, h.sock()
		},
		"tty": func(t *testing.T) (host, string) {
			d := newChardev(t)
			h := newHost(t, chardevIs(d.path))
			d.make()
			return h, d.tty
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, path := reach(t)
			testUpstream(t, h, shows(t, name+":"+path))
		})
	}
}

func testUpstream(t *testing.T, h host, run func(args ...string) outcome) {
	direct := h.Conn("vms/" + recorded)
	if out := run("ls", "upstream/keys"); out.code != 0 || !strings.Contains(out.stdout, "root_authorized_keys\n") {
		t.Errorf("%+v", out)
	}
	if out := run("ls", "upstream/sdc"); out.code != 0 || !strings.Contains(out.stdout, "nics\n") {
		t.Errorf("%+v", out)
	}
	if out := run("cat", "upstream/sdc/uuid", "upstream/sdc/tags.a.b"); out.stdout != recorded+"dotted" {
		t.Errorf("%+v", out)
	}
	for _, value := range []string{"one", "two", "\x00\xff\n"} {
		if err := direct.Swrite(0, []byte(value), "keys", "current"); err != nil {
			t.Fatal(err)
		}
		if out := run("cat", "upstream/keys/current"); out.stdout != value {
			t.Errorf("%+v, want %q", out, value)
		}
	}
	if out := run("put", "upstream/keys/through", "it goes"); out.code != 0 {
		t.Errorf("%+v", out)
	}
	if got, err := direct.Sread(0, "keys", "through"); err != nil || string(got) != "it goes" {
		t.Errorf("%q, %v", got, err)
	}
	if out := run("rm", "upstream/keys/through"); out.code != 0 {
		t.Errorf("%+v", out)
	}
	if _, err := direct.Sread(0, "keys", "through"); err == nil {
		t.Error("it is there still")
	}
	if out := run("put", "upstream/keys/foo:bar", "x"); out.code != 1 || !strings.Contains(out.stderr, `Cannot update the "foo" Namespace.`) {
		t.Errorf("%+v", out)
	}
}

// A service that is not there, or silent, is an i/o error that names it, and
// everything else is served meanwhile.
func TestUpstreamNotThere(t *testing.T) {
	h := newHost(t, "")
	absent := filepath.Join(t.TempDir(), "none")
	for addr, prepare := range map[string]func(){
		"unix:" + absent:   func() {},
		"unix:" + h.sock(): func() { h.Signal(syscall.SIGSTOP) },
	} {
		run := shows(t, addr)
		prepare()
		began := time.Now()
		out := run("cat", "upstream/keys/hostname")
		if out.code != 1 || !strings.Contains(out.stderr, "i/o error") || !strings.Contains(out.stderr, addr[len("unix:"):]) {
			t.Errorf("%+v", out)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
		if out := run("cat", "ctl"); out.code != 0 {
			t.Errorf("%+v", out)
		}
	}
	h.Signal(syscall.SIGCONT)
}

// The service may come, go and come again.
func TestUpstreamComesBack(t *testing.T) {
	h := host{testenv.Start(t, daemon.Options{}), t}
	h.makeVM("")
	run := shows(t, "unix:"+h.sock())
	for range 2 {
		testenv.Eventually(t, "the service is shown", func() bool {
			return run("cat", "upstream/keys/hostname").stdout == "cust-host"
		})
		h.Restart()
	}
}

func TestUpstreamSetting(t *testing.T) {
	bin := testenv.Binary(t, "meta9d")
	for _, addr := range []string{"tcp:localhost:1", "unix:", "/dev/ttyS1"} {
		out := run(t, bin, "", "--run", t.TempDir(), "--data", "", "--mdata-from", addr)
		if out.code != 2 || !strings.Contains(out.stderr, "it is unix:PATH or tty:PATH") {
			t.Errorf("%s: %+v", addr, out)
		}
	}
}

// A service that stands still holds up nobody: what else the same connection asks for is
// answered at once, and a Tflush ends what waits for the service.
func TestUpstreamStandsStill(t *testing.T) {
	silent, err := net.Listen("unix", filepath.Join(t.TempDir(), "s")) // whose connections nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := testenv.Start(t, daemon.Options{Memory: true, Args: []string{"--mdata-from", "unix:" + silent.Addr().String()}})
	s.NewVM(recorded, `{"uuid":"`+recorded+`","customer_metadata":{"color":"blue"}}`)
	c := s.Conn("")
	c.Timeout = 3 * time.Second // the service is given up after 5 s
	if err := c.Walk(0, 1, "vms", recorded, "keys", "color"); err != nil {
		t.Fatal(err)
	}
	if err := c.Open(1, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Walk(0, 2, "upstream", "keys"); err != nil {
		t.Fatal(err)
	}
	if err := c.Open(2, 0); err != nil {
		t.Fatal(err)
	}
	for what, frame := range map[string][]byte{
		"walk": raw.Frame(wire.Twalk, 7, uint32(0), uint32(3), []string{"upstream", "keys", "hostname"}),
		"list": raw.Frame(wire.Tread, 7, uint32(2), uint64(0), uint32(4096)),
	} {
		if err := c.Send(frame); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(1, 0, 100); err != nil || string(got) != "blue" {
			t.Fatalf("%s: meanwhile %q, %v", what, got, err)
		}
		if _, err := c.RPC(wire.Tflush, 8, uint16(7)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
