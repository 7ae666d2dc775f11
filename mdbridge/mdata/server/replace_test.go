package server_test

import (
	"fmt"
	"sync"
	"testing"

	"meta9/fs/store"
	"meta9/mdbridge/mdata/server"
)

// TestReplacedAlways gets a key while it is replaced all the time, as mv replaces
// it: it never seems to be missing.
func TestReplacedAlways(t *testing.T) {
	gets := 10_000 // by each reader
	if testing.Short() {
		gets = 2000
	}
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(`{"uuid":"` + uuid + `","customer_metadata":{"k":"value 0"}}`)
	quit := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			w.do(store.Intent{Kind: store.Put, Name: "k.new", Data: fmt.Sprint("value ", i)})
			w.do(store.Intent{Kind: store.Set, Name: "k.new", NewName: "k"})
		}
	})
	defer func() { close(quit); writer.Wait() }()
	var readers sync.WaitGroup
	for range 2 {
		c := w.client()
		readers.Go(func() {
			for range gets {
				var i int
				reply := c.ask("GET", "k")
				if _, err := fmt.Sscanf(reply, "SUCCESS value %d", &i); err != nil {
					t.Errorf("%q", reply)
					return
				}
			}
		})
	}
	readers.Wait()
}
