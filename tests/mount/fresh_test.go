package mount

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"meta9/tests/guest/agent"
	"meta9/tests/mount/work"
)

// freshWrites is how often the host writes the key in each form; the soak writes more.
var freshWrites = 150

// fresh: whoever is told by the mount's events file, by `meta9 watch` or by `meta9 watch --exec`
// that a key has changed, and reads it at the mount, reads that value or a later one, while
// others read all the time; and who is told misses nothing. Three times: without trouble, while
// the link is cut at random, and over restarts of meta9d, planned and by kill -9. A command that
// fails is run again.
//
// With readEvents of session/keep/fusefs not waiting for passed, which is to tell first and to
// forget after that, this failed by FUSE: for the file of events at once, and in each form where
// the mount took 5 ms more to forget. TestForgottenFirst there needs no luck for it.
func fresh(t *testing.T, w *world) {
	const key = "fresh"
	w.mount(t, "")
	writes, pace := freshWrites, 10*time.Millisecond
	if w.cloud { // an emulated processor is slow
		writes, pace = writes/5, 5*pace
	}
	last := 3 * writes
	w.writes(t, key, 0, 1, 0)
	w.Sh(t, "rm -f /tmp/exec.* /tmp/events.* /tmp/watch.*")
	var done []<-chan agent.Reply
	for _, command := range []string{"fresh events", "fresh -watch watch"} {
		ch, err := w.Start("/", 0, fmt.Sprintf("%s %s %s %d", command, dir, key, last))
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, ch)
	}
	w.Sh(t, fmt.Sprintf("{ exec meta9 watch --initial --debounce 5ms --exec 'told exec %s %s' %s; } >/tmp/exec.log 2>&1 </dev/null & echo $! >/tmp/exec.pid", dir, key, keys))
	w.until(t, "all are told of events", func() bool {
		w.writes(t, key, 0, 1, 0)
		_, missing, err := w.Guest.Run("/", 0, "[ -e /tmp/events.open ] && [ -e /tmp/watch.open ] && [ -e /tmp/exec.told ]")
		return err == nil && missing == 0
	})

	w.writes(t, key, 1, writes+1, pace)

	if w.via == "fuse" { // where replies are ten times as many
		w.cut.spares = 10
	}
	back := make(chan bool)
	go func() { back <- w.cut.chop(writes/10, 10*pace, 0) }()
	w.writes(t, key, writes+1, 2*writes+1, pace)
	if !<-back {
		t.Errorf("the guest did not come back; sessions: %v", w.sessions(t))
	}

	// A planned restart keeps what is half read; a kill does not (docs/tree.md), so that before
	// it all have read the newest value.
	kill := func() {
		w.until(t, "all have read the newest value", func() bool {
			return w.Sh(t, "cat /tmp/events.read /tmp/watch.read /tmp/exec.told | tr -d '\n'") == strings.Repeat(fmt.Sprint(2*writes+2*(writes/3)), 3)
		})
		w.kill()
	}
	n := 2*writes + 1
	for _, restart := range []func(){func() { w.PlannedRestart(); w.moved() }, kill} {
		w.writes(t, key, n, n+writes/3, pace)
		n += writes / 3
		restart()
	}
	w.writes(t, key, n, last+1, pace)

	for i, ch := range done {
		select {
		case r := <-ch:
			if r.Status != 0 {
				t.Errorf("reader %d: exit %d: %s", i, r.Status, r.Output)
			}
			t.Logf("reader %d: %s", i, r.Output)
		case <-time.After(2 * time.Minute):
			t.Errorf("reader %d misses the last event; sessions: %v", i, w.sessions(t))
		}
	}
	w.until(t, "the command has seen the last value", func() bool {
		return w.Sh(t, "cat /tmp/exec.told") == fmt.Sprint(last)
	})
	w.Sh(t, "kill $(cat /tmp/exec.pid); while [ -e /proc/$(cat /tmp/exec.pid)/exe ]; do sleep 0.05; done")
	if bad := w.Sh(t, "cat /tmp/exec.bad 2>/dev/null || :"); bad != "" {
		t.Errorf("the command: %s", bad)
	}
	log := w.Sh(t, "cat /tmp/exec.log")
	if !strings.Contains(log, "exit status 1; it is tried again") {
		t.Errorf("the log does not say that a command has failed: %s", log)
	}
	t.Logf("%d writes; the command has run %s times", last, w.Sh(t, "wc -c </tmp/exec.runs"))
	w.unmount(t)
}

// until waits for what the guest comes to.
func (w *world) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s; sessions: %v", what, w.sessions(t))
		}
	}
}

// writes has the host make the values from to below to of a key.
func (w *world) writes(t *testing.T, key string, from, to int, pace time.Duration) {
	t.Helper()
	c, err := w.Dial("vms/" + uuid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := from; n < to; n++ {
		if err := c.Swrite(0, []byte(work.Write(key, n)), "txn"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pace)
	}
}
