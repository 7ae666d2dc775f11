package restart

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"meta9/session/client/eventtest"
	"meta9/session/wire"
)

// TestKilledIdle: killed between two requests, meta9d has each session as its client left
// it: fids of every kind, a held truncation, a place in events.
func TestKilledIdle(t *testing.T) {
	w := newWorld(t)
	admin := w.Conn("vms/" + uuid)
	for _, name := range []string{"lock", "open", "held", "old"} {
		if err := admin.Swrite(0, []byte("of "+name), "keys", name); err != nil {
			t.Fatal(err)
		}
	}
	plain := w.dial("9P2000.e", 2, false)
	w.rpc(plain, wire.Tattach, uint32(0), wire.NoFid, "", "")
	const events = 1000 // a fid
	w.rpc(plain, wire.Twalk, uint32(0), uint32(events), []string{"events"})
	w.rpc(plain, wire.Topen, uint32(events), wire.ORead)
	var told []byte
	hear := func(until string) {
		t.Helper()
		for !strings.Contains(string(told), until) {
			b, err := plain.Read(events, uint64(len(told)), 8192)
			if err != nil {
				t.Fatal(err)
			}
			told = append(told, b...)
		}
	}
	const kills = 5
	for i := range kills {
		first := uint32(10 * i)
		w.rpc(plain, wire.Twalk, uint32(0), first+1, []string{"keys", "open"})
		w.rpc(plain, wire.Topen, first+1, wire.ORdWr)
		w.rpc(plain, wire.Twalk, uint32(0), first+2, []string{"keys", "held"})
		w.rpc(plain, wire.Topen, first+2, wire.OWrite|wire.OTrunc)
		w.rpc(plain, wire.Twalk, uint32(0), first+3, []string{"keys", "old"})
		w.rpc(plain, wire.Twalk, uint32(0), first+4, []string{"keys"})
		w.rpc(plain, wire.Tcreate, first+4, fmt.Sprintf("new%d", i), uint32(0o600), wire.ORdWr)
		if err := plain.Write(first+4, 0, []byte("made")); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			w.rpc(plain, wire.Tclunk, first-10+3)
		}
		if i%2 == 1 {
			hear(fmt.Sprintf("new%d", i)) // and not all of it
		}
		w.put("old", fmt.Sprint("of old", i)) // after the last reply
		w.Restart()
		if log := w.Log(); strings.Contains(log, `"level":"warn"`) || strings.Contains(log, `"level":"error"`) {
			t.Fatalf("kill %d: %s", i, log)
		}
		if n := w.figure("sessions_restored"); n != 1 {
			t.Fatalf("kill %d: %d sessions were restored", i, n)
		}
		plain.Close()
		plain = w.dial("9P2000.e", 2, true)
		for fid, want := range map[uint32]string{first + 1: "of open", first + 4: "made"} {
			if b, err := plain.Read(fid, 0, 100); err != nil || string(b) != want {
				t.Errorf("kill %d: fid %d reads %q, %v", i, fid, b, err)
			}
		}
		if i > 0 {
			if _, err := plain.RPC(wire.Tstat, 1, first-10+3); err == nil {
				t.Errorf("kill %d: a fid that was clunked is there", i)
			}
		}
		// The truncation is held still, and is committed with the clunk.
		if b, err := w.Conn("vms/"+uuid).Sread(0, "keys", "held"); err != nil || string(b) == "" {
			t.Errorf("kill %d: a held truncation is seen: %q, %v", i, b, err)
		}
		if err := plain.Write(first+2, 0, []byte("of held")); err != nil {
			t.Error(err)
		}
		w.rpc(plain, wire.Tclunk, first+2)
		w.rpc(plain, wire.Topen, first+3, wire.ORead)
		if b, err := plain.Read(first+3, 0, 100); err != nil || string(b) != fmt.Sprint("of old", i) {
			t.Errorf("kill %d: %q, %v", i, b, err)
		}
	}
	w.put("end", "")
	hear(`"end"`)
	seen := make(map[string]int)
	for line := range strings.Lines(string(told)) {
		var ev eventtest.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		seen[ev.Type+" "+ev.Key]++
	}
	for what, n := range map[string]int{"key-set old": kills, "key-set held": kills, "lost ": 0} {
		if seen[what] != n {
			t.Errorf("%d events %s, want %d\n%s", seen[what], what, n, told)
		}
	}
}
