package work

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	ownKeys  = 12       // names that a worker makes and removes again and again
	maxLines = 5000     // that a worker appends to the log: a value has its limit
	maxValue = 64 << 10 // past it, a value is not appended to
	bigValue = 100 << 10
)

// acts are what programs do, and how often.
var acts = []struct {
	name   string
	weight int
	do     func(*worker)
}{
	{"create", 4, (*worker).create},
	{"write", 4, (*worker).rewrite},
	{"patch", 2, (*worker).patch},
	{"append", 3, (*worker).append},
	{"truncate", 1, (*worker).truncate},
	{"read", 5, (*worker).read},
	{"list", 1, (*worker).list},
	{"rename", 3, (*worker).rename},
	{"replace", 1, (*worker).replace},
	{"remove", 2, (*worker).remove},
	{"mkdir", 1, (*worker).mkdir},
	{"log", 4, (*worker).logOpen},
	{"echo to log", 1, (*worker).logEcho},
	{"held", 3, (*worker).heldWrite},
	{"fsync", 1, (*worker).heldSync},
	{"flock", 1, (*worker).flock},
}

// weights is the sum of theirs.
var weights = func() (n int) {
	for _, a := range acts {
		n += a.weight
	}
	return n
}()

// pick is the name of an own key that is there, or of one that is not; false: there
// is none.
func (w *worker) pick(there bool) (string, bool) {
	first := w.rng.IntN(ownKeys)
	for i := range ownKeys {
		name := Prefix(w.id) + strconv.Itoa((first+i)%ownKeys)
		if _, is := w.keys[name]; is == there {
			return name, true
		}
	}
	return "", false
}

// bytes makes up n bytes.
func (w *worker) bytes(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	return string(b)
}

// data makes up a value: most are short, and some take many messages.
func (w *worker) data() string {
	if w.rng.IntN(12) == 0 {
		return w.bytes(w.rng.IntN(bigValue))
	}
	return w.bytes(w.rng.IntN(200))
}

// write opens a key, writes to it, and closes it.
func (w *worker) write(name string, flags int, data string) error {
	f, err := os.OpenFile(w.path(name), flags|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer w.closed(name, f)
	_, err = f.WriteString(data)
	return err
}

// create makes a key that must not be there.
func (w *worker) create() {
	if name, ok := w.pick(false); ok {
		data := w.data()
		w.make(change{name: name, next: value{data, true}, pieces: true, do: func() error {
			return w.write(name, os.O_CREATE|os.O_EXCL, data)
		}})
	}
}

// rewrite is `echo v > key`.
func (w *worker) rewrite() {
	if name, ok := w.pick(true); ok {
		data := w.data()
		w.make(change{name: name, next: value{data, true}, pieces: true, stale: true, do: func() error {
			return w.write(name, os.O_CREATE|os.O_TRUNC, data)
		}})
	}
}

// patched is old with data written over it at off.
func patched(old string, off int, data string) string {
	if end := off + len(data); end < len(old) {
		return old[:off] + data + old[end:]
	}
	return old[:off] + data
}

func (w *worker) patch() {
	name, ok := w.pick(true)
	if !ok {
		return
	}
	old, data := w.keys[name], w.bytes(1+w.rng.IntN(50))
	off := w.rng.IntN(len(old) + 1)
	w.make(change{name: name, next: value{patched(old, off, data), true}, do: func() error {
		f, err := os.OpenFile(w.path(name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer w.closed(name, f)
		_, err = f.WriteAt([]byte(data), int64(off))
		return err
	}})
}

func (w *worker) append() {
	if name, ok := w.pick(true); ok && len(w.keys[name]) < maxValue {
		data := w.bytes(1 + w.rng.IntN(100))
		w.make(change{name: name, next: value{w.keys[name] + data, true}, do: func() error {
			return w.write(name, os.O_APPEND, data)
		}})
	}
}

// truncate makes a key shorter, or longer by zeros.
func (w *worker) truncate() {
	name, ok := w.pick(true)
	if !ok {
		return
	}
	data := w.keys[name] + strings.Repeat("\x00", 20)
	data = data[:w.rng.IntN(len(data))]
	w.make(change{name: name, next: value{data, true}, do: func() error {
		return os.Truncate(w.path(name), int64(len(data)))
	}})
}

func (w *worker) read() {
	if name, ok := w.pick(w.rng.IntN(5) > 0); ok {
		w.verify(name)
	}
}

// list looks which of its keys are there.
func (w *worker) list() {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.wrong("listing: %v", err)
		return
	}
	var seen []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), Prefix(w.id)) {
			seen = append(seen, e.Name())
		}
	}
	if want := slices.Sorted(maps.Keys(w.keys)); !slices.Equal(seen, want) {
		w.wrong("listed %q, want %q", seen, want)
	}
}

// rename gives a key a name that is free, replace one that is not.
func (w *worker) rename() {
	from, ok := w.pick(true)
	if to, free := w.pick(false); ok && free {
		w.move(from, to)
	}
}

func (w *worker) replace() {
	from, ok := w.pick(true)
	if to, _ := w.pick(true); ok && from != to {
		w.move(from, to)
	}
}

// move renames. Where that may fail and does, both names tell whether it was done.
func (w *worker) move(from, to string) {
	moved, replaced := w.value(from), w.value(to)
	err := os.Rename(w.path(from), w.path(to))
	if err == nil {
		w.set(from, value{})
		w.set(to, moved)
		return
	}
	w.failed("renaming "+from, err, false)
	a, ok := w.look(from)
	b, okToo := w.look(to)
	if !ok || !okToo {
		return
	}
	if done, not := !a.there && b == moved, a == moved && b == replaced; !done && !not {
		w.wrong("after %v %s is %s and %s is %s, they were %s and %s", err, from, a, to, b, moved, replaced)
	}
	w.set(from, a)
	w.set(to, b)
}

func (w *worker) remove() {
	name, ok := w.pick(true)
	if !ok {
		return
	}
	w.make(change{name: name, do: func() error { return syscall.Unlink(w.path(name)) }}) // os.Remove would go on to rmdir(2)
	if _, there := w.keys[name]; there {
		return
	}
	if _, err := os.Stat(w.path(name)); !errors.Is(err, fs.ErrNotExist) {
		w.wrong("the removed %s: %v", name, err)
	}
}

// mkdir is refused: folders come with a VM.
func (w *worker) mkdir() {
	for name, want := range map[string]error{"folder": syscall.EPERM, Prefix(w.id) + "held": syscall.EEXIST} {
		err := os.Mkdir(w.path(name), 0o755)
		switch {
		case w.lossy && errors.Is(err, syscall.EIO):
			w.report.Refused++
		case !errors.Is(err, want):
			w.wrong("mkdir %s: %v", name, err)
		}
	}
}

// logOpen appends to the log, by the file that is open all the time; logEcho is
// `echo line >> log`.
func (w *worker) logOpen() {
	w.logLine(func(s string) error { _, err := w.log.WriteString(s); return err })
}

func (w *worker) logEcho() { w.logLine(func(s string) error { return w.write(Log, os.O_APPEND, s) }) }

func (w *worker) logLine(do func(line string) error) {
	if w.report.Lines == maxLines {
		return
	}
	w.report.Lines++
	if err := do(Line(w.id, w.report.Lines)); err != nil {
		w.failed("the log", err, false)
		w.report.Maybe = append(w.report.Maybe, w.report.Lines)
	}
}

// heldWrite writes to the key that is open all the time, somewhere, and reads it
// through that file.
func (w *worker) heldWrite() {
	name := Prefix(w.id) + "held"
	old, data := w.keys[name], w.bytes(1+w.rng.IntN(50))
	off := w.rng.IntN(min(len(old), 4096) + 1)
	w.make(change{name: name, next: value{patched(old, off, data), true}, do: func() error {
		_, err := w.held.WriteAt([]byte(data), int64(off))
		return err
	}})
	got := make([]byte, len(w.keys[name])+1)
	n, err := w.held.ReadAt(got, 0)
	if !errors.Is(err, io.EOF) || string(got[:n]) != w.keys[name] {
		w.wrong("the held key is %.60q, %v, want %.60q", got[:n], err, w.keys[name])
	}
}

func (w *worker) heldSync() {
	if err := w.held.Sync(); err != nil {
		w.failed("fsync", err, false)
	}
}

// flock locks a key of its own, and sees that it is locked.
func (w *worker) flock() {
	name, ok := w.pick(true)
	if !ok {
		return
	}
	var files [2]*os.File
	for i := range files {
		f, err := os.OpenFile(w.path(name), os.O_RDWR, 0)
		if err != nil {
			w.wrong("opening %s: %v", name, err)
			return
		}
		defer w.closed(name, f)
		files[i] = f
	}
	if err := syscall.Flock(int(files[0].Fd()), syscall.LOCK_EX); err != nil {
		w.failed("flock", err, true)
		return
	}
	err := syscall.Flock(int(files[1].Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if !w.lossy && !errors.Is(err, syscall.EAGAIN) { // a lock does not outlive its session
		w.wrong("a second lock on %s: %v", name, err)
	}
}
