package interop

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
	"meta9/tests/certs"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// way is a channel to the keys of testenv.UUID's VM 446655440000.
type way struct {
	name, network, addr, aname string
	proved                     bool // it proves who its peer is
}

func ways(srv *testenv.Server, uuid string) []way {
	return []way{
		{"9p.sock", "unix", srv.VM(uuid), "keys", true},
		{"admin.sock", "unix", srv.Admin(), "vms/" + uuid + "/keys", true},
		{"tcp bound to the VM", "tcp", srv.TCPAddrs[0], "keys", true},
		{"tcp bound to the admin", "tcp", srv.TCPAddrs[1], "vms/" + uuid + "/keys", true},
		{"tcp", "tcp", srv.TCPAddrs[2], "keys", false},
	}
}

// TestAskForAuth lets programs that ask for authentication first do so on every
// channel but vsock, with and without a MUMBLE secret (vsock wants a guest whose host has
// vhost; cmd/meta9d has a test that hands over what a vsock listener would): diodcat and diodls (9P2000.L), and
// clients such as py9p, plan9port's and go9p (9P2000 and .u), which go on without it
// when Tauth gets an error, as attach(5) has it.
func TestAskForAuth(t *testing.T) {
	testenv.NeedDebian(t, "/usr/sbin/diodcat", "diod")
	uuid := testenv.UUID(446655440000)
	issuer := certs.New(t)
	for name, config := range map[string]string{"no secret": "", "a secret": mumbleConfig} {
		srv := testenv.Start(t, daemon.Options{
			TCP:    []string{"as=vm:" + uuid, "as=admin", ""},
			Config: config + issuer.Settings(), Args: []string{"--listen", "tls:127.0.0.1:0"},
		})
		srv.NewVM(uuid, oneLine(samplePayload(446655440000)))
		channels := append(ways(srv, uuid),
			way{"tls as the VM", "tcp", relay(t, issuer, srv, issuer.Issue(uuid)), "keys", true},
			way{"tls as the admin", "tcp", relay(t, issuer, srv, issuer.Issue(certs.Admin)), "vms/" + uuid + "/keys", true})
		for _, ch := range channels {
			t.Run(name+"/"+ch.name, func(t *testing.T) {
				ch.diod(t)
				for _, version := range []string{"9P2000", "9P2000.u"} {
					ch.asker(t, version, config != "")
				}
			})
		}
	}
}

// diod asks for Tauth, and authenticates by munge where it gets Rauth, which is not
// what meta9 takes.
func (ch way) diod(t *testing.T) {
	server := ch.addr
	if ch.network == "tcp" {
		host, port, err := net.SplitHostPort(ch.addr)
		if err != nil {
			t.Fatal(err)
		}
		server = host + ":" + port
	}
	for command, want := range map[string]string{"diodcat": "blue", "diodls": "color\nuser-script\nempty"} {
		args := []string{"-s", server, "-a", ch.aname}
		if command == "diodcat" {
			args = append(args, "color")
		}
		out, err := exec.Command("/usr/sbin/"+command, args...).CombinedOutput()
		switch {
		case ch.proved && (err != nil || strings.TrimSpace(string(out)) != want):
			t.Errorf("%s: %v, %q", command, err, out)
		case !ch.proved && err == nil:
			t.Errorf("%s got in: %q", command, out)
		}
	}
}

// asker asks for Tauth, and attaches without it where that is refused.
func (ch way) asker(t *testing.T, version string, secret bool) {
	t.Helper()
	c, err := raw.Dial(ch.network, ch.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	numbers := []any{}
	if version == "9P2000.u" {
		numbers = []any{^uint32(0)}
	}
	must := func(what string, err error, want errs.Kind) {
		t.Helper()
		var refused *raw.Error
		switch {
		case want == 0 && err == nil:
		case want == 0 || !errors.As(err, &refused) || !strings.HasPrefix(refused.Text, want.Text()):
			t.Errorf("%s: %s: %v, want %v", version, what, err, want)
		}
	}
	_, err = c.RPC(wire.Tversion, raw.NoTag, uint32(8192), version)
	must("Tversion", err, 0)
	_, err = c.RPC(wire.Tauth, 1, append([]any{uint32(1), "glenda", ""}, numbers...)...)
	if ch.proved || !secret {
		must("Tauth", err, errs.NotFound)
	} else {
		must("Tauth", err, 0)
	}
	_, err = c.RPC(wire.Tattach, 1, append([]any{uint32(0), raw.NoFid, "glenda", ch.aname}, numbers...)...)
	if !ch.proved {
		must("Tattach", err, errs.AuthFailed)
		return
	}
	must("Tattach", err, 0)
	_, err = c.RPC(wire.Twalk, 1, uint32(0), uint32(2), []string{"color"})
	must("Twalk", err, 0)
}

// TestEoxmount authenticates as Erlang on Xen's eoxmount does, which then hands the
// transport to Linux: the kernel begins with a Tversion and a Tattach of its own.
func TestEoxmount(t *testing.T) {
	uuid := testenv.UUID(446655440000)
	srv := testenv.Start(t, daemon.Options{TCP: []string{""}, Config: mumbleConfig})
	srv.NewVM(uuid, oneLine(samplePayload(446655440000)))
	for _, version := range []string{"9P2000.u", "9P2000.L", "9P2000.e"} {
		c, err := raw.Dial("tcp", srv.TCPAddrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ask := func(typ wire.Type, tag uint16, fields ...any) {
			t.Helper()
			if _, err := c.RPC(typ, tag, fields...); err != nil {
				t.Fatalf("%s: %v", version, err)
			}
		}
		numbers := []any{}
		if version != "9P2000.e" {
			numbers = []any{^uint32(0)}
		}
		message := raw.Mumble(mumbleSecret, [8]byte{}, uint32(time.Now().Unix()), 60, uuid, "nodes")
		ask(wire.Tversion, raw.NoTag, uint32(8192), version)
		ask(wire.Tauth, 1, append([]any{uint32(0), "root", "/"}, numbers...)...)
		ask(wire.Twrite, 1, uint32(0), uint64(0), raw.Data(message))
		// From here on it is the kernel's.
		ask(wire.Tversion, raw.NoTag, uint32(131072), "9P2000.L")
		ask(wire.Tattach, 0, uint32(0), raw.NoFid, "nobody", "/keys", ^uint32(0))
		ask(wire.Tgetattr, 0, uint32(0), uint64(0x3fff))
		ask(wire.Twalk, 0, uint32(0), uint32(1), []string{"color"})
	}
}
