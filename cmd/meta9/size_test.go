package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestBinary: the host's meta9, and the smaller one that guests carry, are small, and need
// nothing else.
func TestBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("builds binaries of its own, with other flags")
	}
	for tags, most := range map[string]int64{"": 14 << 20, "guest": 10 << 20} {
		checkBinary(t, tags, most)
	}
}

// checkBinary builds meta9 with the tags, and looks at what comes; most is in bytes.
func checkBinary(t *testing.T, tags string, most int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meta9")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags="+tags, "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	i, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("tags %q: %d bytes", tags, i.Size())
	if i.Size() >= most {
		t.Errorf("meta9 with the tags %q has %d bytes, %d is too many", tags, i.Size(), most)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("meta9 with the tags %q is not static", tags)
		}
	}
}
