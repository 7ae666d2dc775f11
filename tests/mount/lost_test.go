package mount

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

var ways = []string{"tcp", "virtio", "fuse"}

// byWay runs a test by each way to meta9d, both at once: most of it is waiting.
func byWay(t *testing.T, do func(t *testing.T, via string)) {
	for _, via := range ways {
		t.Run(via, func(t *testing.T) {
			t.Parallel()
			do(t, via)
		})
	}
}

// TestBroken breaks the way to meta9d, and meta9d itself, in one boot by each way.
func TestBroken(t *testing.T) {
	byWay(t, func(t *testing.T, via string) {
		w := newWorld(t, via, daemon.Options{})
		for _, s := range []struct {
			name string
			do   func(t *testing.T, w *world)
		}{
			{"stopped", stopped},
			{"restarted", restarted},
			{"killed", killed},
			{"unanswered", unanswered},
			{"fresh", fresh},
			{"cuts", cuts},
		} {
			if s.name == "fresh" && via != "fuse" {
				continue // v9fs keeps nothing
			}
			t.Run(s.name, func(t *testing.T) {
				for name := range w.values(t) {
					if name != "motd" {
						w.remove(t, name) // what the last has left
					}
				}
				s.do(t, w)
			})
		}
	})
}

// stopped: meta9d stands still for 20 s under work. Nobody gets an error.
func stopped(t *testing.T, w *world) {
	const still = 20 * time.Second
	w.mount(t, "")
	c := w.work(t, false)
	if err := w.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	before := c.steps(t)
	time.Sleep(still)
	if now := c.steps(t); now[0] > before[0]+1 {
		t.Errorf("a worker goes on without meta9d: %v, before %v", now, before)
	}
	if err := w.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.progress(t, 20)
	c.stop(t)
	w.unmount(t)
}

// restarted: meta9d is stopped and started again and again under work. Nobody gets an
// error, and the session is the one that it was.
func restarted(t *testing.T, w *world) {
	const restarts = 4
	w.mount(t, "")
	c := w.work(t, false)
	before := w.sessions(t)
	rng := rand.New(rand.NewPCG(*seed, 5))
	for i := range restarts {
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		w.PlannedRestart()
		w.moved()
		if log := w.Log(); !strings.Contains(log, `"message":"restored"`) {
			t.Errorf("restart %d: %s", i, log)
		}
		c.progress(t, 5)
	}
	if after := w.sessions(t); len(after) != len(before) {
		t.Errorf("sessions: %v, before %v", after, before)
	}
	c.stop(t)
	w.unmount(t)
}

// killed: meta9d is killed again and again under work, and comes back on what it
// left. Nobody gets an error.
func killed(t *testing.T, w *world) {
	const kills = 10
	w.mount(t, "")
	c := w.work(t, false)
	rng := rand.New(rand.NewPCG(*seed, 3))
	for range kills {
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		w.kill()
		c.progress(t, 5)
	}
	c.stop(t)
	w.unmount(t)
}

// unanswered: meta9d is killed when it has executed a change and the answer is
// under way, and when the change itself is. It is executed once, and nobody gets an error.
func unanswered(t *testing.T, w *world) {
	w.mount(t, "")
	for name, k := range map[string]kind{"executed": {mute: true}, "never seen": {deaf: true}} {
		t.Run(name, func(t *testing.T) {
			w.Sh(t, "rm -f /tmp/go /tmp/open; : > "+keys+"/log")
			done, err := w.Start("/", 0, "exec 3>>"+keys+"/log; touch /tmp/open; until [ -e /tmp/go ]; do sleep 0.02; done; echo one >&3; echo two >&3")
			if err != nil {
				t.Fatal(err)
			}
			w.Sh(t, "until [ -e /tmp/open ]; do sleep 0.02; done")
			lost := w.cut.swallowed()
			w.cut.hold(k)
			w.Sh(t, "touch /tmp/go")
			if k.mute {
				testenv.Eventually(t, "the change is executed", func() bool { return w.values(t)["log"] == "one\n" })
			} else {
				testenv.Eventually(t, "the change has left", func() bool { return w.cut.swallowed() > lost })
			}
			w.kill()
			r := <-done
			if r.Status != 0 || len(r.Output) > 0 {
				t.Errorf("exit %d: %s", r.Status, r.Output)
			}
			if got := w.values(t)["log"]; got != "one\ntwo\n" {
				t.Errorf("the log is %q", got)
			}
		})
	}
	w.unmount(t)
}

// TestLost: the session is lost, since it has expired or meta9d was killed and has no journal, while
// programs have files open. Those that are what they were go on; those that cannot
// be restored get ESTALE, and nothing else does.
func TestLost(t *testing.T) {
	byWay(t, func(t *testing.T, via string) {
		w := newWorld(t, via, daemon.Options{Config: "[session]\nlifetime = \"1s\"\njournal = false\n"})
		w.mount(t, "")
		for name, lose := range map[string]func(t *testing.T){
			"expired": func(t *testing.T) {
				testenv.Eventually(t, "the session expires", func() bool { return len(w.sessions(t)) == 0 })
			},
			"killed": func(*testing.T) { w.kill() },
		} {
			t.Run(name, func(t *testing.T) { w.lose(t, lose) })
		}
		w.unmount(t)
	})
}

// held are the files that programs have open, how (work.Hold), and what becomes of
// each.
var held = []struct{ mode, name, says, value string }{
	{"r", "read", "read old value", "old value"},
	{"w", "written", "read old value, wrote", "Wld value"},
	{"a", "appended", "wrote", "old valueW"},
	{"w", "removed", "stale file handle, stale file handle", ""},
	{"w", "replaced", "stale file handle, stale file handle", "another"},
	{"lock", "locked", "stale file handle, stale file handle", "old value"},
	{"trunc", "truncated", "stale file handle, stale file handle", "old value"},
	{"rn", "../events", "stale file handle", ""},
}

func (w *world) lose(t *testing.T, lose func(t *testing.T)) {
	w.Sh(t, "rm -f /tmp/go*")
	command := "cd " + keys + "; hold /tmp/go"
	for _, h := range held {
		if h.name != "../events" {
			w.put(t, h.name, "old value")
		}
		command += " " + h.mode + ":" + h.name
	}
	done, err := w.Start("/", 0, command)
	if err != nil {
		t.Fatal(err)
	}
	w.Sh(t, "until [ -e /tmp/go.held ]; do sleep 0.1; done")
	w.cut.close()
	lose(t)
	w.remove(t, "removed")
	w.remove(t, "replaced")
	w.put(t, "replaced", "another")
	w.open(t)
	w.Sh(t, "touch /tmp/go")
	r := <-done
	lines := strings.Split(string(r.Output), "\n")
	if r.Status != 0 || len(lines) != len(held)+1 {
		t.Fatalf("exit %d: %s", r.Status, r.Output)
	}
	values := w.values(t)
	for i, h := range held {
		if want := h.name + ": " + h.says; lines[i] != want {
			t.Errorf("%q, want %q", lines[i], want)
		}
		if values[h.name] != h.value {
			t.Errorf("%s is %q on the host, want %q", h.name, values[h.name], h.value)
		}
	}
	for _, h := range held {
		if h.value != "" { // all can be opened anew
			w.Sh(t, fmt.Sprintf("cd %s && [ \"$(cat %s)\" = '%s' ] && echo new > %[2]s && flock %[2]s rm %[2]s", keys, h.name, h.value))
		}
	}
}
