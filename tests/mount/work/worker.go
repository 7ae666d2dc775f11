package work

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// worker is a program that changes keys, one thing after the other, and knows what
// each must have by now. Nobody else changes them, so that whatever was done twice,
// or not at all, or by halves, contradicts it.
type worker struct {
	id    int
	dir   string // of the keys
	stop  string // a file: it works until that is there
	tell  string // a file: how many steps it has done
	lossy bool   // a change may fail with EIO, since the server gets killed
	rng   *rand.Rand

	keys   map[string]string // of its own that are there
	log    *os.File          // open all the time, to append
	held   *os.File          // a key of its own, open all the time
	report Report
}

// Run is the command: it works until its -stop file is there and prints its Report.
func Run(args []string) error {
	w := &worker{keys: make(map[string]string), report: Report{Done: make(map[string]int)}}
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.IntVar(&w.id, "id", 0, "which worker it is")
	flags.StringVar(&w.dir, "dir", "", "the folder of the keys")
	flags.StringVar(&w.stop, "stop", "", "work until this file is there")
	flags.StringVar(&w.tell, "tell", "", "write the number of steps done to this file")
	flags.BoolVar(&w.lossy, "lossy", false, "changes may fail with EIO")
	seed := flags.Uint64("seed", 1, "what all that is random grows from")
	if err := flags.Parse(args); err != nil {
		return err
	}
	w.rng = rand.New(rand.NewPCG(*seed, uint64(w.id)))
	if err := w.begin(); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if _, err := os.Stat(w.stop); err == nil {
			break
		}
		w.step()
		if err := os.WriteFile(w.tell, fmt.Append(nil, n), 0o644); err != nil {
			return err
		}
	}
	w.end()
	return json.NewEncoder(os.Stdout).Encode(w.report)
}

// begin opens what stays open.
func (w *worker) begin() (err error) {
	name := Prefix(w.id) + "held"
	if w.held, err = os.OpenFile(w.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	w.keys[name] = ""
	w.log, err = os.OpenFile(w.path(Log), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return err
}

// end looks at all once more.
func (w *worker) end() {
	w.closed("held", w.held)
	w.closed("log", w.log)
	w.list()
	w.report.Keys = make(map[string]string)
	for name, value := range w.keys {
		w.verify(name)
		w.report.Keys[name] = Digest(value)
	}
}

// step does one of the things that programs do, and counts it.
func (w *worker) step() {
	n := w.rng.IntN(weights)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			a.do(w)
			w.report.Done[a.name]++
			return
		}
	}
}

func (w *worker) path(name string) string { return filepath.Join(w.dir, name) }

// wrong notes what was not as it had to be.
func (w *worker) wrong(format string, args ...any) {
	w.report.Wrongs++
	if len(w.report.Wrong) < 20 {
		w.report.Wrong = append(w.report.Wrong, fmt.Sprintf(format, args...))
	}
}

// closed closes f, which never fails.
func (w *worker) closed(name string, f *os.File) {
	if err := f.Close(); err != nil {
		w.wrong("closing %s: %v", name, err)
	}
}

// value is what a key has; there is false for none.
type value struct {
	data  string
	there bool
}

func (w *worker) value(name string) value {
	data, there := w.keys[name]
	return value{data, there}
}

func (w *worker) set(name string, v value) {
	if delete(w.keys, name); v.there {
		w.keys[name] = v.data
	}
}

// look reads a key. Reading never fails, also where changes may.
func (w *worker) look(name string) (v value, ok bool) {
	b, err := os.ReadFile(w.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return value{}, true
	case err != nil:
		w.wrong("reading %s: %v", name, err)
		return value{}, false
	}
	return value{string(b), true}, true
}

// verify looks whether a key is as it must be.
func (w *worker) verify(name string) {
	if seen, ok := w.look(name); ok && seen != w.value(name) {
		w.wrong("%s is %s, want %s", name, seen, w.value(name))
		w.set(name, seen)
	}
}

// String is short.
func (v value) String() string {
	if !v.there {
		return "absent"
	}
	return fmt.Sprintf("%s (%.60q)", Digest(v.data), v.data)
}

// A change is how a key becomes something else.
type change struct {
	name   string
	next   value
	pieces bool // from nothing, piece by piece: it may end before next
	// stale tells that ESTALE may come, where EIO may: a file that was open while it
	// was truncated, and not yet written, is not restored.
	stale bool
	do    func() error
}

// make does a change. If that may fail and does, either it was done, once, or it
// was not.
func (w *worker) make(c change) {
	old := w.value(c.name)
	err := c.do()
	if err == nil {
		w.set(c.name, c.next)
		return
	}
	w.failed(c.name, err, c.stale)
	seen, ok := w.look(c.name)
	if !ok {
		return
	}
	piece := c.pieces && seen.there && strings.HasPrefix(c.next.data, seen.data)
	if seen != old && seen != c.next && !piece {
		w.wrong("%s is %s after %v, it was %s and was to be %s", c.name, seen, err, old, c.next)
	}
	w.set(c.name, seen)
}

// failed judges an error of a change.
func (w *worker) failed(what string, err error, stale bool) {
	if w.lossy && (errors.Is(err, syscall.EIO) || stale && errors.Is(err, syscall.ESTALE)) {
		w.report.Refused++
		return
	}
	w.wrong("%s: %v", what, err)
}
