package testenv

import (
	"os"
	"path/filepath"
	"testing"

	"meta9/tests/daemon"
)

// judge is a test whose failures are another's to judge.
type judge struct {
	testing.TB
	failed int
}

func (j *judge) Errorf(string, ...any) { j.failed++ }
func (j *judge) Logf(string, ...any)   {}

// TestRaceOfKilled: a race that a meta9d has told of before it was killed is a failure.
func TestRaceOfKilled(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "meta9d")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\necho WARNING: DATA RACE >&2\necho ready\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	j := &judge{TB: t}
	s := Start(j, daemon.Options{Bin: bin})
	s.Restart()
	if j.failed != 1 {
		t.Errorf("%d failures after a kill and a start", j.failed)
	}
	s.Kill()
	s.end()
	if j.failed != 2 {
		t.Errorf("%d failures after the last kill", j.failed)
	}
}
