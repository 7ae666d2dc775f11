package cpu

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestReader: a Reader reads as its connection does, and its Share pays for each read that
// brings something.
func TestReader(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	pipe, other := net.Pipe()
	for _, tt := range []struct {
		name       string
		near, peer net.Conn
	}{{"a socket", socket, far}, {"a pipe", pipe, other}} {
		s := New()
		share, beside := s.Share(), s.Share()
		var place Place
		place.Take(beside)
		place.Give()
		place.Take(share) // from here on nobody is alone for a while
		place.Give()
		r := NewReader(tt.near, func() *Share { return share })
		before := share.owesUntil.Load()
		go tt.peer.Write([]byte("hello"))
		b := make([]byte, 10)
		if n, err := r.Read(b); err != nil || string(b[:n]) != "hello" {
			t.Errorf("%s: %q, %v", tt.name, b[:n], err)
		}
		if now := share.owesUntil.Load(); now <= before {
			t.Errorf("%s: nothing was paid", tt.name)
		}
		_ = tt.near.SetReadDeadline(time.Unix(1, 0))
		if _, err := r.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s, past a deadline: %v", tt.name, err)
		}
		_ = tt.near.SetReadDeadline(time.Time{})
		tt.peer.Close()
		if _, err := r.Read(b); !errors.Is(err, io.EOF) {
			t.Errorf("%s, at the end: %v", tt.name, err)
		}
		tt.near.Close()
		if _, err := r.Read(b); err == nil {
			t.Errorf("%s: a closed one is read", tt.name)
		}
		NewReader(tt.near, func() *Share { return nil }).Pay(time.Second) // whose VM is gone
	}
}
