package server_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/mdbridge/mdata/server"
)

// TestHandOver: connections go on in another server as if nothing had been: one in the
// middle of a line, one that does not take its replies, one that comes meanwhile; each
// request is answered once.
func TestHandOver(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(`{"uuid":"` + uuid + `","customer_metadata":{"color":"blue","big":"` + strings.Repeat("x", 50_000) + `"}}`)
	half, slow, wide := w.client(), w.client(), w.client()
	half.send("GET color\nGET co")
	if got := half.line() + half.line(); got != "SUCCESSblue" {
		t.Fatalf("got %q", got)
	}
	half.line() // "."
	const gets = 100
	for range gets {
		slow.send("GET big\n")
	}
	long := putRequest("wide", strings.Repeat("y", 200_000))
	wide.send(long[:150_000])
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := w.HandOver(ctx)
	if err != nil || len(all) != 3 {
		t.Fatalf("%d connections, %v", len(all), err)
	}
	late := w.client()
	next := server.New(server.Config{Tree: w.tree})
	t.Cleanup(func() { next.Drain(t.Context()) })
	for _, h := range all {
		go next.Adopt(h)
	}
	half.send("lor\n")
	if got := half.line() + half.line() + half.line(); got != "SUCCESSblue." {
		t.Errorf("the line that was cut gets %q", got)
	}
	wide.send(long[150_000:])
	if got := wide.line(); !strings.Contains(got, "SUCCESS") {
		t.Errorf("the long line gets %q", got)
	}
	for i := range gets {
		want := fmt.Sprint("SUCCESS", strings.Repeat("x", 50_000), ".")
		if got := slow.line() + slow.line() + slow.line(); got != want {
			t.Fatalf("reply %d has %d bytes", i, len(got))
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(all) == 3 && time.Now().Before(deadline) {
		all, _ = w.HandOver(ctx)
	}
	go next.Adopt(all[3])
	for _, h := range all {
		if h.Via != via {
			t.Errorf("a connection came by %q, %q is handed over", via, h.Via)
		}
	}
	late.send("GET color\n")
	if got := late.line(); got != "SUCCESS" {
		t.Errorf("who came late gets %q", got)
	}
	if n := next.Stats().Requests; n > gets+3 {
		t.Errorf("%d requests were answered", n)
	}
}

// TestHandOverCloses: what cannot be handed over is closed.
func TestHandOverCloses(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(`{"uuid":"` + uuid + `"}`)
	a, b := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		w.Serve(a, fs.Principal{VM: uuid}, via)
	}()
	if _, err := b.Write([]byte("KEYS\n")); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, 100)
	n, err := b.Read(reply)
	if err != nil || !bytes.HasPrefix(reply[:n], []byte("SUCCESS")) {
		t.Fatalf("%q, %v", reply[:n], err)
	}
	all, err := w.HandOver(context.Background())
	if err != nil || len(all) != 0 {
		t.Errorf("%d connections, %v", len(all), err)
	}
	<-served
}
