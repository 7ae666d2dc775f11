package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxBinary is how large meta9 may be, in bytes: guests carry it.
const maxBinary = 10 << 20

// TestBinary: what `make build` makes is small, and needs nothing else.
func TestBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a binary of its own, with other flags")
	}
	path := filepath.Join(t.TempDir(), "meta9")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	i, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if i.Size() >= maxBinary {
		t.Errorf("meta9 has %d bytes, %d is too many", i.Size(), maxBinary)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("meta9 is not static")
		}
	}
}
