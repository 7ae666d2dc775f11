// Package p9fs shows how a Go program serves a VM's keys with hugelgupf/p9, and how it
// reads them: package session/p9fs between p9's Server or File and the tree.
package p9fs_test

import (
	"fmt"
	"net"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/session/p9fs"
)

const uuid = "550e8400-e29b-41d4-a716-446655440000"

// A store in memory, a VM in it, and p9's Server and Client over a pipe.
func Example() {
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		panic(err)
	}
	defer st.Close()
	tree := fs.New(st, fs.Config{})
	payload := `{"uuid": "` + uuid + `", "customer_metadata": {"motd": "hello"}}`
	if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: payload}); r.Err != nil {
		panic(r.Err)
	}

	client, server := net.Pipe()
	defer client.Close()
	go p9.NewServer(p9fs.New(tree, fs.Principal{VM: uuid})).Handle(server, server)

	c, err := p9.NewClient(client)
	if err != nil {
		panic(err)
	}
	root, err := c.Attach("/")
	if err != nil {
		panic(err)
	}
	_, motd, err := root.Walk([]string{"keys", "motd"})
	if err != nil {
		panic(err)
	}
	if _, _, err := motd.Open(p9.ReadWrite); err != nil {
		panic(err)
	}
	if _, err := motd.WriteAt([]byte("!"), 5); err != nil { // durable when it returns
		panic(err)
	}
	value := make([]byte, 64)
	n, err := motd.ReadAt(value, 0)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", value[:n])
	// Output: hello!
}
