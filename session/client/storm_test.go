package client_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"meta9/session/client"
	"meta9/session/wire"
)

// Under a transport that breaks at random moments, in the middle of requests and
// of replies, every answered change has happened once, and every other one is told
// to be unknown.
func TestStorm(t *testing.T) {
	for _, version := range []string{"9P2000.e", "9P2000"} {
		t.Run(version, func(t *testing.T) { storm(t, version) })
	}
}

func storm(t *testing.T, version string) {
	const writers, rounds = 8, 100
	f := newFake(t)
	f.version = version
	rng := rand.New(rand.NewPCG(9, 2000))
	f.fates = append(f.fates, func(m *wire.Msg) (fate, bool) {
		rate := 25
		if m.Type == wire.Tclunk { // every transport begins with those that the last one left
			rate = 250
		}
		if rng.IntN(rate) != 0 || m.Type == wire.Tattach {
			return serve, false
		}
		return []fate{cut, doCut, torn}[rng.IntN(3)], true
	})
	var all sync.WaitGroup
	c := f.dial(client.Options{})
	for w := range writers {
		all.Go(func() {
			for i := range rounds {
				stormRound(t, f, c, fmt.Sprintf("keys/%d-%d", w, i))
			}
		})
	}
	all.Wait()
	f.with(func() { f.fates = nil })
	f.drop()
	if _, err := c.Stat(t.Context(), "/"); err != nil {
		t.Error(err)
	}
	until(t, "no fid is left behind", func() (ok bool) {
		f.with(func() { ok = len(f.fids) == 1 })
		return ok
	})
}

// stormRound creates a file, which the server refuses to do twice, appends to it,
// and looks at what is there.
func stormRound(t *testing.T, f *fake, c *client.Client, name string) {
	ctx := t.Context()
	file, err := c.OpenFile(ctx, name, os.O_WRONLY|os.O_CREATE)
	if errors.Is(err, client.ErrUnknown) {
		return
	}
	if err != nil {
		t.Errorf("%s: create: %v", name, err)
		return
	}
	defer file.Close()
	size, doubt := 0, 0
	for range 3 {
		n, err := file.WriteAt(ctx, []byte("0123456789"), int64(size))
		size += n
		switch {
		case errors.Is(err, client.ErrUnknown):
			doubt = 10
		case err != nil || n != 10:
			t.Errorf("%s: wrote %d, %v", name, n, err)
		}
	}
	got, err := c.ReadFile(ctx, name)
	if err != nil || len(got) < size || len(got) > size+doubt {
		t.Errorf("%s: %d bytes, %v; want %d, and at most %d more", name, len(got), err, size, doubt)
	}
}
