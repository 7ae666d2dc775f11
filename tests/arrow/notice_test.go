package arrow

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

// TestNotice: NOTICE names exactly the modules under the Mozilla Public License
// that the programs link, since that license wants their source to be named.
func TestNotice(t *testing.T) {
	root := testenv.Root(t)
	notice, err := os.ReadFile(filepath.Join(root, "NOTICE"))
	if err != nil {
		t.Fatal(err)
	}
	var named, linked []string
	for line := range strings.Lines(string(notice)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "  ") && len(f) > 0 {
			named = append(named, f[0])
		}
	}
	modules := golist(t, "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", "./cmd/...")
	for line := range strings.Lines(modules) {
		f := strings.Fields(line)
		if len(f) != 2 || slices.Contains(linked, f[0]) {
			continue
		}
		if mozilla(t, f[1]) {
			linked = append(linked, f[0])
		}
	}
	slices.Sort(named)
	slices.Sort(linked)
	if !slices.Equal(named, linked) {
		t.Errorf("NOTICE names %v, the programs link %v", named, linked)
	}
}

// mozilla tells whether a module's license file is the Mozilla Public License.
func mozilla(t *testing.T, dir string) bool {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "[LC][IO][CP]*"))
	if len(files) == 0 {
		t.Errorf("%s has no license file", dir)
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && bytes.Contains(b, []byte("Mozilla Public License")) {
			return true
		}
	}
	return false
}
