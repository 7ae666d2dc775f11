package arrow

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

var (
	// treePath is a path in this repository. One that ends in a name with a capital, such
	// as session/wire.Msg, is what that room exports.
	treePath = regexp.MustCompile(`(?:^|[\s("` + "`" + `])((?:cmd|fs|session|macro|mdbridge|tests|docs|\.ci)/[A-Za-z0-9_./*-]*[A-Za-z0-9_*])`)
	exported = regexp.MustCompile(`\.[A-Z]\w*(\.\w+)*$`)
	target   = regexp.MustCompile(`\bmake ([a-z][a-z-]*)\b`)
	declared = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	soakName = regexp.MustCompile(`SOAK=([a-z0-9-]+)`)
	testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	testFunc = regexp.MustCompile(`(?m)^func (?:Test|Fuzz|Benchmark)[A-Z]\w*`)
)

// TestMentions: what the documents name is there: paths of this repository, targets of the
// Makefile where they stand as code, soaks, and tests.
func TestMentions(t *testing.T) {
	root := testenv.Root(t)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	targets := map[string]bool{}
	for _, m := range declared.FindAllStringSubmatch(read("Makefile"), -1) {
		targets[m[1]] = true
	}
	tests := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			for _, f := range testFunc.FindAllString(read(strings.TrimPrefix(path, root)), -1) {
				tests[strings.TrimPrefix(f, "func ")] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	soaks := read("tests/soak/run/soaks.go")

	pages := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md"}
	for _, pattern := range []string{"docs/*.md", "docs/testing/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range found {
			pages = append(pages, strings.TrimPrefix(page, root+"/"))
		}
	}
	seen := 0
	for _, page := range pages {
		text := read(page)
		for _, m := range treePath.FindAllStringSubmatch(text, -1) {
			seen++
			path := exported.ReplaceAllString(m[1], "")
			if !strings.Contains(path, "NAME") && !exists(root, path) && !exists(root, filepath.Dir(page), path) {
				t.Errorf("%s: there is no %s", page, m[1])
			}
		}
		for _, m := range target.FindAllStringSubmatch(codeOf(text), -1) {
			seen++
			if !targets[m[1]] {
				t.Errorf("%s: there is no make %s", page, m[1])
			}
		}
		for _, m := range soakName.FindAllStringSubmatch(text, -1) {
			seen++
			if !strings.Contains(soaks, `"`+m[1]+`"`) {
				t.Errorf("%s: there is no SOAK=%s", page, m[1])
			}
		}
		for _, name := range testName.FindAllString(text, -1) {
			seen++
			if !tests[name] {
				t.Errorf("%s: there is no test %s", page, name)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d names were looked at", seen)
	}
}

// codeOf is what stands in a document as code: in backquotes, or indented or fenced.
func codeOf(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced || strings.HasPrefix(line, "    "):
			b.WriteString(line)
		default:
			for i, part := range strings.Split(line, "`") {
				if i%2 == 1 {
					b.WriteString(part + "\n")
				}
			}
		}
	}
	return b.String()
}
