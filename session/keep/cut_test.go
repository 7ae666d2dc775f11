package keep_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// worker is a program in a guest: it changes keys of its own, and knows what must
// come of each change. Anything done twice, or not at all, contradicts it.
type worker struct {
	t    *testing.T
	id   int
	rng  *rand.Rand
	keys p9.File // the folder
	log  p9.File // appended to
	want string  // of log
	has  map[string]string
	made int
}

func newWorker(t *testing.T, root p9.File, id int, seed uint64) *worker {
	w := &worker{t: t, id: id, rng: rand.New(rand.NewPCG(seed, uint64(id))), has: make(map[string]string)}
	_, keys, err := root.Walk([]string{"keys"})
	if err != nil {
		t.Fatal(err)
	}
	w.keys = keys
	w.log = w.create(w.name("log"), p9.WriteOnly|linuxAppend)
	return w
}

const linuxAppend p9.OpenFlags = 0o2000

func (w *worker) name(s string) string { return fmt.Sprintf("%d-%s", w.id, s) }

// fail ends the worker, which has seen an error.
func (w *worker) fail(what string, err error) {
	if err == nil {
		err = errors.New("no error")
	}
	w.t.Errorf("worker %d: %s: %v", w.id, what, err)
	panic(w)
}

func (w *worker) create(name string, flags p9.OpenFlags) p9.File {
	_, dir, err := w.keys.Walk(nil)
	if err != nil {
		w.fail("clone", err)
	}
	const excl = 0o200
	f, _, _, err := dir.Create(name, flags|excl, 0o644, p9.NoUID, p9.NoGID)
	if err != nil {
		w.fail("create "+name, err)
	}
	return f
}

func (w *worker) open(name string, flags p9.OpenFlags) p9.File {
	_, f, err := w.keys.Walk([]string{name})
	if err == nil {
		_, _, err = f.Open(flags)
	}
	if err != nil {
		w.fail("open "+name, err)
	}
	return f
}

func (w *worker) close(f p9.File) {
	if err := f.Close(); err != nil {
		w.fail("close", err)
	}
}

func (w *worker) run(steps int, wg *sync.WaitGroup) {
	defer wg.Done()
	defer func() {
		if r := recover(); r != nil && r != w {
			panic(r)
		}
	}()
	for range steps {
		w.step()
	}
	w.close(w.log)
	w.close(w.keys)
}

// step does one thing that a program does.
func (w *worker) step() {
	name, old := w.any()
	switch w.rng.IntN(6) {
	case 0, 1:
		w.append()
	case 2:
		w.make()
	case 3:
		if name != "" {
			w.rename(name, old)
		}
	case 4:
		if name != "" {
			w.unlink(name)
		}
	case 5:
		if name != "" {
			w.check(name, old)
		}
	}
}

// any is one of the worker's keys, or "".
func (w *worker) any() (name, value string) {
	if w.made > 0 {
		name = w.name(fmt.Sprint(w.rng.IntN(w.made)))
	}
	value, ok := w.has[name]
	if !ok {
		return "", ""
	}
	return name, value
}

func (w *worker) append() {
	line := fmt.Sprintf("%d %x\n", len(w.want), w.rng.Uint64())
	n, err := w.log.WriteAt([]byte(line), 0)
	if err != nil || n != len(line) {
		w.fail("append", err)
	}
	w.want += line
}

func (w *worker) make() {
	name := w.name(fmt.Sprint(w.made))
	w.made++
	f := w.create(name, p9.ReadWrite)
	value := fmt.Sprint(w.rng.Uint64())
	if n, err := f.WriteAt([]byte(value), 0); err != nil || n != len(value) {
		w.fail("write", err)
	}
	w.close(f)
	w.has[name] = value
	w.check(name, value)
}

func (w *worker) rename(name, value string) {
	to := w.name(fmt.Sprint(w.made))
	w.made++
	if err := w.keys.RenameAt(name, w.keys, to); err != nil {
		w.fail("rename", err)
	}
	delete(w.has, name)
	w.has[to] = value
	if _, f, err := w.keys.Walk([]string{name}); !errors.Is(err, linux.ENOENT) {
		if err == nil {
			f.Close()
		}
		w.fail("walk to what was renamed", err)
	}
}

func (w *worker) unlink(name string) {
	if err := w.keys.UnlinkAt(name, 0); err != nil {
		w.fail("unlink", err)
	}
	delete(w.has, name)
}

func (w *worker) check(name, value string) {
	f := w.open(name, p9.ReadOnly)
	got := make([]byte, 100)
	n, err := f.ReadAt(got, 0)
	if err != nil && !errors.Is(err, io.EOF) || string(got[:n]) != value {
		w.fail(fmt.Sprintf("%s is %q, want %q", name, got[:n], value), err)
	}
	w.close(f)
}

// verify looks from the host's side.
func (w *worker) verify(h *host) {
	if got := h.value(w.name("log")); got != w.want {
		w.t.Errorf("worker %d: its log is\n%swant\n%s", w.id, got, w.want)
	}
	for i := range w.made {
		name := w.name(fmt.Sprint(i))
		want, ok := w.has[name]
		if !ok {
			want = "-"
		}
		if got := h.value(name); got != want {
			w.t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestCuts: four programs change keys while the transport is cut, all the time and
// anywhere. No error reaches them, and everything was done once.
func TestCuts(t *testing.T) {
	seeds, steps := 4, 300
	if testing.Short() {
		seeds = 1
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHost(t)
			root := h.mount()
			var workers []*worker
			for id := range 4 {
				workers = append(workers, newWorker(t, root, id, seed))
			}
			h.cutting(seed, 4000)
			h.drop()
			var wg sync.WaitGroup
			for _, w := range workers {
				wg.Add(1)
				go w.run(steps, &wg)
			}
			stuck := time.AfterFunc(time.Minute, func() { panic(h.log.String()) })
			wg.Wait()
			stuck.Stop()
			for _, w := range workers {
				w.verify(h)
			}
			if h.cuts < 30 {
				t.Errorf("only %d cuts", h.cuts)
			}
			t.Logf("%d cuts", h.cuts)
			if s := h.server.Stats(); s.Sessions != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}
