//go:build soak

package restart

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"meta9/session/client/eventtest"
	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/mount/work"
	"meta9/tests/soak"
	"meta9/tests/testenv"
)

// oldCommit is the one before the version names that end in .2: there are guests that have
// its meta9, whose sessions do not outlive a kill.
const oldCommit = "0c8751fe930c6be1ac944aaca7a96b08516fc68a^"

// buildOld builds meta9d and meta9 of oldCommit, where the history is there.
func buildOld(t *testing.T) (meta9d, meta9 string) {
	t.Helper()
	root := testenv.Root(t)
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	git := func(args ...string) ([]byte, error) {
		return exec.Command("git", append([]string{"-C", root}, args...)...).CombinedOutput()
	}
	if out, err := git("worktree", "add", "--detach", src, oldCommit); err != nil {
		t.Skipf("there is no commit %s here, of which the old binaries are to be built: %s", oldCommit, out)
	}
	t.Cleanup(func() {
		if out, err := git("worktree", "remove", "--force", src); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Setenv("CGO_ENABLED", "0")
	var err error
	if meta9d, err = daemon.BuildIn(src, dir, "meta9d"); err == nil {
		meta9, err = daemon.BuildIn(src, dir, "meta9")
	}
	if err != nil {
		t.Fatal(err)
	}
	return meta9d, meta9
}

// workers are the clients of a test of old and new.
type workers struct {
	w        *world
	stop     chan struct{}
	did      [writers]writer
	events   func() []eventtest.Event
	commands atomic.Int64
	keepers  []func() []work.Report
	lossy    bool
	resumes  int // ends of meta9d
}

// begin has session/client, the meta9 of that file as commands, and a mount by that of
// another work.
func (w *world) begin(command, mount string, lossy bool) *workers {
	b := &workers{w: w, stop: make(chan struct{}), lossy: lossy, events: w.watch()}
	for id := range b.did {
		w.running.Go(func() { w.write(id, b.stop, &b.did[id]) })
	}
	w.running.Go(func() { w.commands(command, b.stop, func() { b.commands.Add(1) }) })
	b.keepers = append(b.keepers, w.keeper(mount, 3, lossy))
	b.goOn(0) // who connects for the first time does not try again
	return b
}

// goOn waits until all go on, after so many more ends of meta9d.
func (b *workers) goOn(more int) {
	b.w.t.Helper()
	b.resumes += more
	b.w.settle(b.resumes, &b.did)
	before := b.commands.Load()
	testenv.Eventually(b.w.t, "the commands go on", func() bool { return b.commands.Load() > before || b.w.t.Failed() })
}

// restartAndUpdate does so many planned restarts and live updates in turn, and holds after
// each that all go on, and what the log says (quiet).
func (b *workers) restartAndUpdate(times int, quiet func(log string)) {
	b.w.t.Helper()
	for range times {
		quiet(b.w.PlannedRestart())
		b.goOn(1)
		b.w.LiveUpdate()
		b.goOn(0)
	}
}

// end holds what came of it.
func (b *workers) end() {
	t := b.w.t
	t.Helper()
	close(b.stop)
	b.w.running.Wait()
	programs := 0
	for _, k := range b.keepers {
		programs += b.w.holds(k(), b.lossy)
	}
	changes, events := b.w.verify(b.events, &b.did)
	if n := b.w.renewed.Load(); n != 0 {
		t.Errorf("%d sessions were not resumed", n)
	}
	t.Logf("%d changes, %d events, %d commands, %d steps in the mount; %d sessions resumed", changes, events, b.commands.Load(), programs, b.w.resumed.Load())
}

// quiet holds that the log has no word of anything wrong.
func (w *world) quiet(log string) {
	w.t.Helper()
	if strings.Contains(log, `"level":"warn"`) || strings.Contains(log, `"level":"error"`) {
		w.t.Error(log)
	}
}

// quietOld is quiet for the log of oldCommit's meta9d. Of the warnings and errors that are in
// its source, one is nobody's fault here: a command that connects while that meta9d stops, when
// its sockets still listen, is hung up on (Server.admit), which is logged as refused
// (Server.begin); it connects again. Today's logs nothing then (TestComesAtTheEnd).
func (w *world) quietOld(log string) {
	w.t.Helper()
	var rest strings.Builder
	for line := range strings.Lines(log) {
		var said struct{ Message, Error string }
		if err := json.Unmarshal([]byte(line), &said); err != nil || said.Message != "connection refused" || !strings.HasSuffix(said.Error, ": the server is stopping") {
			rest.WriteString(line)
		}
	}
	w.quiet(rest.String())
}

// TestSoakOld has today's programs and those of oldCommit work together: a round takes half
// a minute.
func TestSoakOld(t *testing.T) {
	oldD, old9 := buildOld(t)
	new9 := guest.Static(t, "cmd/meta9")
	command := testenv.Binary(t, "meta9")
	newD := testenv.Binary(t, "meta9d")
	guest.Static(t, "tests/guest/guesttool")
	p := soak.Begin(t) // its time begins when all is built
	restarts, updates, kills, found := 0, 0, 0, 0
	for i := p.From(0); p.More(); i++ {
		t.Run("the old keeper and commands, the new daemon", func(t *testing.T) {
			w := newWorldWith(t, daemon.Options{Bin: newD})
			b := w.begin(old9, old9, false)
			b.restartAndUpdate(4, w.quiet)
			restarts, updates = restarts+4, updates+4
			b.end()
		})
		t.Run("the old keeper, the new daemon killed", func(t *testing.T) {
			w := newWorldWith(t, daemon.Options{Bin: newD})
			b := w.begin(command, old9, true)
			for range 4 {
				w.Restart()
				w.quiet(w.Log())
				b.goOn(1)
			}
			kills += 4
			b.end()
		})
		t.Run("the new keeper and commands, the old daemon", func(t *testing.T) {
			w := newWorldWith(t, daemon.Options{Bin: oldD})
			b := w.begin(command, new9, false)
			b.restartAndUpdate(4, w.quietOld)
			restarts, updates = restarts+4, updates+4
			b.end()
		})
		t.Run("restarted into the new daemon", func(t *testing.T) {
			w := newWorldWith(t, daemon.Options{Bin: oldD})
			b := w.begin(command, new9, false)
			b.goOn(0)
			w.Daemon.Options.Bin = newD
			w.quietOld(w.PlannedRestart())
			b.goOn(1)
			for range 4 { // the sessions have the new names by now
				w.Restart()
				w.quiet(w.Log())
				b.goOn(1)
				found += w.figure("requests_found_done")
			}
			restarts, kills = restarts+1, kills+4
			b.end()
		})
		t.Run("restarted into the new daemon, the old keeper", func(t *testing.T) {
			w := newWorldWith(t, daemon.Options{Bin: oldD})
			b := w.begin(old9, old9, false)
			b.goOn(0)
			w.Daemon.Options.Bin = newD
			for i := range 3 {
				log := w.PlannedRestart()
				if i > 0 {
					w.quiet(log)
				} else {
					w.quietOld(log)
				}
				b.goOn(1)
			}
			restarts += 3
			b.end()
		})
		t.Run("updated into the new daemon", func(t *testing.T) {
			w := newWorldWith(t, daemon.Options{Bin: oldD})
			b := w.begin(command, new9, false)
			b.goOn(0)
			if out, err := w.upgrade(newD); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			b.goOn(0)
			w.LiveUpdate()
			b.goOn(0)
			w.Daemon.Options.Bin = newD
			w.quietOld(w.PlannedRestart()) // its log begins with the old one's
			b.goOn(1)
			restarts, updates = restarts+1, updates+2
			b.end()
		})
		t.Run("killed, and the new daemon", func(t *testing.T) {
			w := newWorldWith(t, daemon.Options{Bin: oldD})
			w.keys(map[string]string{"k": "old"})
			s := w.speaker("9P2000.e", 1)
			s.open(1, false, false, false)
			before := s.look(1)
			w.Daemon.Options.Bin = newD
			w.Restart()
			kills++
			w.quiet(w.Log())
			w.knows(t, s, true, before, 2)
		})
		if t.Failed() {
			return
		}
		p.Stopped(i + 1)
		p.Figure("planned restarts", restarts)
		p.Figure("live updates", updates)
		p.Figure("kills", kills)
		p.Figure("requests under way at one that were found done", found)
	}
	if found == 0 {
		t.Error("no request under way at a kill was found done")
	}
}
