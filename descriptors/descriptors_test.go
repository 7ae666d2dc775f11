package descriptors_test

import (
	"crypto/tls"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"meta9/descriptors"
)

// TestCheck: a connection is refused by its number, also through TLS; a pipe in memory
// has none. That the last are kept from guests is tested from outside.
func TestCheck(t *testing.T) {
	limit, err := descriptors.Limit()
	if err != nil || limit < 2*descriptors.Reserved {
		t.Fatal(limit, err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := descriptors.Check(f); err != nil {
		t.Errorf("descriptor %d of %d: %v", f.Fd(), limit, err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := descriptors.Check(tls.Server(a, nil)); err != nil {
		t.Error(err)
	}
	last := dupTo(t, f, int(limit)-descriptors.Reserved)
	defer last.Close()
	if err := descriptors.Check(last); err != descriptors.ErrReserved {
		t.Errorf("the first of the last %d: %v", descriptors.Reserved, err)
	}
	before := dupTo(t, f, int(limit)-descriptors.Reserved-1)
	defer before.Close()
	if err := descriptors.Check(before); err != nil {
		t.Errorf("the one before: %v", err)
	}
}

// dupTo is f again, under a number.
func dupTo(t *testing.T, f *os.File, number int) *os.File {
	t.Helper()
	if err := unix.Dup2(int(f.Fd()), number); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(number), "dup")
}
