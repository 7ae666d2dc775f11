package mirror_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"meta9/fs/vm"
	"meta9/mdbridge/vminfo/server/mirror"
	"meta9/rarelog/logtest"
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

// TestTooMany: of an upstream's VMs the mirror takes as many as it may, from lists and from
// events.
func TestTooMany(t *testing.T) {
	const most = 10
	w := newFor(t, vm.Limits{}, zerolog.Nop(), func(m *mirror.Mirror) { m.SetMost(most) })
	said := func(what string) {
		t.Helper()
		w.until(what, func() string {
			for _, e := range w.m.State().Errors {
				if strings.Contains(e.Text, what) {
					return ""
				}
			}
			return fmt.Sprint(w.m.State().Errors)
		})
		if n := w.st.Count(); n > most {
			t.Errorf("%s: %d VMs", what, n)
		}
	}
	var list []string
	for n := range 3 * most {
		list = append(list, small(n, ""))
	}
	s := w.stream()
	s <- ready(list...)
	close(s)
	said("the list has more than 10 VMs")
	s = w.stream()
	defer close(s)
	s <- ready(list[:most]...)
	w.awaitStale(false)
	s <- event("create", 20, small(20, ""))
	said("10 VMs is the most")
	s <- event("delete", 0, "") + event("create", 21, small(21, ""))
	w.until("another in place of one", func() string {
		if w.st.Cell(uuid(21)) != nil {
			return ""
		}
		return fmt.Sprint(w.vms())
	})
}

// TestRefusalsInLog: VMs that cannot be taken have a line of the log each only while they are
// few.
func TestRefusalsInLog(t *testing.T) {
	var log logtest.Log
	w := newFor(t, vm.Limits{}, zerolog.New(&log), func(*mirror.Mirror) {})
	list := []string{small(9999, "")}
	for n := range 2000 {
		list = append(list, small(n, `"ram":"much"`))
	}
	s := w.stream()
	defer close(s)
	s <- ready(list...)
	w.awaitStale(false)
	if n := log.Count("cannot take a VM"); n < 10 || n > 70 {
		t.Errorf("%d lines", n)
	}
}

// TestClashes: what waits for a name is bounded, by number and by bytes.
func TestClashes(t *testing.T) {
	m, err := mirror.New("http://127.0.0.1:1", nil, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]int{10: mirror.MaxClashes, mirror.MaxClashBytes / 8: 8} {
		text := make([]byte, size)
		for n := range 2 * mirror.MaxClashes {
			m.Clash(uuid(n), text)
		}
		if vms, bytes := m.Waiting(); vms != want || bytes != want*size {
			t.Errorf("of %d bytes: %d VMs, %d bytes", size, vms, bytes)
		}
		for n := range 2 * mirror.MaxClashes {
			m.Clash(uuid(n), nil)
		}
		if vms, bytes := m.Waiting(); vms != 0 || bytes != 0 {
			t.Errorf("at the end %d VMs, %d bytes", vms, bytes)
		}
	}
}
