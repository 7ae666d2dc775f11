package server_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/mdbridge/mdata"
	"meta9/mdbridge/mdata/mdatatest"
	"meta9/mdbridge/mdata/server"
)

// Our client against our server, over both kinds of line.
func TestClient(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(payload)
	host, tty := mdatatest.PTY(t)
	mdatatest.OpenRaw(t, tty)
	mdatatest.Join(t, host, w.dial())
	for _, path := range []string{w.path, tty} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		c, err := mdata.Dial(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		testClient(ctx, t, c)
		c.Close()
		cancel()
	}
}

func testClient(ctx context.Context, t *testing.T, c *mdata.Client) {
	for _, value := range []string{"", "one\n", "\x00\xff\n.\n", strings.Repeat("long", 5000)} {
		if err := c.Put(ctx, "a key", []byte(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(ctx, "a key"); err != nil || !bytes.Equal(got, []byte(value)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	keys, err := c.Keys(ctx)
	if diff := cmp.Diff([]string{"color", "a/b%", "a key", "ns:x", "a_pw"}, keys); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := c.Delete(ctx, "a key"); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(ctx, "a key"); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
	err = c.Put(ctx, "sdc:uuid", nil)
	var refusal *mdata.Refusal
	if !errors.As(err, &refusal) || refusal.Text != `Cannot update the "sdc" Namespace.` {
		t.Error(err)
	}
}
