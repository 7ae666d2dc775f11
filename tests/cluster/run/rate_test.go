package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWriteRate has guests write much more than they may (cluster.write_rate). They wait, and get
// no error; another VM's guest and the admin do not wait; and neither a VM's move nor the end of
// its host does: that ends what the guest has begun.
func TestWriteRate(t *testing.T) {
	dir := folder(t)
	e := started(t, dir)
	settings := e.settingsOf(t, dir) + "write_rate = \"64KiB\"\n" // 4 MiB at once, then 1 MiB in 16 s
	a, b := begin(t, dir, "a", settings), begin(t, dir, "b", settings)
	for _, h := range []*proc{a, b} {
		h.until("fleet_etcd ok", "cat", "/ctl")
	}
	const moves, stays, calm = "550e8400-e29b-41d4-a716-000000000001", "550e8400-e29b-41d4-a716-000000000002", "550e8400-e29b-41d4-a716-000000000003"
	for _, uuid := range []string{moves, stays, calm} {
		a.create(`{"uuid":"` + uuid + `"}`)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	put := func(uuid, value string) error {
		c := exec.CommandContext(ctx, filepath.Join(bin, "meta9"), "--timeout", "0", "--addr", "unix:"+filepath.Join(a.run, uuid, "9p.sock"), "put", "keys/k")
		c.Stdin = strings.NewReader(value)
		if said, err := c.CombinedOutput(); err != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("the guest of %s: %w, %s", uuid, err, said))
		}
		return nil
	}
	// fill begins writes of 16 MiB, which take minutes.
	const writers = 16
	fill := func(uuid string) chan error {
		all := make(chan error, writers)
		for range writers {
			go func() { all <- put(uuid, strings.Repeat("x", 1<<20)) }()
		}
		select {
		case err := <-all:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("not even a first write is done")
		}
		return all
	}
	// over is what must not take as long as the guest waits.
	over := func(what string, from time.Time) {
		t.Helper()
		if d := time.Since(from); d > time.Minute {
			t.Errorf("%s took %v", what, d)
		}
		t.Logf("%s: %v", what, time.Since(from))
	}

	waiting := fill(moves)
	staying := fill(stays)
	from := time.Now()
	if err := put(calm, "v"); err != nil {
		t.Error(err)
	}
	a.must("put", "/vms/"+moves+"/keys/host", "v")
	over("what others write", from)
	if n := len(waiting); n > writers/2 {
		t.Errorf("%d of %d writes have not waited", n+1, writers)
	}
	from = time.Now()
	b.must("fleet", "claim", moves)
	over("the VM's move", from)
	for range writers - 1 {
		select {
		case err := <-waiting:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("a write that was begun before the VM's move does not end")
		}
	}
	over("the move, and the end of what was begun", from)
	if n := len(staying); n > writers/2 {
		t.Errorf("%d of %d writes have not waited", n+1, writers)
	}
	from = time.Now()
	if code, log := a.stop(); code != 0 || strings.Contains(log, "not all connections ended") {
		t.Errorf("exit %d\n%s", code, log)
	}
	over("the host's end", from)
	cancel() // the others would wait for the host
	for range writers - 1 {
		if err := <-staying; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
