package server

import (
	"net"
	"os"
	"strings"
	"testing"
)

// TestAdmits: whom a listener takes a request for, by where it listens.
func TestAdmits(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for at, hosts := range map[string]struct{ in, out []string }{
		"127.0.0.1:9090": {
			[]string{"", "localhost", "127.0.0.1:9090", "127.1.2.3", "[::1]:9090"},
			[]string{name, "10.0.2.2:9090", "192.0.2.7", "localhost.evil.example", "[fe80::1%25eth0]"},
		},
		"192.0.2.7:9090": {
			[]string{"192.0.2.7", "192.0.2.7:80", "[::ffff:192.0.2.7]:9090", name, strings.ToUpper(name) + ":9090"},
			[]string{"192.0.2.8", "127.0.0.1", name + ".evil.example", "x" + name},
		},
		"[::]:9090": {
			[]string{"192.0.2.7", "[2001:db8::1]:9090", "10.0.2.2", name, "localhost"},
			[]string{"evil.example", name + ".evil.example"},
		},
	} {
		addr, err := net.ResolveTCPAddr("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		a := Access{Addr: addr}
		for _, host := range hosts.in {
			if !a.admits(host) {
				t.Errorf("%s refuses %q", at, host)
			}
		}
		for _, host := range hosts.out {
			if a.admits(host) {
				t.Errorf("%s admits %q", at, host)
			}
		}
	}
	if unix := (Access{Addr: &net.UnixAddr{Name: "s"}}); !unix.admits("any.name") {
		t.Error("a unix socket refuses a name")
	}
}
