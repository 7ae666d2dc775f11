package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"gotest.tools/gotestsum/testjson"
)

// raceReason is in the reason of a test that is skipped because the race detector
// would change what it measures.
const raceReason = "race detector"

// goTest runs go test -json and prints what go test without -json prints. Tests
// that were skipped for the race detector's sake run once more without it.
func goTest(w io.Writer, args []string) (results, error) {
	r, err := goTestOnce(w, args)
	if !slices.Contains(args, "-race") {
		return r, err
	}
	again := map[string][]string{}
	r.Skips = slices.DeleteFunc(r.Skips, func(s skip) bool {
		if !strings.Contains(s.Reason, raceReason) {
			return false
		}
		top, _, _ := strings.Cut(s.Test, "/")
		again[s.Package] = append(again[s.Package], top)
		return true
	})
	for pkg, tests := range again {
		fmt.Fprintf(w, "== without the race detector: %s %s\n", pkg, strings.Join(tests, " "))
		more, moreErr := goTestOnce(w, []string{"-count=1", "-timeout", "10m", "-run", "^(" + strings.Join(tests, "|") + ")$", pkg})
		r.add(more)
		err = errors.Join(err, moreErr)
	}
	return r, err
}

func goTestOnce(w io.Writer, args []string) (results, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return results{}, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return results{}, err
	}
	if err := cmd.Start(); err != nil {
		return results{}, err
	}
	exec, scanErr := testjson.ScanTestOutput(testjson.ScanConfig{
		Stdout: out, Stderr: stderr,
		Handler: handler{
			w: w, EventFormatter: testjson.NewEventFormatter(w, "standard-quiet", testjson.FormatOptions{}),
			last: make(map[string][]string),
		},
	})
	ran := cmd.Wait()
	if scanErr != nil {
		return results{}, errors.Join(ran, scanErr)
	}
	return resultsOf(exec), ran
}

// handler prints as it comes: a line a package, and before that of one that
// failed all that its failed tests said. Where no test failed, it is the last that the
// package said: a panic between two tests, a goroutine that TestMain found.
type handler struct {
	testjson.EventFormatter
	w    io.Writer
	last map[string][]string // by package, at most lastLines of them
}

const lastLines = 300

func (h handler) Event(event testjson.TestEvent, e *testjson.Execution) error {
	if event.Action == testjson.ActionOutput {
		lines := append(h.last[event.Package], event.Output)
		h.last[event.Package] = lines[max(0, len(lines)-lastLines):]
	}
	if event.PackageEvent() && event.Action.IsTerminal() {
		if event.Action == testjson.ActionFail {
			h.explain(e.Package(event.Package), e, h.last[event.Package])
		}
		delete(h.last, event.Package)
	}
	return h.Format(event, e)
}

func (h handler) explain(p *testjson.Package, e *testjson.Execution, last []string) {
	for _, tc := range p.Failed {
		for _, line := range e.OutputLines(tc) {
			fmt.Fprint(h.w, line)
		}
	}
	if len(p.Failed) == 0 {
		fmt.Fprint(h.w, strings.Join(last, ""))
	}
}

func (h handler) Err(text string) error {
	_, err := fmt.Fprintln(h.w, text)
	return err
}

// resultsOf counts the tests and takes what was skipped.
func resultsOf(e *testjson.Execution) (r results) {
	for _, name := range e.Packages() {
		p := e.Package(name)
		r.Passed += len(p.Passed)
		r.Failed += len(p.Failed)
		if p.Result() == testjson.ActionFail && len(p.Failed) == 0 {
			r.Failed++ // it does not build, or its TestMain failed
		}
		for _, tc := range p.Skipped {
			r.Skips = append(r.Skips, skip{tc.Package, tc.Test.Name(), reason(e.OutputLines(tc))})
		}
	}
	return r
}

// reason is what a test said before it was skipped, "file.go:1: why".
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if said == nil {
		return "(no reason given)"
	}
	return strings.Join(said, " ")
}
