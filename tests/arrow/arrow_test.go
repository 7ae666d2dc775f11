// Package arrow holds the product's packages to docs/architecture.md: arrows point
// down only, and each foreign module stays in the room that it was let into.
package arrow

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

// rooms are the packages and what of the product each may import, most special
// first; a name stands for the packages below it, too.
var rooms = []struct {
	room  string
	below []string
}{
	{"backoff", nil},
	{"rarelog", nil},
	{"descriptors", nil},
	{"fs/errs", nil},
	{"fs/ring", nil},
	{"fs/cpu", nil},
	{"fs/vm/ordjson", []string{"fs/errs"}},
	{"fs/vm/payload", []string{"fs/errs", "fs/vm"}},
	{"fs/vm/render", []string{"fs/vm"}},
	{"fs/vm/vmtest", []string{"fs/errs", "fs/vm"}},
	{"fs/vm", []string{"fs/errs", "fs/vm/ordjson"}},
	{"fs/store/bolt", []string{"fs/errs", "fs/vm", "fs/store"}},
	{"fs/store/etcd", []string{"rarelog", "fs/errs", "fs/store"}},
	{"fs/store/storetest", []string{"fs/errs", "fs/vm", "fs/store"}},
	{"fs/backup", nil},
	{"fs/store", []string{"rarelog", "fs/backup", "fs/errs", "fs/cpu", "fs/ring", "fs/vm"}},
	{"fs/budget", []string{"fs/errs"}},
	{"fs", []string{"fs"}},
	{"macro", []string{"fs"}},
	{"session/wire", []string{"fs/errs"}},
	{"session/mumble", []string{"fs/errs"}},
	{"session/auth", []string{"fs", "session/mumble"}},
	{"session/packet", []string{"fs/errs"}},
	{"session/listen", []string{"backoff", "rarelog", "descriptors", "fs", "session/packet"}},
	{"session/redial", []string{"backoff", "fs/errs", "session/wire", "session/mumble", "session/redial"}},
	{"session/client/eventtest", []string{"session/client"}},
	{"session/client", []string{"fs/errs", "session/wire", "session/packet", "session/redial"}},
	{"session/keep/fusefs", []string{"backoff", "fs/errs", "fs/vm", "session/wire", "session/redial", "session/keep"}},
	{"session/keep", []string{"fs/errs", "session/wire", "session/redial"}},
	{"session/posix", []string{"fs"}},
	{"session/p9fs", []string{"fs", "session/posix"}},
	{"session/residence", []string{"fs", "session"}},
	{"session/fleet", []string{"fs", "session"}},
	{"session", []string{"rarelog", "fs", "macro", "session/wire", "session/mumble", "session/auth", "session/packet", "session/posix"}},
	{"mdbridge/*/server", []string{"backoff", "rarelog", "fs", "macro", "mdbridge"}},
	{"mdbridge/qmp/hosts", []string{"backoff", "rarelog", "descriptors", "fs", "mdbridge"}},
	{"mdbridge", []string{"fs/errs", "fs/vm", "mdbridge"}},
	{"cmd", []string{"backoff", "rarelog", "descriptors", "fs", "macro", "session", "mdbridge", "cmd"}},
}

// guests are what only some rooms may import: foreign modules, and rooms of ours
// that are not for all who stand above them.
var guests = map[string][]string{
	"github.com/google/btree":         {"fs/store"},
	"github.com/hashicorp/go-memdb":   {"fs/store"},
	"go.etcd.io/bbolt":                {"fs/store/bolt"},
	"go.etcd.io/etcd":                 {"fs/store/etcd"},
	"go.uber.org/zap":                 {"fs/store/etcd"},
	"google.golang.org/grpc":          {"fs/store/etcd"},
	"github.com/prometheus":           {"cmd"},
	"github.com/BurntSushi/toml":      {"cmd"},
	"github.com/spf13/cobra":          {"cmd"},
	"github.com/hanwen/go-fuse":       {"session/keep/fusefs"},
	"meta9/session/listen":            {"cmd"},
	"meta9/fs/store/bolt":             {"cmd"},
	"meta9/fs/store/storetest":        {},
	"meta9/session/redial/redialtest": {},
	"meta9/session/fleet/fleettest":   {},
	"meta9/session/listen/certtest":   {},
	"meta9/session/client/eventtest":  {},
}

// within tells whether path is room or below it; a * in room is one element.
func within(path, room string) bool {
	p, r := strings.Split(path, "/"), strings.Split(room, "/")
	if len(p) < len(r) {
		return false
	}
	for i := range r {
		if r[i] != "*" && r[i] != p[i] {
			return false
		}
	}
	return true
}

func withinAny(path string, of []string) bool {
	return slices.ContainsFunc(of, func(room string) bool { return within(path, room) })
}

// verdict says what is wrong with one import, or nothing.
func verdict(pkg, imported string) string {
	from := strings.TrimPrefix(pkg, "meta9/")
	for guest, hosts := range guests {
		if within(imported, guest) && !within(pkg, guest) && !withinAny(from, hosts) {
			return fmt.Sprintf("%s imports %s, which is only for %v", pkg, imported, hosts)
		}
	}
	to, ours := strings.CutPrefix(imported, "meta9/")
	if !ours {
		return ""
	}
	for _, r := range rooms {
		if !within(from, r.room) {
			continue
		}
		if !withinAny(to, r.below) {
			return fmt.Sprintf("%s imports %s; below it stand %v", pkg, imported, r.below)
		}
		return ""
	}
	return pkg + " is in no room"
}

// golist runs go list in the product's module.
func golist(t *testing.T, args ...string) string {
	t.Helper()
	root := testenv.Root(t)
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return string(out)
}

func TestArrows(t *testing.T) {
	list := golist(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	seen := 0
	for line := range strings.Lines(list) {
		names := strings.Fields(line)
		for _, imported := range names[1:] {
			seen++
			if wrong := verdict(names[0], imported); wrong != "" {
				t.Error(wrong)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d imports looked at", seen)
	}
}

// TestSmallClient: meta9 goes into guests, so it links no store.
func TestSmallClient(t *testing.T) {
	forbidden := []string{"meta9/fs/store", "meta9/mdbridge/libvirt", "github.com/google/btree", "github.com/hashicorp/go-memdb", "go.etcd.io", "google.golang.org/grpc", "github.com/prometheus"}
	for dep := range strings.Lines(golist(t, "-deps", "./cmd/meta9")) {
		if dep = strings.TrimSpace(dep); withinAny(dep, forbidden) {
			t.Errorf("cmd/meta9 links %s", dep)
		}
	}
}

// TestNoForeignModules: the clients and servers of others are for this nested
// module only.
func TestNoForeignModules(t *testing.T) {
	root := testenv.Root(t)
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	foreign := []string{
		"9fans.net", "aqwari.net", "github.com/Harvey-OS", "github.com/digitalocean", "github.com/docker", "github.com/kennylevinsen",
		"github.com/knusbaum", "github.com/lionkov", "go.etcd.io/etcd/server",
	}
	for _, r := range mod.Require {
		if withinAny(r.Path, foreign) {
			t.Errorf("the product's go.mod requires %s", r.Path)
		}
	}
}

// TestVerdict shows that the rules can be broken.
func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		pkg, imported string
		good          bool
	}{
		{"meta9/fs", "meta9/fs/store", true},
		{"meta9/fs", "meta9/session/wire", false},
		{"meta9/fs/store", "meta9/fs", false},
		{"meta9/fs/vm", "meta9/fs/vm/payload", false},
		{"meta9/fs/vm/payload", "meta9/fs/vm", true},
		{"meta9/fs/vm/ordjson", "meta9/fs/vm", false},
		{"meta9/fs/store", "meta9/fs/store/bolt", false},
		{"meta9/fs/store", "github.com/google/btree", true},
		{"meta9/fs/store", "github.com/hashicorp/go-memdb", true},
		{"meta9/fs/store", "go.etcd.io/bbolt", false},
		{"meta9/fs", "meta9/fs/store/bolt", false},
		{"meta9/cmd/meta9d", "meta9/fs/store/bolt", true},
		{"meta9/fs/store/etcd", "go.etcd.io/etcd/client/v3", true},
		{"meta9/cmd/meta9d", "go.etcd.io/etcd/client/v3", false},
		{"meta9/fs/store/bolt", "go.etcd.io/bbolt/errors", true},
		{"meta9/macro", "meta9/session", false},
		{"meta9/session", "meta9/session/listen", false},
		{"meta9/session", "meta9/mdbridge/mdata", false},
		{"meta9/session/client", "meta9/fs/store", false},
		{"meta9/mdbridge/mdata", "meta9/fs/store", false},
		{"meta9/mdbridge/mdata/server", "meta9/macro", true},
		{"meta9/mdbridge/mdata/server", "meta9/session", false},
		{"meta9/cmd/meta9d", "meta9/session/listen", true},
		{"meta9/session", "meta9/cmd/meta9d", false},
		{"meta9/fs", "github.com/prometheus/client_golang/prometheus", false},
		{"meta9/stray", "meta9/fs", false},
		{"meta9/fs", "strings", true},
	} {
		if wrong := verdict(tt.pkg, tt.imported); (wrong == "") != tt.good {
			t.Errorf("%s -> %s: %q", tt.pkg, tt.imported, wrong)
		}
	}
}
