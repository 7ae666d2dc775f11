package mdata

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// ninep is a 9P2000.e connection of the guest's; fid 0 is its folder.
func (h host) ninep() *raw.Conn {
	h.t.Helper()
	c, err := raw.Dial("unix", h.VM(recorded))
	if err == nil {
		err = daemon.Hello(c, "9P2000.e", "")
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// A PUT by the protocol ends a 9P client's wait for an event; a write by 9P is what
// the next GET answers.
func TestPutWakesReader(t *testing.T) {
	h := newHost(t, "")
	reader, writer, c := h.ninep(), h.ninep(), h.client()
	if err := errors.Join(reader.Walk(0, 1, "events"), reader.Open(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := reader.Send(raw.Frame(wire.Tread, 1, uint32(1), uint64(0), uint32(4096))); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(within(t), "color", []byte("blue")); err != nil {
		t.Fatal(err)
	}
	reply, err := reader.Recv()
	if err != nil {
		t.Fatal(err)
	}
	event := string(reply.Data())
	for _, part := range []string{`"type":"key-set"`, `"key":"color"`, `"space":"keys"`, `"vm":"` + recorded} {
		if !strings.Contains(event, part) {
			t.Errorf("no %s in %s", part, event)
		}
	}
	for i := range 20 {
		value := fmt.Sprint("value ", i)
		if err := writer.Swrite(0, []byte(value), "keys", "color"); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(within(t), "color"); err != nil || string(got) != value {
			t.Fatalf("%q, %v", got, err)
		}
		value = fmt.Sprint("value ", i, " by PUT\x00\xff")
		if err := c.Put(within(t), "color", []byte(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := writer.Sread(0, "keys", "color"); err != nil || string(got) != value {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// What a guest sees by the protocol and by files is the same.
func TestSameTable(t *testing.T) {
	h := newHost(t, "")
	files, c := h.ninep(), h.client()
	keys, err := c.Keys(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) < 10 {
		t.Fatalf("only %q", keys)
	}
	for _, key := range append(keys, "x_pw", "foo:shadow", "secret", "operator-script") {
		var byFile []byte
		found := 0
		for _, folder := range []string{"keys", "internal"} {
			if b, err := files.Sread(0, folder, key); err == nil {
				byFile, found = b, found+1
			}
		}
		byProtocol, err := c.Get(within(t), key)
		if (err == nil) != (found == 1) || string(byFile) != string(byProtocol) {
			t.Errorf("%s: %d files, %q; by the protocol %q, %v", key, found, byFile, byProtocol, err)
		}
	}
}

// 64 clients of the protocol and 64 of 9P write at once, each keys of its own and
// one of all. Nothing that was acknowledged is lost, and each sees what it wrote.
func TestTogether(t *testing.T) {
	const clients, rounds = 64, 20
	h := newHost(t, "")
	admin := h.Conn("vms/" + recorded)
	writers := make([]func(key, value string) error, 0, 2*clients)
	for range clients {
		p, f := h.client(), h.ninep()
		writers = append(writers,
			func(key, value string) error { return p.Put(within(t), key, []byte(value)) },
			func(key, value string) error { return f.Swrite(0, []byte(value), "keys", key) })
	}
	var wg sync.WaitGroup
	for i, write := range writers {
		wg.Go(func() {
			for n := range rounds {
				value := fmt.Sprintf("%d of writer %d", n, i)
				if err := errors.Join(write(fmt.Sprint("own", i), value), write(fmt.Sprintf("own%d-%d", i, n), value), write("all", value)); err != nil {
					t.Errorf("writer %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range writers {
		last := fmt.Sprintf("%d of writer %d", rounds-1, i)
		if got, err := admin.Sread(0, "keys", fmt.Sprint("own", i)); err != nil || string(got) != last {
			t.Errorf("own%d: %q, %v", i, got, err)
		}
		for n := range rounds {
			want := fmt.Sprintf("%d of writer %d", n, i)
			if got, err := admin.Sread(0, "keys", fmt.Sprintf("own%d-%d", i, n)); err != nil || string(got) != want {
				t.Errorf("own%d-%d: %q, %v", i, n, got, err)
			}
		}
	}
	all, err := admin.Sread(0, "keys", "all")
	if err != nil || !strings.HasPrefix(string(all), fmt.Sprint(rounds-1, " of writer ")) {
		t.Errorf("the last of all was %q, %v", all, err)
	}
}

// What was acknowledged is there after SIGKILL.
func TestPutIsDurable(t *testing.T) {
	h := host{testenv.Start(t, daemon.Options{}), t}
	h.makeVM("")
	c := h.client()
	for i := range 50 {
		if err := c.Put(within(t), fmt.Sprint("k", i), []byte{byte(i), 0xff, 0}); err != nil {
			t.Fatal(err)
		}
	}
	h.Restart()
	h.dial().Close()
	c = h.client()
	for i := range 50 {
		if got, err := c.Get(within(t), fmt.Sprint("k", i)); err != nil || string(got) != string([]byte{byte(i), 0xff, 0}) {
			t.Errorf("k%d: %q, %v", i, got, err)
		}
	}
}
