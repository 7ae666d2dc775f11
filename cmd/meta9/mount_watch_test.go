//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"testing"
)

// TestTransports: a connection is up until it is closed, however often that is done.
func TestTransports(t *testing.T) {
	var links transports
	fail := errors.New("nobody")
	dial := links.counted(func(context.Context) (net.Conn, error) {
		if fail != nil {
			return nil, fail
		}
		near, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		return near, nil
	})
	if _, err := dial(t.Context()); !errors.Is(err, fail) || links.up.Load() != 0 {
		t.Errorf("%d are up, %v", links.up.Load(), err)
	}
	fail = nil
	var conns [2]net.Conn
	for i := range conns {
		var err error
		if conns[i], err = dial(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	conns[0].Close()
	conns[0].Close()
	if n := links.up.Load(); n != 1 {
		t.Errorf("one is closed: %d are up", n)
	}
	conns[1].Close()
	if n := links.up.Load(); n != 0 {
		t.Errorf("both are closed: %d are up", n)
	}
}
