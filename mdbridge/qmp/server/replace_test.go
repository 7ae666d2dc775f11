package server

import (
	"fmt"
	"sync"
	"testing"

	"meta9/fs/store"
)

// TestReplacedAlways gets a key while it is replaced all the time, as mv replaces it: it
// never seems to be missing.
func TestReplacedAlways(t *testing.T) {
	w := newWorld(t, Config{})
	cell := w.vm(`{"uuid":"` + uuid1 + `","customer_metadata":{"k":"value 0"}}`)
	quit := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			w.do(store.Intent{Kind: store.Put, Cell: cell, Name: "k.new", Data: fmt.Sprint("value ", i)})
			w.do(store.Intent{Kind: store.Set, Cell: cell, Name: "k.new", NewName: "k"})
		}
	})
	defer func() { close(quit); writer.Wait() }()
	c := w.dial()
	for range 3000 {
		var i int
		reply := c.ask(`{"execute": "metadata-get", "arguments": {"uuid": "` + uuid1 + `", "space": "keys", "key": "k"}}`)
		if _, err := fmt.Sscanf(reply, `{"return": {"encoding":"utf8","value":"value %d"`, &i); err != nil {
			t.Fatal(reply)
		}
	}
}
