package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/mdbridge/vminfo/server"
)

// TestOtherOrigins: what a browser asks for on behalf of a page of somewhere else.
func TestOtherOrigins(t *testing.T) {
	w := newWorld(t, server.Config{}, false)
	own := "http://" + w.addr()
	for _, c := range []struct {
		headers string
		code    int
	}{
		{"", 200},                         // curl, vmadm
		{"Sec-Fetch-Site: none\r\n", 200}, // typed
		{"Sec-Fetch-Site: same-origin\r\nOrigin: " + own + "\r\n", 200},
		{"Sec-Fetch-Site: cross-site\r\n", 403},
		{"Sec-Fetch-Site: same-site\r\n", 403}, // another port of this host
		{"Sec-Fetch-Site: else\r\n", 403},
		{"Origin: http://evil.example\r\n", 403},
		{"Origin: null\r\n", 403},
		{"Origin: https://" + w.addr() + "\r\n", 403},
	} {
		for _, path := range []string{"/ping", "/vms", "/events", "/status"} {
			resp := w.raw("GET " + path + " HTTP/1.1\r\nHost: " + w.addr() + "\r\n" + c.headers + "\r\n")
			if resp.StatusCode != c.code {
				t.Errorf("%s with %q: %s, want %d", path, c.headers, resp.Status, c.code)
			}
		}
	}
	if n := w.srv.Stats().Refused; n != 6*4 {
		t.Errorf("%d requests count as refused, want 24", n)
	}
}

// TestUnreadAnswers has clients ask for one large VM and not read: the bytes of one
// answer at a time are alive, and a small VM is answered beside them.
func TestUnreadAnswers(t *testing.T) {
	const clients, keys = 6, 8
	w := newWorld(t, server.Config{Limits: server.Limits{Patience: 300 * time.Millisecond}}, false)
	large := w.create(vmA)
	w.create(vmB)
	for i := range keys { // 6 bytes of JSON for each
		w.do(store.Intent{Kind: store.Put, Cell: large, Space: vm.Keys, Name: fmt.Sprint("k", i), Data: strings.Repeat("\x01", 1<<20)})
	}
	var conns []net.Conn
	for range clients {
		c, err := net.Dial("tcp", w.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "GET /vms/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", uuidA); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	ctx, stop := context.WithCancel(t.Context())
	most := make(chan uint64)
	go func() {
		var n uint64
		for ctx.Err() == nil {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			n = max(n, m.HeapAlloc)
			time.Sleep(10 * time.Millisecond)
		}
		most <- n
	}()
	w.body("/vms/" + uuidB)
	<-time.After(time.Second) // that is how long they do not read
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(soon))
		_, _ = io.Copy(io.Discard, c)
	}
	stop()
	if n := <-most; n > 200<<20 {
		t.Errorf("%d MiB are alive", n>>20)
	}
}
