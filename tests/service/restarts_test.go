package service

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"meta9/tests/testenv"
)

// restarts has the host make the keys a and b 1, 2, 3, ..., both at once, and ends meta9d in
// another way in each round: by kill -9, by a planned restart, by a live update, and so that
// sessions are lost. Keys are written before, while a client may have no connection, and
// after; each time seen must come to be true of the last number, which is given at the end.
func restarts(t *testing.T, s *testenv.Server, rounds int, seen func(n int) bool) (n int) {
	t.Helper()
	put := func(times int) {
		c, err := s.Dial("vms/" + uuid)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range times {
			n++
			line := fmt.Sprintf(`{"do":[{"put":"a","value":"%d"},{"put":"b","value":"%[1]d"}]}`+"\n", n)
			if err := c.Swrite(0, []byte(line), "txn"); err != nil {
				t.Fatal(err)
			}
		}
	}
	fresh := func(when string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !seen(n); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s it is not seen that the keys are %d", when, n)
			}
		}
	}
	var slowest time.Duration
	for i := range rounds {
		put(20)
		if i%3 == 0 {
			fresh("before")
		}
		switch i % 4 {
		case 0:
			s.Restart()
		case 1:
			s.PlannedRestart()
		case 2:
			s.LiveUpdate()
		case 3: // the session is lost
			s.Kill()
			if err := os.RemoveAll(filepath.Join(s.Run(), "journal")); err != nil {
				t.Fatal(err)
			}
			s.Restart()
		}
		put(1) // the client may not be connected yet
		begin := time.Now()
		fresh("after")
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("%d changes, the slowest was seen after %v", n, slowest)
	return n
}
