package server_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"meta9/fs/cpu"
	"meta9/fs/store"
	"meta9/mdbridge/nocloud/server"
)

const uuid = "550e8400-e29b-41d4-a716-446655440000"

// TestWaits: a connection may wait for as long as it likes for each of its requests, also
// for the first; one whose request does not come whole has ten seconds. Those that wait
// count, and end with the VM and with the server.
func TestWaits(t *testing.T) {
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`}); r.Err != nil {
		t.Fatal(r.Err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := server.New(server.Config{Store: st, Limits: server.Limits{VMConns: 2}})
		connect := func() net.Conn {
			ours, theirs := net.Pipe()
			go s.Serve(theirs, uuid)
			synctest.Wait()
			return ours
		}
		ended := func(c net.Conn) {
			t.Helper()
			_ = c.SetReadDeadline(time.Now().Add(time.Second)) // it fails where the other end is closed
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it is open still")
			}
			c.Close()
		}
		c, idle := connect(), connect()
		if n := s.Conns(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
		ended(connect()) // one too many
		in := bufio.NewReader(c)
		for i := range 2 {
			time.Sleep(time.Hour)
			if _, err := c.Write([]byte("GET /meta-data HTTP/1.1\r\nHost: 10.0.2.99\r\n\r\n")); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			r, err := http.ReadResponse(in, nil)
			if err != nil || r.StatusCode != http.StatusOK {
				t.Fatalf("reply %d: %v, %v", i, r, err)
			}
			if _, err := in.Discard(int(r.ContentLength)); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		synctest.Wait()

		half := connect()
		if _, err := half.Write([]byte("GET")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		ended(half)
		synctest.Wait()
		if n := s.Conns(); n != 1 {
			t.Errorf("%d connections, want the one that waits", n)
		}
		s.DropVM(uuid)
		ended(idle)
		last := connect()
		s.Close()
		ended(last)
		ended(connect())
		if n := s.Conns(); n != 0 {
			t.Errorf("%d connections at the end", n)
		}
	})
}

// TestRequestsCost: requests that get nothing are answered in the VM's part of the CPUs all the
// same.
func TestRequestsCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(store.NewMemory(), store.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		const other = "550e8400-e29b-41d4-a716-446655440001"
		for _, uuid := range []string{uuid, other} {
			if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`}); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		s := server.New(server.Config{Store: st})
		defer s.Close()
		ours, theirs := net.Pipe()
		go s.Serve(theirs, uuid)
		defer ours.Close()
		in := bufio.NewReader(ours)
		time.Sleep(time.Second) // the daemon's clock begins at 0, which stands for long ago
		from := time.Now()
		for range 1000 {
			var place cpu.Place // a VM that is alone need not rest
			place.Take(st.Cell(other).CPU())
			place.Give()
			if _, err := ours.Write([]byte("GET /x HTTP/1.1\r\nHost: 10.0.2.99\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			r, err := http.ReadResponse(in, nil)
			if err != nil || r.StatusCode != http.StatusNotFound {
				t.Fatal(r, err)
			}
			if _, err := in.Discard(int(r.ContentLength)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(from); took < 10*time.Millisecond {
			t.Errorf("1,000 requests took %v beside another VM", took)
		}
	})
}
