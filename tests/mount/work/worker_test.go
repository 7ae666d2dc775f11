package work

import (
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
)

// local is a worker on a folder of this machine, which refuses no mkdir.
func local(t *testing.T, lossy bool) *worker {
	w := &worker{
		dir: t.TempDir(), lossy: lossy, rng: rand.New(rand.NewPCG(1, 2)),
		keys: make(map[string]string), report: Report{Done: make(map[string]int)},
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	return w
}

// work does steps, and gives what was wrong beside mkdir.
func (w *worker) work(steps int) (wrong []string) {
	for range steps {
		w.step()
	}
	w.end()
	for _, s := range w.report.Wrong {
		if !strings.HasPrefix(s, "mkdir folder") {
			wrong = append(wrong, s)
		}
	}
	return wrong
}

// TestRight: where files are as they have to be, a worker finds nothing.
func TestRight(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		w := local(t, lossy)
		if wrong := w.work(2000); len(wrong) > 0 {
			t.Error(wrong)
		}
		for _, a := range acts {
			if w.report.Done[a.name] == 0 {
				t.Errorf("it never did %s", a.name)
			}
		}
		if w.report.Refused > 0 || len(w.report.Keys) == 0 || w.report.Lines == 0 {
			t.Errorf("%+v", w.report)
		}
	}
}

// TestWrong: a worker that may meet refused changes, too, sees whatever was not
// done, done twice, or done by halves.
func TestWrong(t *testing.T) {
	for name, harm := range map[string]func(w *worker, key string) error{
		"removed":   func(w *worker, key string) error { return os.Remove(w.path(key)) },
		"truncated": func(w *worker, key string) error { return os.Truncate(w.path(key), int64(len(w.keys[key])-1)) },
		"twice": func(w *worker, key string) error {
			return os.WriteFile(w.path(key), []byte(w.keys[key]+w.keys[key]), 0o600)
		},
		"back again": func(w *worker, key string) error {
			delete(w.keys, key)
			return nil
		},
	} {
		for _, lossy := range []bool{false, true} {
			w := local(t, lossy)
			w.keys["w0-left"] = "a value"
			if err := os.WriteFile(w.path("w0-left"), []byte("a value"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := harm(w, "w0-left"); err != nil {
				t.Fatal(err)
			}
			if wrong := w.work(20); len(wrong) == 0 {
				t.Errorf("%s: nothing was wrong", name)
			}
		}
	}
}

// TestRefused: a change that failed was done or not; anything else is wrong.
func TestRefused(t *testing.T) {
	w := local(t, true)
	for _, tt := range []struct {
		is, next value
		pieces   bool
		wrong    bool
	}{
		{value{"old", true}, value{"new", true}, false, false},
		{value{"new", true}, value{"new", true}, false, false},
		{value{"newnew", true}, value{"new", true}, false, true},
		{value{"ne", true}, value{"new", true}, false, true},
		{value{"ne", true}, value{"new", true}, true, false},
		{value{}, value{"new", true}, true, true},
		{value{}, value{}, false, false},
		{value{"", true}, value{}, false, true},
	} {
		w.keys["k"], w.report = "old", Report{}
		w.make(change{name: "k", next: tt.next, pieces: tt.pieces, do: func() error {
			os.Remove(w.path("k"))
			if tt.is.there {
				if err := os.WriteFile(w.path("k"), []byte(tt.is.data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			return os.NewSyscallError("write", syscall.EIO)
		}})
		if got := w.report.Wrongs > 0; got != tt.wrong || w.report.Refused != 1 || w.value("k") != tt.is {
			t.Errorf("%v instead of %v: %+v", tt.is, tt.next, w.report)
		}
	}
	w.lossy = false
	w.report = Report{}
	if w.failed("x", syscall.EIO, false); w.report.Wrongs != 1 {
		t.Error("EIO is right")
	}
}

// TestFsx: where files are as they have to be nothing is wrong, and whatever is not is
// found.
func TestFsx(t *testing.T) {
	if err := Fsx([]string{t.TempDir() + "/x", "-steps", "1000"}); err != nil {
		t.Error(err)
	}
	x := &fsx{name: t.TempDir() + "/x", rng: rand.New(rand.NewPCG(1, 1)), model: []byte("another")}
	if err := os.WriteFile(x.name, []byte("a value"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := x.reopen(); err != nil {
		t.Fatal(err)
	}
	defer x.f.Close()
	for name, look := range map[string]func() error{"whole": x.whole, "mapped": x.mapped} {
		if look() == nil {
			t.Errorf("%s sees nothing", name)
		}
	}
}
