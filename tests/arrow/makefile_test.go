package arrow

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

// TestMakeRunsAll: each folder of tests in this module is in a target of the
// Makefile, or make test would pass without it and nobody would see.
func TestMakeRunsAll(t *testing.T) {
	root := testenv.Root(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	list := func(patterns ...string) map[string]bool {
		cmd := exec.Command("go", append([]string{"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"}, patterns...)...)
		cmd.Dir = filepath.Join(root, "tests")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list %v: %v", patterns, err)
		}
		found := map[string]bool{}
		for _, pkg := range strings.Fields(string(out)) {
			found[pkg] = true
		}
		return found
	}
	var named []string
	for line := range strings.Lines(string(makefile)) {
		if !strings.Contains(line, "cd tests") || !strings.Contains(line, "$(GOTEST)") {
			continue
		}
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "./") {
				named = append(named, word)
			}
		}
	}
	run := list(named...)
	for pkg := range list("./...") {
		if !run[pkg] {
			t.Errorf("no target of the Makefile runs the tests of %s", pkg)
		}
	}
}

// TestCheckReadsAll: make check looks at each module of the repository with each linter that
// reads tests.
func TestCheckReadsAll(t *testing.T) {
	root := testenv.Root(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, rule, _ := strings.Cut(string(makefile), "\ncheck:")
	rule, _, _ = strings.Cut(rule, "\n\n")
	list := exec.Command("git", "ls-files", "go.mod", "*/go.mod")
	list.Dir = root
	mods, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, mod := range strings.Fields(string(mods)) {
		begin := "\t"
		if dir := filepath.Dir(mod); dir != "." {
			begin = "\tcd " + dir + " && "
		}
		for _, linter := range []string{"$(GO) vet ./...", "$(STATICCHECK)", "$(INEFFASSIGN)", "$(GO) mod tidy"} {
			if !slices.ContainsFunc(strings.Split(rule, "\n"), func(line string) bool {
				line, of := strings.CutPrefix(line, begin)
				return of && strings.Contains(line, linter) && !strings.HasPrefix(line, "cd ")
			}) {
				t.Errorf("make check does not run %s where %s is", linter, mod)
			}
		}
	}
}
