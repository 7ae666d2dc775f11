package mirror_test

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"meta9/fs/vm"
)

// TestLongLines has an upstream send VMs, and members that no VM needs, that are far larger
// than a VM may be: the mirror's memory is that of a VM, it says which VM it cannot take,
// and it goes on with the others.
func TestLongLines(t *testing.T) {
	const large, part = 32 << 20, 1 << 20
	w := newLimited(t, vm.Limits{Value: 4 << 10, Keys: 100, Bytes: 64 << 10})
	long := strings.Repeat("x", part)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := w.stream()
	send := func(head, tail string) {
		s <- head
		for range large / part {
			s <- long
		}
		s <- tail
	}
	inList := func(text string) string {
		b, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[1 : len(b)-1])
	}
	// In the list, as an event's VM, in its changes, and as a member that nobody knows.
	send(`{"type":"ready",`+date+`,"uuid":"x","vms":"`+inList(`[`+small(1, "")+`,{"uuid":"`+uuid(2)+`","x":"`), inList(`"},`+small(3, "")+`]`)+`"}`+"\n")
	w.await(small(1, ""), small(3, ""))
	send(`{"type":"modify",`+date+`,"uuid":"`+uuid(1)+`","vm":{"uuid":"`+uuid(1)+`","x":"`, `"},"changes":[]}`+"\n")
	send(`{"type":"modify",`+date+`,"uuid":"`+uuid(3)+`","vm":`+small(3, `"x":1`)+`,"changes":["`, `"]}`+"\n")
	w.await(small(1, ""), small(3, `"x":1`))
	if w.m.State().Stale {
		t.Errorf("%+v", w.m.State())
	}
	said := w.m.State().Errors
	if len(said) != 2 || !strings.Contains(said[0].Text, uuid(2)) || !strings.Contains(said[1].Text, uuid(1)) {
		t.Errorf("%+v", said)
	}
	send(`{"type":"modify",`+date+`,"uuid":"`+uuid(1)+`","x":"`, `"}`+"\n")
	w.awaitStale(true)
	close(s)
	runtime.ReadMemStats(&after)
	// Each line was more than three times itself before.
	if n := after.TotalAlloc - before.TotalAlloc; n > 4*large {
		t.Errorf("%d MiB were allocated for four lines of %d MiB", n>>20, large>>20)
	}
}
