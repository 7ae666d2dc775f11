package client_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/session/wire"
)

// under runs op with a context that ends when the server has seen n requests that
// begin with seen.
func under(t *testing.T, f *fake, seen string, n int, op func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- op(ctx) }()
	until(t, seen, func() bool { return f.count(seen) == n })
	cancel()
	return <-ended
}

// openEmpty is a file without a byte at a fake server, open for reading.
func openEmpty(t *testing.T) (*fake, *client.Client, *client.File) {
	t.Helper()
	f := newFake(t)
	f.put("keys/empty", []byte{})
	c := f.dial(client.Options{})
	file, err := c.Open(t.Context(), "keys/empty")
	if err != nil {
		t.Fatal(err)
	}
	return f, c, file
}

func TestCancelledRead(t *testing.T) {
	f, _, file := openEmpty(t)
	defer file.Close()
	for i := range 3 {
		f.next(wire.Tread, hang)
		err := under(t, f, "Tread", i+1, func(ctx context.Context) error {
			return second(file.ReadAt(ctx, make([]byte, 100), 0))
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want cancelled", err)
		}
		until(t, "the read is flushed", func() bool { return f.count("Tflush") == i+1 })
	}
	if n := f.count("Tversion"); n != 1 {
		t.Errorf("%d transports: a flush cost one", n)
	}
}

// A walk whose context ends leaves no fid behind, whether it happened or not.
func TestCancelledWalk(t *testing.T) {
	for _, what := range []fate{hang, late} {
		f := newFake(t)
		c := f.dial(client.Options{})
		f.next(wire.Twalk, what)
		err := under(t, f, "Twalk", 1, func(ctx context.Context) error { return second(c.Stat(ctx, "keys")) })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want cancelled", err)
		}
		until(t, "only the root is left", func() (ok bool) {
			n := f.count("Tflush")
			f.with(func() { ok = n == 1 && len(f.fids) == 1 })
			return ok
		})
		if _, err := c.Stat(t.Context(), "keys"); err != nil {
			t.Error(err)
		}
	}
}

// What became of a change whose context ends: flush(5) says it.
func TestCancelledChange(t *testing.T) {
	for what, want := range map[fate]error{
		hang:   context.Canceled,  // Rflush alone: as if it had never been sent
		late:   nil,               // the reply came first: it happened
		silent: client.ErrUnknown, // nothing came
		cut:    client.ErrUnknown, // nor will
	} {
		f := newFake(t)
		c := f.dial(client.Options{})
		f.with(func() { f.put("keys/a", []byte("v")) })
		f.next(wire.Tremove, what)
		err := under(t, f, "Tremove", 1, func(ctx context.Context) error { return c.Remove(ctx, "keys/a") })
		if !errors.Is(err, want) || errors.Is(err, client.ErrUnknown) != (want == client.ErrUnknown) {
			t.Errorf("fate %d: %v, want %v", what, err, want)
		}
	}
}

// A server that refuses Tflush, as LING's does, still answers the request, and
// its tag is not used before that.
func TestFlushRefused(t *testing.T) {
	f := newFake(t)
	f.put("keys/a", []byte("v"))
	c := f.dial(client.Options{})
	f.next(wire.Tsread, silent)
	f.with(func() {
		f.fates = append([]func(*wire.Msg) (fate, bool){func(m *wire.Msg) (fate, bool) {
			if m.Type == wire.Tflush {
				m.Type = wire.Tsession // refused here, in the middle of a connection
				m.Key = [8]byte{}
				f.sessions = nil
			}
			return serve, false
		}}, f.fates...)
	})
	err := under(t, f, "Tsread", 1, func(ctx context.Context) error { return second(c.ReadFile(ctx, "keys/a")) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want cancelled", err)
	}
	if got, err := c.ReadFile(t.Context(), "keys/a"); err != nil || string(got) != "v" {
		t.Errorf("read %q, %v", got, err)
	}
	if n := f.count("Tversion"); n != 1 {
		t.Errorf("%d transports", n)
	}
}

func TestKindOfUnknownText(t *testing.T) {
	f := newFake(t)
	f.deny = errors.New("go away")
	_, err := client.Dial(t.Context(), "fake", client.Options{Dial: f.Dial})
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != 0 || err.Error() != "fake: go away" || errors.Is(err, errs.IO) {
		t.Errorf("%v, kind %d", err, e.Kind)
	}
}

// TestCloseAfterClient: a File ends after its Client has, with as many requests as there may be
// without an answer.
func TestCloseAfterClient(t *testing.T) {
	f, c, file := openEmpty(t)
	f.with(func() {
		f.fates = append(f.fates, func(m *wire.Msg) (fate, bool) { return hang, m.Type == wire.Tread })
	})
	var reads sync.WaitGroup
	for range client.MaxCalls {
		reads.Go(func() { _, _ = file.ReadAt(t.Context(), make([]byte, 100), 0) })
	}
	until(t, "all reads wait", func() bool { return f.count("Tread") == client.MaxCalls })
	c.Close()
	reads.Wait()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		file.Close()
	}()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}
