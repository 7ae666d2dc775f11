package residence_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meta9/fs/store"
	"meta9/session"
	"meta9/session/residence"
	"meta9/session/wire"
)

// TestParcel: what Seal has made opens with the key and for what it is about, and gives the
// sessions and the events that were not read; changed in any byte or cut it does not.
func TestParcel(t *testing.T) {
	w := newWorld(t)
	w.put("color", "blue")
	w.dial(wire.EN2, 1, "glenda").nc.Close()
	c := w.dial(wire.LE2, 2, "glenda")
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"events"}})
	c.do(&wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: 1})
	w.put("color", "red")
	c.nc.Close()
	f, err := w.server.FreezeVM(t.Context(), vmUUID)
	if err != nil {
		t.Fatal(err)
	}
	defer f.End()
	states := slices.Collect(f.States())
	ring := store.TailOf(w.store.Cell(vmUUID).Ring(), 0)
	key, about := make([]byte, 32), []byte("this move")
	p := residence.NewParcel(w.tree, vmUUID, f.States())
	sealed := string(p.Seal(key, about, ring))
	if p.Sessions != 2 || p.Lost != 0 || strings.Contains(sealed, "glenda") {
		t.Fatalf("%d sessions, %d lost", p.Sessions, p.Lost)
	}
	o, err := residence.OpenParcel(key, about, sealed)
	if err != nil || o.Lost != 0 {
		t.Fatal(err, o.Why)
	}
	if d := cmp.Diff(states, o.Sessions, cmpopts.EquateEmpty(), cmp.AllowUnexported(session.State{})); d != "" {
		t.Error(d)
	}
	if o.Tail == nil || o.Tail.Last != ring.Last || len(o.Tail.Events) == 0 || !slices.ContainsFunc(o.Tail.Events, func(e store.Event) bool { return e.Type == store.KeySet }) {
		t.Errorf("events: %+v, the ring has %+v", o.Tail, ring)
	}
	for i := range sealed {
		b := []byte(sealed)
		b[i] ^= 1
		if _, err := residence.OpenParcel(key, about, string(b)); err == nil {
			t.Fatalf("it opens with byte %d changed", i)
		}
		if _, err := residence.OpenParcel(key, about, sealed[:i]); err == nil {
			t.Fatalf("%d bytes of it open", i)
		}
	}
	if _, err := residence.OpenParcel(append(make([]byte, 31), 1), about, sealed); err == nil {
		t.Error("it opens with another key")
	}
	if _, err := residence.OpenParcel(key, []byte("another move"), sealed); err == nil {
		t.Error("it opens for another move")
	}
}

// TestParcelEmpty: without a session there is nothing to send.
func TestParcelEmpty(t *testing.T) {
	w := newWorld(t)
	none := func(func(session.State) bool) {}
	if b := residence.NewParcel(w.tree, vmUUID, none).Seal(make([]byte, 32), nil, store.Tail{}); b != nil {
		t.Errorf("%d bytes", len(b))
	}
}
