package fs_test

import (
	"testing"

	"meta9/fs"
	"meta9/fs/store"
)

// BenchmarkWrite is a write of 100 bytes to an open key, without a disk.
func BenchmarkWrite(b *testing.B) {
	write := keyWriter(b)
	b.ReportAllocs()
	for b.Loop() {
		write()
	}
}

// keyWriter gives a function that writes 100 bytes to an open key and waits
// until that is committed.
func keyWriter(t testing.TB) (write func()) {
	c := newWorld(t, store.Config{}).guest(vmA)
	h := c.open(fs.Write, "keys", "color")
	data := make([]byte, 100)
	done := make(chan error, 1)
	wrote := func(_ int, err error) { done <- err }
	return func() {
		h.Write(data, 0, fs.Author{By: "guest"}, wrote)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.view.Settle()
	}
}

// TestWriteAllocations holds the bar of what one write of a key may allocate, from
// the open file to its commit.
func TestWriteAllocations(t *testing.T) {
	const most = 25
	write := keyWriter(t)
	if n := testing.AllocsPerRun(1000, write); n > most {
		t.Errorf("%v allocations a write, want at most %d", n, most)
	}
}
