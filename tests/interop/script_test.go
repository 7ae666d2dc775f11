package interop

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// script is a client at work and what must come of it.
type script struct {
	t       *testing.T
	c       client
	network string
}

func (s script) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// refused wants an error that has the text in it.
func (s script) refused(what, text string, err error) {
	s.t.Helper()
	if err == nil {
		s.t.Errorf("%s: no error", what)
	} else if !strings.Contains(err.Error(), text) {
		s.t.Errorf("%s: error %q, want %q in it", what, err, text)
	}
}

func (s script) value(path, want string) {
	s.t.Helper()
	got, err := s.c.read(path)
	s.must("read "+path, err)
	if got != want {
		s.t.Fatalf("%s: %d bytes %.60q, want %d bytes %.60q", path, len(got), got, len(want), want)
	}
}

func (s script) names(dir string, want ...string) {
	s.t.Helper()
	got, err := s.c.list(dir)
	s.must("list "+dir, err)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Fatalf("names in %q (-want +got):\n%s", dir, diff)
	}
}

func (s script) length(path string, want uint64) {
	s.t.Helper()
	got, err := s.c.stat(path)
	s.must("stat "+path, err)
	name := path[strings.LastIndex(path, "/")+1:]
	if diff := cmp.Diff(fmt.Sprint(info{name, want, false}), fmt.Sprint(got)); diff != "" {
		s.t.Fatalf("stat %s (-want +got):\n%s", path, diff)
	}
}

// large is a value of more than one message of any client.
var large = strings.Repeat("0123456789abcde\n", 300<<10/16)

// steps is the script: what every client must be able to do, by the names under
// which a client's kind may say that it cannot.
var steps = []struct {
	name string
	do   func(s script)
}{
	{"list", func(s script) {
		s.names("keys", "color", "empty", "user-script")
	}},
	{"guest", func(s script) { // the channel says who is there, not the client
		if s.network == "tcp" {
			return // the admin's, here
		}
		s.names("internal", "root_pw")
		s.value("internal/root_pw", "secret")
		_, err := s.c.read("internal/operator-script")
		s.refused("read what is not a guest's", "", err)
		_, err = s.c.list("vms")
		s.refused("list what is the admin's", "", err)
	}},
	{"read", func(s script) {
		s.value("keys/color", "blue")
		s.value("keys/empty", "")
		s.value("sdc/alias", "web0")
	}},
	{"stat", func(s script) {
		s.length("keys/color", 4)
		d, err := s.c.stat("keys")
		s.must("stat keys", err)
		if !d.dir || d.name != "keys" {
			s.t.Errorf("stat keys: %+v", d)
		}
	}},
	{"write", func(s script) {
		s.must("write", s.c.write("keys/color", "red"))
		s.value("keys/color", "red")
		s.must("write", s.c.write("keys/color", large))
		s.value("keys/color", large)
		s.must("write nothing", s.c.write("keys/color", ""))
		s.value("keys/color", "")
	}},
	{"create", func(s script) {
		s.must("create", s.c.create("keys/new key", "a\x00b\n"))
		s.value("keys/new key", "a\x00b\n")
		s.must("create", s.c.create("keys/ключ%2F", "escaped"))
		s.names("keys", "color", "empty", "new key", "user-script", "ключ%2F")
		s.refused("create what is derived", "", s.c.create("sdc/mine", "x"))
	}},
	{"rename", func(s script) {
		s.must("rename", s.c.rename("keys/new key", "newer"))
		s.value("keys/newer", "a\x00b\n")
		s.must("rename over", s.c.rename("keys/newer", "empty"))
		s.value("keys/empty", "a\x00b\n")
		s.names("keys", "color", "empty", "user-script", "ключ%2F")
	}},
	{"truncate", func(s script) {
		s.must("write", s.c.write("keys/color", "turquoise"))
		s.must("truncate", s.c.truncate("keys/color", 5))
		s.value("keys/color", "turqu")
		s.must("truncate", s.c.truncate("keys/color", 7))
		s.value("keys/color", "turqu\x00\x00")
		s.must("truncate", s.c.truncate("keys/color", 0))
		s.length("keys/color", 0)
	}},
	{"append", func(s script) {
		s.must("append", s.c.appendTo("keys/log", "one\n", "two\n", "three\n"))
		s.value("keys/log", "one\ntwo\nthree\n")
		s.must("remove", s.c.remove("keys/log"))
	}},
	{"remove", func(s script) {
		s.must("remove", s.c.remove("keys/ключ%2F"))
		s.names("keys", "color", "empty", "user-script")
		s.refused("remove what is derived", "", s.c.remove("sdc/alias"))
		_, err := s.c.read("keys/ключ%2F")
		s.refused("read what was removed", "", err)
	}},
}

// samplePayload makes VM n.
func samplePayload(n int) string {
	return fmt.Sprintf(`{"uuid":%q,"alias":"web%d","ram":1024,"owner_uuid":"930896af-bf8c-48d4-885c-6573a94b1853",
"customer_metadata":{"color":"blue","user-script":"#!/bin/sh\necho hello\n","empty":""},
"internal_metadata":{"root_pw":"secret","operator-script":"#!/bin/sh\n"}}`, testenv.UUID(n), n)
}

func oneLine(payload string) string { return strings.ReplaceAll(payload, "\n", " ") }

// TestClients runs the script with every client over both transports. Every
// run has a VM of its own.
func TestClients(t *testing.T) {
	srv := testenv.Start(t, daemon.Options{TCP: []string{"as=admin"}})
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			for j, network := range []string{"unix", "tcp"} {
				n := 10 * (2*i + j)
				payload := strings.Replace(oneLine(samplePayload(n)), fmt.Sprintf(`"web%d"`, n), `"web0"`, 1)
				t.Run(network, func(t *testing.T) {
					srv.NewVM(testenv.UUID(n), payload)
					defer srv.Ctl("delete " + testenv.UUID(n)) // the alias is free again
					addr, aname := srv.VM(testenv.UUID(n)), ""
					if network == "tcp" {
						addr, aname = srv.TCPAddrs[0], "vms/"+testenv.UUID(n)
					}
					runScript(t, k, network, addr, aname)
				})
			}
		})
	}
}

func runScript(t *testing.T, k kind, network, addr, aname string) {
	c, err := k.dial(network, addr, aname)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, step := range steps {
		if why, ok := k.cannot[step.name]; ok {
			t.Logf("%s cannot %s: %s", k.name, step.name, why)
			continue
		}
		step.do(script{t, c, network})
		if t.Failed() {
			t.Fatalf("failed at %q", step.name)
		}
	}
}
