package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"meta9/fs/errs"
	"meta9/session/client"
)

// A key is read and written by its path. What cannot be known of a write is told.
func Example() {
	ctx := context.Background()
	c, err := client.Dial(ctx, "unix:/run/meta9/admin.sock", client.Options{User: "me"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	const key = "names/web0/keys/motd"
	switch motd, err := c.ReadFile(ctx, key); {
	case errors.Is(err, errs.NotFound):
		fmt.Println("no motd")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Printf("%s", motd)
	}
	if err := c.WriteFile(ctx, key, []byte("hello\n")); errors.Is(err, client.ErrUnknown) {
		fmt.Println("it may have been written, or not: read it again")
	}
}
