package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/tests/soak"
)

// part is a part, in the process of this test binary that run starts.
func part(t *testing.T, what string) {
	p := soak.Begin(t)
	i := p.From(10)
	p.Figure("rounds", i)
	p.Figure("seed seen", p.Seed)
	p.Figure("rounds", i+1)
	p.Stopped(i + 5)
	if what == "fail" {
		t.Fatal("as asked")
	}
	if p.Left() > time.Minute || !p.More() {
		t.Fatalf("%s left", p.Left())
	}
}

func TestRun(t *testing.T) {
	if what := os.Getenv("SOAK_TEST_PART"); what != "" {
		part(t, what)
		return
	}
	root := t.TempDir()
	e := entry{name: "x", doc: "What x is."}
	try := func(what string, want bool) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestRun$")
		t.Setenv("SOAK_TEST_PART", what)
		if err := run(root, e, cmd, time.Minute, io.Discard); (err == nil) != want {
			t.Fatalf("%s: %v", what, err)
		}
	}
	try("good", true)
	try("fail", false) // its line is there, and the next has its seed
	try("good", true)
	try("good", true)
	b, err := os.ReadFile(filepath.Join(root, "docs", "testing", "x.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "What x is.") {
		t.Errorf("no head in\n%s", b)
	}
	var got []string
	_, rows, _ := strings.Cut(string(b), head)
	for row := range strings.Lines(rows) {
		c := strings.Split(row, " | ")
		got = append(got, strings.TrimSpace(strings.Join([]string{c[1], c[2], c[4], c[5], c[6]}, ",")))
	}
	want := []string{
		"unknown,1,ok,15,rounds 11; seed seen 1 |",
		"unknown,2,FAILED,20,rounds 16; seed seen 2 |",
		"unknown,2,ok,25,rounds 21; seed seen 2 |",
		"unknown,3,ok,30,rounds 26; seed seen 3 |",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A file that somebody wrote into by hand is not gone on with by chance.
func TestStrangeLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.md")
	if err := os.WriteFile(file, []byte("# x\n\n"+head+"and so on\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := lastLine(file); err == nil {
		t.Error("no error")
	}
}

// Every soak of the list is there.
func TestList(t *testing.T) {
	for _, e := range soaks {
		cmd := exec.Command("go", "test", "-tags", "soak", "-list", "^"+e.test+"$", ".")
		cmd.Dir = filepath.Join("..", "..", "..", e.pkg)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), e.test+"\n") {
			t.Errorf("%s: %v\n%s", e.name, err, out)
		}
	}
}
