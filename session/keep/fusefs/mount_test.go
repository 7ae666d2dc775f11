//go:build linux

package fusefs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestRefused: where fusermount refuses, it has said why itself, and no number of its is told.
func TestRefused(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "fusermount3"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	w := newWorld(t, "", false)
	if _, err := w.Mount(Options{Source: "test", Dir: t.TempDir()}); !errors.Is(err, errFusermount) {
		t.Errorf("mount: %v", err)
	}
}
