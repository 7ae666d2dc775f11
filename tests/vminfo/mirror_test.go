package vminfo

import (
	"errors"
	"strings"
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
