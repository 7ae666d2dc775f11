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
	"meta9/mdbridge/vminfo"
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

// TestOneVMsChanges has one VM of 15 MiB change by 3 bytes again and again, while a
// listener does not read. It falls behind at that VM and nowhere else: when it reads, it
// gets every event of another VM, and the last state of this one.
func TestOneVMsChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("300 changes of a VM of 15 MiB: not with -short")
	}
	const keys, changes, others = 15, 300, 10
	w := newWorld(t, server.Config{}, true)
	large := w.create(`{"uuid":"` + uuidA + `"}`)
	for i := range keys {
		w.do(store.Intent{Kind: store.Put, Cell: large, Name: fmt.Sprint("k", i), Data: strings.Repeat("x", 1<<20)})
	}
	small := w.create(`{"uuid":"` + uuidB + `"}`)
	slow := w.idle()
	from := w.st.Rev()
	for i := range changes {
		w.do(store.Intent{Kind: store.Put, Cell: large, Name: "n", Data: fmt.Sprintf("%03d", i)})
		if i%(changes/others) == 0 {
			w.update(small, fmt.Sprintf(`{"n":%d}`, i))
		}
	}
	list := listOf(t, w.body("/vms"))
	check := func(what string, next func() string) {
		var told, n int
		for vms := map[string]string{}; vms[uuidA] != list[uuidA] || vms[uuidB] != list[uuidB]; n++ {
			ev, err := vminfo.ParseEvent([]byte(next()))
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if ev.Type != vminfo.Modify {
				t.Fatalf("%s: %s: %.200s", what, ev.Type, ev.Error)
			}
			vms[ev.UUID] = string(ev.VM)
			if ev.UUID == uuidB {
				told++
			}
		}
		if told != others || n-told > changes/3 {
			t.Errorf("%s: %d events of the one VM, %d of the other", what, n-told, told)
		}
	}
	check("not read", func() string {
		line, err := slow.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	})
	check("resumed", w.events(fmt.Sprintf("?since=%d", from)).next)
	if n := w.srv.Stats().Dropped; n > 0 {
		t.Errorf("%d listeners were dropped", n)
	}
}
