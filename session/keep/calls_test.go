package keep_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/rs/zerolog"

	"meta9/fs/errs"
	"meta9/session/keep"
	"meta9/session/redial"
	"meta9/session/wire"
)

// calls is a client in this process, attached as fid 0.
func (h *host) calls() *keep.Calls {
	h.t.Helper()
	k, err := keep.Dial(h.t.Context(), keep.Options{Dial: h.Dial, Log: zerolog.New(&h.log)})
	if err != nil {
		h.t.Fatal(err)
	}
	c := k.Calls(context.Background())
	h.t.Cleanup(c.Close)
	if _, err := c.Call(keep.Interrupt{}, &wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, NUname: wire.NoUID}); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// open makes fid an open key.
func open(t *testing.T, c *keep.Calls, fid, flags uint32, names ...string) {
	t.Helper()
	_, err := c.Call(keep.Interrupt{}, &wire.Msg{Type: wire.Twalk, Newfid: fid, Names: names})
	if err == nil {
		m := &wire.Msg{Type: wire.Tlopen, Fid: fid}
		m.L.Flags = flags
		_, err = c.Call(keep.Interrupt{}, m)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCallsAreCut: many callers append while transports end at random. Each line is
// there once.
func TestCallsAreCut(t *testing.T) {
	const callers, lines = 8, 60
	h := newHost(t)
	h.put("log", "")
	h.cutting(7, 1500)
	c := h.calls()
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			fid := uint32(1 + i)
			for n := range lines {
				if n%10 == 0 {
					open(t, c, fid, 0o2001, "keys", "log")
				}
				data := fmt.Sprintf("%d %d\n", i, n)
				r, err := c.Call(keep.Interrupt{}, &wire.Msg{Type: wire.Twrite, Fid: fid, Data: []byte(data)})
				if err != nil || int(r.Count) != len(data) {
					t.Errorf("%q: %v", data, err)
				}
				if n%10 == 9 {
					gone := make(chan struct{})
					c.Start(&wire.Msg{Type: wire.Tclunk, Fid: fid}, func() { close(gone) })
					<-gone
				}
			}
		})
	}
	all.Wait()
	h.cutting(0, 0)
	next := make(map[int]int)
	var i, n, seen int
	for rest := h.value("log"); rest != ""; seen++ {
		if _, err := fmt.Sscanf(rest, "%d %d\n", &i, &n); err != nil || n != next[i] {
			t.Fatalf("caller %d: line %d, want %d, %v", i, n, next[i], err)
		}
		next[i]++
		rest = rest[len(fmt.Sprintf("%d %d\n", i, n)):]
	}
	if seen != callers*lines {
		t.Errorf("%d lines, want %d", seen, callers*lines)
	}
	if h.cuts < 20 {
		t.Errorf("only %d transports", h.cuts)
	}
}

// TestCallsRefused: what the server refuses, what the Keeper does, and what waits at the
// end.
func TestCallsRefused(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	c := h.calls()
	_, err := c.Call(keep.Interrupt{}, &wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"none"}})
	if !errors.Is(err, errs.NotFound) || !redial.IsRefusal(err) {
		t.Errorf("a walk to nothing: %v", err)
	}
	open(t, c, 1, rdwr, "keys", "k")
	h.stop()
	h.start()
	h.remove("k")
	h.put("k", "another")
	h.drop()
	h.until("a stale fid", func() bool {
		_, err = c.Call(keep.Interrupt{}, &wire.Msg{Type: wire.Tread, Fid: 1, Count: 10})
		return err != nil
	})
	var r *redial.Refusal
	if !errors.As(err, &r) || r.Errno != linux.ESTALE {
		t.Errorf("a file that was replaced: %v", err)
	}
	open(t, c, 2, 0, "events")
	ended := make(chan error)
	go func() {
		_, err := c.Call(keep.Interrupt{}, &wire.Msg{Type: wire.Tread, Fid: 2, Count: 10})
		ended <- err
	}()
	c.Close()
	if err := <-ended; !errors.Is(err, errs.IO) {
		t.Errorf("a read at the end: %v", err)
	}
}

// TestCallsInterrupted: who is interrupted and gives up is answered at once, with a
// server and without; who does not give up waits on.
func TestCallsInterrupted(t *testing.T) {
	h := newHost(t)
	h.put("k", "v")
	c := h.calls()
	open(t, c, 1, 0, "events")
	open(t, c, 2, 0, "keys", "k")
	interrupted := make(chan struct{})
	close(interrupted)
	if _, err := c.Call(keep.Interrupt{C: interrupted}, &wire.Msg{Type: wire.Tread, Fid: 1, Count: 10}); !errors.Is(err, keep.ErrInterrupted) {
		t.Errorf("a read that waits: %v", err)
	}
	h.mu.Lock()
	h.away = true
	h.mu.Unlock()
	h.drop()
	asked := 0
	give := keep.Interrupt{C: interrupted, Final: func() bool { asked++; return asked == 3 }}
	if _, err := c.Call(give, &wire.Msg{Type: wire.Tread, Fid: 2, Count: 10}); !errors.Is(err, keep.ErrInterrupted) || asked != 3 {
		t.Errorf("a read without a server: %v, asked %d times", err, asked)
	}
	patient := keep.Interrupt{C: interrupted, Final: func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.away = false
		return false
	}}
	if r, err := c.Call(patient, &wire.Msg{Type: wire.Tread, Fid: 2, Count: 10}); err != nil || string(r.Data) != "v" {
		t.Errorf("who does not give up: %v", err)
	}
}

// TestCallsFull: where as many requests wait as may, others wait for one of them, and who
// gives up meanwhile is told so.
func TestCallsFull(t *testing.T) {
	const most = 255 // half of what a session may have without an answer
	h := newHost(t)
	h.put("k", "v")
	c := h.calls()
	open(t, c, 2, 0, "keys", "k")
	h.mu.Lock()
	h.away = true
	h.mu.Unlock()
	h.drop()
	var all sync.WaitGroup
	for range most + 20 {
		all.Go(func() {
			r, err := c.Call(keep.Interrupt{}, &wire.Msg{Type: wire.Tread, Fid: 2, Count: 10})
			if err != nil || string(r.Data) != "v" {
				t.Errorf("a read that waited: %v", err)
			}
		})
	}
	given := make(chan struct{})
	close(given)
	h.until("a request too many", func() bool {
		m := &wire.Msg{Type: wire.Tread, Fid: 2, Count: 10}
		_, err := c.Call(keep.Interrupt{C: given}, m)
		return errors.Is(err, keep.ErrInterrupted)
	})
	h.mu.Lock()
	h.away = false
	h.mu.Unlock()
	all.Wait()
}

// TestCallsFullOfBytes: where requests have as many bytes as may wait, their callers can
// still give up, without a server too.
func TestCallsFullOfBytes(t *testing.T) {
	const most, each = 8 << 20, 1 << 20
	h := newHost(t)
	h.put("k", "v")
	c := h.calls()
	open(t, c, 2, rdwr, "keys", "k")
	down := make(chan struct{})
	c.Watch(func(bool, bool) { close(down) })
	h.mu.Lock()
	h.away = true
	h.mu.Unlock()
	h.drop()
	<-down // what comes from now on is not sent
	give := make(chan struct{})
	ended := make(chan error)
	for range most/each + 1 {
		go func() {
			_, err := c.Call(keep.Interrupt{C: give}, &wire.Msg{Type: wire.Twrite, Fid: 2, Data: make([]byte, each)})
			ended <- err
		}()
	}
	h.until("room for no more", func() bool { return c.Waiting() > most })
	close(give)
	late := time.After(patient)
	for range most/each + 1 {
		select {
		case err := <-ended:
			if !errors.Is(err, keep.ErrInterrupted) {
				t.Errorf("who gives up: %v", err)
			}
		case <-late:
			t.Fatal("who gives up waits on")
		}
	}
}
