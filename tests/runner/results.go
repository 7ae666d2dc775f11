package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// results are those of one or more runs of go test.
type results struct {
	Passed, Failed int // tests and subtests
	Skips          []skip
}

// skip is a test that was skipped.
type skip struct{ Package, Test, Reason string }

func (r *results) add(o results) {
	r.Passed += o.Passed
	r.Failed += o.Failed
	r.Skips = append(r.Skips, o.Skips...)
}

// empty tells that no run has given results.
func (r *results) empty() bool { return r.Passed+r.Failed+len(r.Skips) == 0 }

// save writes the results to a new file in dir.
func (r results) save(dir string) error {
	f, err := os.CreateTemp(dir, "results-*.json")
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(f).Encode(r), f.Close())
}

// loadResults adds up all files in dir.
func loadResults(dir string) (all results, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "results-*.json"))
	if err != nil {
		return all, err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return all, err
		}
		var r results
		if err := json.Unmarshal(b, &r); err != nil {
			return all, fmt.Errorf("%s: %w", file, err)
		}
		all.add(r)
	}
	return all, nil
}

// summary prints each skip and the counts. A skip that is not allowed is an error.
func (r results) summary(w io.Writer, allowed []skip) error {
	bad := 0
	if len(r.Skips) > 0 {
		fmt.Fprintln(w, "== skipped")
	}
	for _, s := range r.Skips {
		note := ""
		if !s.allowed(allowed) {
			note = " (NOT ALLOWED: not in tests/runner/skips.txt)"
			bad++
		}
		fmt.Fprintf(w, "  %s %s: %s%s\n", s.Package, s.Test, s.Reason, note)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", r.Passed, r.Failed, len(r.Skips))
	if bad > 0 {
		return fmt.Errorf("%d tests were skipped that may not be: nothing is skipped silently", bad)
	}
	return nil
}

// needsRoot begins the reason of a test that only root can run. Whoever is not
// root sees it skipped; CI is root.
const needsRoot = "needs root"

// allowed tells whether a test may be skipped for its reason.
func (s skip) allowed(list []skip) bool {
	if os.Geteuid() != 0 && strings.Contains(s.Reason, ": "+needsRoot) {
		return true
	}
	for _, a := range list {
		if s.Package == a.Package && s.Test == a.Test && strings.Contains(s.Reason, a.Reason) {
			return true
		}
	}
	return false
}

// maxSkips is how long the list may be. Who wants to add a fifth finds a way to
// run one of the four.
const maxSkips = 4

//go:embed skips.txt
var skipsText string

func allowedSkips() ([]skip, error) { return parseSkips(skipsText) }

// parseSkips reads a list: a package, a test and a part of its reason a line.
func parseSkips(text string) (list []skip, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, " ", 3)
		if len(f) < 3 {
			return nil, fmt.Errorf("skips.txt: %q is no PACKAGE TEST REASON", line)
		}
		list = append(list, skip{f[0], f[1], f[2]})
	}
	if len(list) > maxSkips {
		return nil, fmt.Errorf("skips.txt: %d tests may be skipped, %d is the most", len(list), maxSkips)
	}
	return list, nil
}
