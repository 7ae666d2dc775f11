package vminfo

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// TestMirrorOfAMirror: the third meta9d has what the first has, after the first and
// the second were killed and started again in the middle of updates; and whoever
// followed the third's stream has it too, with nothing twice and nothing missing.
func TestMirrorOfAMirror(t *testing.T) {
	first := start(t)
	second := start(t, "--vminfod-from", first.url)
	third := start(t, "--data", "", "--vminfod-from", second.url)
	f := follow(third.events("?since=0"))
	f.until(func() bool { return true })
	first.verb(`create {"uuid":%q}`, testenv.UUID(2)) // stays, whatever the writers have at a kill
	f.until(func() bool { return f.vms[testenv.UUID(2)] != "" })
	more := func(n int) {
		n += f.seen
		f.until(func() bool { return f.seen > n })
	}

	for round := range 3 {
		stop := make(chan error, 1)
		go func() { stop <- first.churn(round, forever) }()
		more(50)
		second.Restart() // while the first is written to
		more(50)
		first.Kill()
		if err := <-stop; err == nil {
			t.Fatal("the writer did not notice")
		}
		testenv.Eventually(t, "the mirror is stale", func() bool { return strings.Contains(second.get("/status"), `"status":"stale"`) })
		if len(second.vms()) == 0 {
			t.Error("what was known cannot be read")
		}
		d, err := daemon.Start(first.Options)
		if err != nil {
			t.Fatal(err)
		}
		first.Daemon = d
	}
	if err := first.churn(9, 101); err != nil {
		t.Fatal(err)
	}
	first.verb(`create {"uuid":%q}`, testenv.UUID(1))
	f.until(func() bool { return f.vms[testenv.UUID(1)] != "" })

	want := first.vms()
	for name, got := range map[string]map[string]string{"second": second.vms(), "third": third.vms(), "stream of the third": f.vms} {
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-first +it):\n%s", name, d)
		}
	}
	if err := third.Ctl("delete " + testenv.UUID(1)); err == nil || !strings.Contains(err.Error(), "read only file system") {
		t.Errorf("a write to a mirror: %v", err)
	}
}

// TestMirrorNeedsItsFolder: a folder with VMs of its own is not mirrored over.
func TestMirrorNeedsItsFolder(t *testing.T) {
	s := start(t)
	s.verb(`create {"uuid":%q}`, testenv.UUID(1))
	if err := s.Stop(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	o := s.Options
	o.Args = append(o.Args, "--vminfod-from", "http://127.0.0.1:1")
	if d, err := daemon.Start(o); err == nil || !strings.Contains(err.Error(), "folder of its own") {
		if err == nil {
			d.Kill()
			err = errors.New("it started")
		}
		t.Error(err)
	}
}

// TestMirrorOfOneThatStandsStill: an upstream that is stopped keeps its connections, and
// the mirror says within 15 s that what it shows may be old: in /status, /readyz, ctl and
// its gauge. It can be read all the same, and goes on with the upstream.
func TestMirrorOfOneThatStandsStill(t *testing.T) {
	first := start(t, "--data", "")
	first.verb(`create {"uuid":%q}`, testenv.UUID(1))
	second := start(t, "--data", "", "--vminfod-from", first.url)
	is := func(stale bool) string {
		status, code, gauge, ctl := "working", http.StatusOK, 0, "current"
		if stale {
			status, code, gauge, ctl = "stale", http.StatusServiceUnavailable, 1, "stale"
		}
		ready, text := second.ask("/readyz")
		state, err := second.Conn("").Sread(0, "ctl")
		switch {
		case err != nil:
			t.Fatal(err)
		case ready != code, stale != strings.Contains(text, "/ping"):
			return fmt.Sprintf("/readyz: %d %s", ready, text)
		case !strings.Contains(second.get("/status"), fmt.Sprintf(`"status":%q`, status)):
			return "/status: " + second.get("/status")
		case !strings.Contains(second.get("/metrics"), fmt.Sprintf("\nmeta9_mirror_stale %d\n", gauge)):
			return "no such gauge"
		case !strings.Contains(string(state), " "+ctl+"\n"):
			return string(state)
		}
		return ""
	}
	became := func(stale bool, within time.Duration) {
		t.Helper()
		begun := time.Now()
		for wrong := "?"; wrong != ""; time.Sleep(50 * time.Millisecond) {
			if wrong = is(stale); time.Since(begun) > within && wrong != "" {
				t.Fatalf("not stale %v after %v: %s", stale, within, wrong)
			}
		}
		t.Logf("stale %v after %v", stale, time.Since(begun))
	}
	became(false, 20*time.Second)
	if err := first.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	became(true, 15*time.Second)
	if len(second.vms()) != 1 {
		t.Error("what was known cannot be read")
	}
	if err := first.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	became(false, 15*time.Second)
	first.verb(`create {"uuid":%q}`, testenv.UUID(2))
	testenv.Eventually(t, "the stream goes on", func() bool { return len(second.vms()) == 2 })
}
