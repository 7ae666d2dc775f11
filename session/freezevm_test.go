package session_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"meta9/fs/errs"
	"meta9/session"
	"meta9/session/wire"
)

// freezeVM begins to freeze the first VM and gives a function that awaits it.
func (w *world) freezeVM() (frozen func() *session.Frozen) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	type result struct {
		f   *session.Frozen
		err error
	}
	done := make(chan result, 1)
	go func() {
		f, err := w.server.FreezeVM(ctx, vmOne)
		done <- result{f, err}
	}()
	return func() *session.Frozen {
		w.t.Helper()
		defer cancel()
		r := <-done
		if r.err != nil {
			w.t.Fatal(r.err)
		}
		return r.f
	}
}

// TestFreezeVM: what a VM's connections have begun is done and its reply kept, whether the
// connection is there or was lost before; other VMs are served on; nobody comes for this one.
// Thawed, its sessions are resumed as they were left.
func TestFreezeVM(t *testing.T) {
	for _, d := range []wire.Dialect{wire.EN, wire.LE} {
		for _, lost := range []bool{false, true} {
			w := newWorld(t, nil)
			w.put("color", "blue")
			a := w.numbered(d, 1, nil)
			read := a.events(2, 8)
			other := w.dial("unix", peers["vm2"])
			other.hello("9P2000.e")
			write, release := a.begin(w)
			if a.settled(); lost {
				a.hangUp(w)
			}
			frozen := w.freezeVM()
			release()
			f := frozen()
			// Where the write was done before the freeze has begun, the read is told of it.
			for m := a.receive(); m != nil; m = a.receive() {
				if lost || m.Type != wire.Rwrite && m.Type != wire.Rread {
					t.Errorf("%s: told %s", d, m)
				}
			}
			other.do(&wire.Msg{Type: wire.Tstat, Tag: 1}, wire.Rstat)
			late := w.dial("unix", peers["vm"])
			if m := late.receive(); m != nil {
				t.Errorf("served while it is frozen: %s", m)
			}
			if _, err := w.server.FreezeVM(t.Context(), vmOne); !errors.Is(err, errs.Busy) {
				t.Errorf("frozen twice: %v", err)
			}
			if n := len(slices.Collect(f.States())); n != 1 || w.server.Stats().Parked != 0 {
				t.Errorf("%d sessions are frozen, %d parked", n, w.server.Stats().Parked)
			}
			f.Thaw()
			b := w.numbered(d, 1, a)
			b.resume([]uint64{read, write, b.count + 1}, wire.Answered, wire.Answered, wire.Unseen)
			b.expect(wire.Rwrite, 7)
			b.settled()
			if got := w.value("color"); got != "rede" {
				t.Errorf("%s, lost %v: color is %q", d, lost, got)
			}
		}
	}
}

// TestFreezeVMEnds: sessions that have gone elsewhere are no longer here, and the VM is served
// again.
func TestFreezeVMEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	a := w.numbered(wire.LE, 1, nil)
	a.walk(1, "keys", "color")
	a.lopen(1, 2)
	if s := a.lock(1, 1, 0, 0); s != 0 {
		t.Fatalf("status %d", s)
	}
	w.freezeVM()().End()
	b := w.numbered(wire.LE, 1, nil) // it is refused as one that nobody knows
	b.walk(1, "keys", "color")
	b.lopen(1, 2)
	if s := b.lock(1, 1, 0, 0); s != 0 {
		t.Errorf("the lock is still there: status %d", s)
	}
	if n := w.server.Stats().Parked; n != 0 {
		t.Errorf("%d are parked", n)
	}
}

// TestFreezeVMLoses: a client that takes no replies holds nothing up beyond the context.
func TestFreezeVMLoses(t *testing.T) {
	w := newWorld(t, nil)
	w.put("big", "")
	a := w.deaf("vm")
	a.hello(w)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := w.server.FreezeVM(ctx, vmOne)
	if err != nil {
		t.Fatal(err)
	}
	f.End()
}
