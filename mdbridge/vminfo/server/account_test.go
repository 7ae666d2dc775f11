package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"meta9/fs/budget"
	"meta9/fs/store"
	"meta9/mdbridge/vminfo/server"
)

// TestAccount: large answers to clients of the network are made only where the daemon's
// memory has room for them; small ones always. None holds anything in the end.
func TestAccount(t *testing.T) {
	b := budget.New(budget.Limits{VM: 32 << 20, Wait: 50 * time.Millisecond})
	w := newWorld(t, server.Config{Budget: b}, true)
	large := w.create(`{"uuid":"` + uuidA + `"}`)
	w.do(store.Intent{Kind: store.Put, Cell: large, Name: "k", Data: strings.Repeat("x", 1<<20)})
	w.create(`{"uuid":"` + uuidB + `"}`)
	a := b.Account("http")
	defer a.Close()
	a.Force(31 << 20)
	if r, text := w.get("/vms/" + uuidA); r.StatusCode != http.StatusServiceUnavailable || !strings.HasPrefix(text, "too many requests") {
		t.Errorf("%s %.100s", r.Status, text)
	}
	if r, text := w.get("/vms/" + uuidB); r.StatusCode != http.StatusOK {
		t.Errorf("%s %.100s", r.Status, text)
	}
	a.Release(31 << 20)
	if r, text := w.get("/vms/" + uuidA); r.StatusCode != http.StatusOK || len(text) < 1<<20 {
		t.Errorf("%s %.100s", r.Status, text)
	}
	for end := time.Now().Add(soon); a.Used() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are still held", a.Used())
		}
	}
}
