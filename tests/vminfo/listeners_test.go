package vminfo

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"meta9/tests/testenv"
)

// TestThousandListeners: each of 1,000 listeners gets every event in order while 100
// others read nothing. Those are told the older changes of the one VM together when they
// read again, and its last state; the daemon's memory stays bounded.
func TestThousandListeners(t *testing.T) {
	const reading, silent, events, size = 1000, 100, 100, 16 << 10
	s := start(t, "--data", "")
	s.verb(`create {"uuid":%q}`, testenv.UUID(1))
	var mute []*stream
	for range silent {
		mute = append(mute, s.events(""))
	}
	var all sync.WaitGroup
	var there, bad atomic.Int32
	for range reading {
		in := s.events("?since=0")
		all.Go(func() {
			if err := countUp(in, events, &there); err != nil && bad.Add(1) < 5 {
				t.Error(err)
			}
		})
	}
	testenv.Eventually(t, "all listeners are there", func() bool { return there.Load() == reading })
	before, err := s.RSS()
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		s.verb(`update %s {"n":%d}`, testenv.UUID(1), i)
	}
	all.Wait()
	if n := bad.Load(); n > 0 {
		t.Fatalf("%d of %d listeners did not get every event in order", n, reading)
	}
	// What the silent ones would have to be kept: far more than the feed and their
	// sockets hold.
	const more = 3000
	for i := range more {
		s.verb(`update %s {"set_customer_metadata":{"k":"%s%d"}}`, testenv.UUID(1), strings.Repeat("x", size), i)
	}
	after, err := s.RSS()
	if err != nil {
		t.Fatal(err)
	}
	most := int64(512 << 20)
	if os.Getenv(testenv.RaceEnv) != "" {
		most *= 4 // what the race detector keeps of each byte
	}
	if after-before > most {
		t.Errorf("RSS grew by %d MiB", (after-before)>>20)
	}
	t.Logf("RSS %d MiB, then %d MiB", before>>20, after>>20)
	for i, m := range mute[:10] {
		checkLast(t, i, m, fmt.Sprintf("x%d", more-1), more/2)
	}
}

// countUp reads the events of a VM whose n counts up.
func countUp(in *stream, events int, there *atomic.Int32) error {
	for i := -1; i < events; i++ {
		line, err := in.line()
		switch {
		case err != nil:
			return err
		case i < 0:
			there.Add(1)
		case !strings.Contains(line, fmt.Sprintf(`"n":%d}`, i)):
			return fmt.Errorf("event %d: %.300s", i, line)
		}
	}
	in.resp.Body.Close()
	return nil
}

// checkLast reads a stream up to the change that has the text, in fewer lines than most.
func checkLast(t *testing.T, i int, m *stream, text string, most int) {
	t.Helper()
	for lines := 1; ; lines++ {
		ev := m.next()
		switch {
		case ev == nil || ev.Type == "error":
			t.Errorf("silent listener %d, after %d lines: %+v", i, lines, ev)
			return
		case strings.Contains(string(ev.VM), text+`"`):
			if lines > most {
				t.Errorf("silent listener %d was told %d lines", i, lines)
			}
			return
		}
	}
}
