package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// module makes a module with a package of tests, which the test is in then.
func module(t *testing.T, source string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"go.mod": "module m\n\ngo 1.26\n", "m_test.go": "package m\n\n" + source} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCounts(t *testing.T) {
	module(t, `import "testing"
		func TestGood(t *testing.T) { t.Run("sub", func(t *testing.T) {}) }
		func TestSkipped(t *testing.T) { t.Log("tried"); t.Skip("because", 7) }
		func TestSilent(t *testing.T) { t.SkipNow() }`)
	r, err := goTest(io.Discard, []string{"-count=1", "./..."})
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed != 2 || r.Failed != 0 || len(r.Skips) != 2 {
		t.Fatalf("got %+v", r)
	}
	var out bytes.Buffer
	err = r.summary(&out, []skip{{"m", "TestSkipped", "because"}})
	if err == nil || !strings.Contains(err.Error(), "1 tests were skipped that may not be") {
		t.Errorf("an unknown skip: %v", err)
	}
	for _, want := range []string{
		"m TestSkipped: m_test.go:5: tried m_test.go:5: because 7\n",
		"m TestSilent: (no reason given) (NOT ALLOWED",
		"\n2 passed, 0 failed, 2 skipped\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if err := r.summary(&out, []skip{{"m", "TestSkipped", "because"}, {"m", "TestSilent", ""}}); err != nil {
		t.Errorf("allowed skips: %v", err)
	}
	if err := r.summary(&out, []skip{{"m", "TestSkipped", "another reason"}, {"m", "TestSilent", ""}}); err == nil {
		t.Error("a skip for another reason than the allowed one passes")
	}
}

// A failure, a panic, and a package that does not build are all failures.
func TestFailures(t *testing.T) {
	for want, source := range map[string]string{
		"m_test.go:3: bad":   `import "testing"; func TestBad(t *testing.T) { t.Fatal("bad") }`,
		"panic: bad":         `import "testing"; func TestBad(t *testing.T) { panic("bad") }`,
		"leaks":              `import ("fmt"; "os"; "testing"); func TestMain(m *testing.M) { fmt.Println("leaks"); os.Exit(3) }`,
		"undefined: testing": `func TestBad(t *testing.T) {}`,
	} {
		t.Run(want, func(t *testing.T) {
			module(t, source)
			var out bytes.Buffer
			r, err := goTest(&out, []string{"-count=1", "./..."})
			if err == nil || r.Failed == 0 || !strings.Contains(out.String(), "FAIL\tm") || !strings.Contains(out.String(), want) {
				t.Errorf("got %+v, %v\n%s", r, err, out.String())
			}
		})
	}
}

// What the race detector has skipped has to pass without it.
func TestRaceAgain(t *testing.T) {
	const source = `import "testing"
		func TestOther(t *testing.T) { t.Fatal("not asked for again") }
		func TestMemory(t *testing.T) { if race { t.Skip("the race detector allocates") }; if BAD { t.Fatal("too much") } }`
	for _, bad := range []string{"false", "true"} {
		module(t, strings.ReplaceAll(strings.Replace(source, `t.Fatal("not asked for again")`, `if !race { t.Fatal("again") }`, 1), "BAD", bad))
		for tag, value := range map[string]string{"race": "true", "!race": "false"} {
			file := "race_" + strings.Trim(tag, "!") + value + "_test.go"
			if err := os.WriteFile(file, []byte("//go:build "+tag+"\n\npackage m\n\nconst race = "+value+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r, err := goTest(io.Discard, []string{"-race", "-count=1", "./..."})
		switch {
		case bad == "false" && (err != nil || r.Passed != 2 || len(r.Skips) != 0):
			t.Errorf("got %+v, %v", r, err)
		case bad == "true" && (err == nil || r.Failed != 1):
			t.Errorf("a failure without the race detector: %+v, %v", r, err)
		}
	}
}

// The sections end with the first that fails, and the summary is of all runs.
func TestSections(t *testing.T) {
	t.Chdir(t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	makefile := "SELF=" + self + `
one two:
	@echo '{"Passed":3,"Failed":0,"Skips":[]}' >$$META9_TEST_RESULTS/results-$@.json
bad:
	@echo '{"Passed":0,"Failed":1,"Skips":[{"Package":"p","Test":"T","Reason":"why"}]}' >$$META9_TEST_RESULTS/results-$@.json; false
`
	if err := os.WriteFile("Makefile", []byte(makefile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := sections([]string{"one", "two"}); err != nil {
		t.Error(err)
	}
	err = sections([]string{"one", "bad", "two"})
	if err == nil || !strings.Contains(err.Error(), "make bad") || !strings.Contains(err.Error(), "1 tests were skipped") {
		t.Errorf("got %v", err)
	}
}

// The list is short, and of tests that there are.
func TestList(t *testing.T) {
	list, err := allowedSkips()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		top, _, _ := strings.Cut(s.Test, "/")
		cmd := exec.Command("go", "test", "-list", "^"+top+"$", s.Package)
		if strings.HasPrefix(s.Package, "meta9/tests/") {
			cmd.Dir = ".."
		} else {
			cmd.Dir = filepath.Join("..", "..")
		}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), top+"\n") {
			t.Errorf("%v: %v\n%s", s, err, out)
		}
	}
	if _, err := parseSkips("a b c\na b d\na b e\na b f\na b g\n"); err == nil {
		t.Error("five are taken")
	}
	if _, err := parseSkips("a b\n"); err == nil {
		t.Error("a line without a reason is taken")
	}
}
