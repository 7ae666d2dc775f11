package libvirt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta9/mdbridge/libvirt"
	lv "meta9/mdbridge/libvirt/libvirttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func uuid(n int) string { return fmt.Sprintf("550e8400-e29b-41d4-a716-%012d", n) }

// dial connects to a server that answers.
func dial(t *testing.T, s *lv.Server, cfg libvirt.Config) *libvirt.Client {
	t.Helper()
	c, err := libvirt.Dial(t.Context(), s.Path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestClient(t *testing.T) {
	s := lv.New(t)
	s.Set(uuid(1), 1, 1)
	s.Set(uuid(2), 5, 2)
	events := make(chan libvirt.Event, 10)
	c := dial(t, s, libvirt.Config{OnEvent: func(e libvirt.Event) { events <- e }})
	if v, err := c.Version(t.Context()); err != nil || v.String() != "9.0.0" {
		t.Errorf("version %v, %v", v, err)
	}
	all, err := c.Domains(t.Context())
	slices.Sort(all)
	if err != nil || !slices.Equal(all, []string{uuid(1), uuid(2)}) {
		t.Errorf("domains %v, %v", all, err)
	}
	if is, err := c.State(t.Context(), uuid(2)); err != nil || is.String() != "shut off (destroyed)" || is.VM() != "stopped" {
		t.Errorf("state %v, %v", is, err)
	}
	if _, err := c.State(t.Context(), uuid(3)); !libvirt.IsNoDomain(err) || err.Error() != "Domain not found" {
		t.Errorf("no domain: %v", err)
	}
	if _, err := c.State(t.Context(), "../etc"); err == nil {
		t.Error("a state of what is no UUID")
	}
	s.Tell(lv.Message(2, 1234, 0, 0, lv.Text("of a later version"))) // not for us
	s.Tell([]byte("\x00\x00\x00\x1ckeep\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00"))
	s.Set(uuid(1), 3, 1)
	if e := <-events; e.UUID != uuid(1) || e.Kind != 2 {
		t.Errorf("event %v", e)
	}
	s.Stop()
	<-c.Done()
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "has ended the connection") {
		t.Errorf("the end: %v", err)
	}
	if _, err := c.Domains(t.Context()); err == nil {
		t.Error("a call after the end")
	}
}

// TestHostile: a libvirtd that misbehaves costs its connection, in time and with no more
// memory than a good one.
func TestHostile(t *testing.T) {
	huge := uint32(1<<32 - 1)
	for _, tt := range []struct {
		name   string
		answer func(lv.Call) []byte // to ListDomains
		want   string
	}{
		{"silent", func(lv.Call) []byte { return nil }, "does not answer within"},
		{"stops half-way", func(c lv.Call) []byte { return c.Reply(lv.Words(1))[:30] }, "does not answer within"},
		{"length 0", func(lv.Call) []byte { return lv.Words(0, 0, 0, 0, 0, 0, 0) }, "a message of 0 bytes"},
		{"length 27", func(lv.Call) []byte { return lv.Words(27, 0x20008086, 1, 273, 1, 0, 0) }, "a message of 27 bytes"},
		{"huge answer", func(c lv.Call) []byte { return lv.Words(huge, 0x20008086, 1, c.Proc, 1, c.Serial, 0) }, "a message of 4294967295 bytes"},
		{"huge event", func(lv.Call) []byte { return lv.Words(1<<20, 0x20008086, 1, lv.Lifecycle, 2, 0, 0) }, "a message of 1048576 bytes"},
		{"many domains", func(c lv.Call) []byte { return c.Reply(lv.Words(1 << 31)) }, "not whole"},
		{"more domains than there is room for", func(c lv.Call) []byte { return c.Reply(append(lv.Words(16000), make([]byte, 1000)...)) }, "not whole"},
		{"more domains than libvirt lists", func(c lv.Call) []byte { return c.Reply(append(lv.Words(16385), make([]byte, 24*16385+4)...)) }, "not whole"},
		{"a huge name", func(c lv.Call) []byte { return c.Reply(append(lv.Words(1, huge), make([]byte, 64)...)) }, "not whole"},
		{"a name of 5,000 bytes", func(c lv.Call) []byte {
			return c.Reply(append(append(lv.Words(1), lv.Domain(strings.Repeat("x", 5000), uuid(1))...), lv.Words(1)...))
		}, "not whole"},
		{"more than an answer", func(c lv.Call) []byte { return c.Reply(lv.Words(0, 0, 0)) }, "not whole"},
		{"another's answer", func(c lv.Call) []byte { c.Serial++; return c.Reply(lv.Words(0, 0)) }, "nobody has asked for"},
		{"another procedure's", func(c lv.Call) []byte { c.Proc++; return c.Reply(lv.Words(0, 0)) }, "nobody has asked for"},
		{"a stream", func(c lv.Call) []byte { return lv.Message(1, c.Proc, c.Serial, 2, nil) }, "nobody has asked for"},
		{"half an event", func(lv.Call) []byte { return lv.Message(2, lv.Lifecycle, 0, 0, lv.Words(7, 0)) }, "not whole"},
		{"half an error", func(c lv.Call) []byte { return lv.Message(1, c.Proc, c.Serial, 1, lv.Words(1)) }, "not whole"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := lv.New(t)
			s.Answer = func(c lv.Call) ([]byte, bool) { return tt.answer(c), c.Proc == lv.ListDomains }
			c := dial(t, s, libvirt.Config{CallTime: 2 * time.Second})
			if strings.HasPrefix(tt.want, "does not") {
				c = dial(t, s, libvirt.Config{CallTime: 100 * time.Millisecond})
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.Domains(t.Context())
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
		})
	}
}

// TestTwice: an answer that comes a second time ends the connection, whoever calls next.
func TestTwice(t *testing.T) {
	s := lv.New(t)
	s.Answer = func(c lv.Call) ([]byte, bool) {
		b := c.Reply(lv.Words(0, 9000000))
		return append(b, b...), c.Proc == lv.LibVersion
	}
	c := dial(t, s, libvirt.Config{})
	_, _ = c.Version(t.Context())
	<-c.Done()
	if err := c.Err(); !strings.Contains(err.Error(), "nobody has asked for") {
		t.Error(err)
	}
}

// TestHostileStart: so it is before the client is there.
func TestHostileStart(t *testing.T) {
	for _, tt := range []struct {
		name   string
		proc   uint32
		answer func(lv.Call) []byte
		want   string
	}{
		{"silent", lv.AuthList, func(lv.Call) []byte { return nil }, "does not answer within"},
		{"many ways", lv.AuthList, func(c lv.Call) []byte { return c.Reply(lv.Words(1<<32 - 1)) }, "not whole"},
		{"a password", lv.AuthList, func(c lv.Call) []byte { return c.Reply(lv.Words(1, 1)) }, "asks for a password"},
		{"polkit says no", lv.AuthList, func(c lv.Call) []byte { return c.Reply(lv.Words(1, 2)) }, "polkit: no such procedure"},
		{"not opened", lv.Open, func(c lv.Call) []byte { return c.Fail(38, "") }, "libvirt's error 38"},
		{"no events", lv.Register, func(c lv.Call) []byte { return c.Reply(nil) }, "not whole"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := lv.New(t)
			s.Answer = func(c lv.Call) ([]byte, bool) { return tt.answer(c), c.Proc == tt.proc }
			if _, err := libvirt.Dial(t.Context(), s.Path, libvirt.Config{CallTime: 200 * time.Millisecond}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Error(err)
			}
		})
	}
}

// TestPolkit: where polkit is asked for, it is asked.
func TestPolkit(t *testing.T) {
	s := lv.New(t)
	s.Answer = func(c lv.Call) ([]byte, bool) {
		switch c.Proc {
		case lv.AuthList:
			return c.Reply(lv.Words(2, 1, 2)), true
		case lv.AuthPolkit:
			return c.Reply(lv.Words(1)), true
		}
		return nil, false
	}
	_, err := libvirt.Dial(t.Context(), s.Path, libvirt.Config{})
	if err == nil || !strings.Contains(err.Error(), "password") { // sasl stands first
		t.Error(err)
	}
	s.Answer = func(c lv.Call) ([]byte, bool) {
		switch c.Proc {
		case lv.AuthList:
			return c.Reply(lv.Words(2, 2, 1)), true
		case lv.AuthPolkit:
			return c.Reply(lv.Words(1)), true
		}
		return nil, false
	}
	dial(t, s, libvirt.Config{})
}

// TestCancelled: a call ends with its context.
func TestCancelled(t *testing.T) {
	s := lv.New(t)
	s.Answer = func(c lv.Call) ([]byte, bool) { return nil, c.Proc == lv.ListDomains }
	c := dial(t, s, libvirt.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := c.Domains(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFlood: events are taken at a bounded pace, once the burst is over.
func TestFlood(t *testing.T) {
	s := lv.New(t)
	var n atomic.Int64
	c := dial(t, s, libvirt.Config{OnEvent: func(libvirt.Event) { n.Add(1) }})
	many := bytes.Repeat(lv.Event(uuid(1), 2, 0), 1000)
	began := time.Now()
	var telling sync.WaitGroup
	telling.Go(func() { // ends when the client does
		for range 1000 {
			s.Tell(many)
		}
	})
	for n.Load() < 1<<15 || time.Since(began) < 500*time.Millisecond {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("only %d events", n.Load())
		}
		time.Sleep(time.Millisecond)
	}
	if most := int64(1<<15 + 1000*(time.Since(began).Seconds()+1)); n.Load() > most {
		t.Errorf("%d events in %v", n.Load(), time.Since(began))
	}
	if c.Err() != nil {
		t.Error(c.Err())
	}
	c.Close()
	telling.Wait()
}

func TestStates(t *testing.T) {
	for _, tt := range []struct {
		state, reason int32
		words, vm     string
	}{
		{1, 1, "running (booted)", "running"},
		{3, 1, "paused (user)", "paused"},
		{3, 5, "paused (I/O error)", "io-error"},
		{3, 99, "paused (99)", "paused"},
		{4, 1, "in shutdown (user)", "shutdown"},
		{5, 3, "shut off (crashed)", "stopped"},
		{6, 1, "crashed (panicked)", "guest-panicked"},
		{7, 0, "pmsuspended (unknown)", "suspended"},
		{8, 0, "state 8 (0)", "unknown"},
		{-1, -1, "state -1 (-1)", "unknown"},
		{1, -1, "running (-1)", "running"},
	} {
		if is := (libvirt.State{State: tt.state, Reason: tt.reason}); is.String() != tt.words || is.VM() != tt.vm {
			t.Errorf("%d, %d: %q, %q", tt.state, tt.reason, is, is.VM())
		}
	}
}

// FuzzClient gives a client any bytes where an answer is waited for.
func FuzzClient(f *testing.F) {
	call := lv.Call{Proc: lv.ListDomains, Serial: 4}
	f.Add(call.Reply(append(append(lv.Words(1), lv.Domain("web", uuid(1))...), lv.Words(1)...)))
	f.Add(call.Fail(42, "Domain not found"))
	f.Add(append(lv.Event(uuid(1), 2, 0), call.Reply(lv.Words(0, 0))...))
	f.Add(lv.Words(0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := lv.New(t)
		s.Answer = func(c lv.Call) ([]byte, bool) { return b, c.Proc == lv.ListDomains }
		c, err := libvirt.Dial(t.Context(), s.Path, libvirt.Config{CallTime: 50 * time.Millisecond})
		if err != nil {
			return // a busy machine: it took longer than that
		}
		defer c.Close()
		all, err := c.Domains(t.Context())
		if err == nil && len(all)*24 > len(b) {
			t.Errorf("%d domains of %d bytes", len(all), len(b))
		}
	})
}
