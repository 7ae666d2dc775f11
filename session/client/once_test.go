package client_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/session/client"
)

// worker is a program that changes keys of its own, and knows what must come of
// each change. Anything done twice, or not at all, contradicts it.
type worker struct {
	t    *testing.T
	c    *client.Client
	id   int
	rng  *rand.Rand
	log  *client.File
	want string // of log
	sets int    // changes to log, each of which is an event
	has  map[string]string
	made int
}

const onceKeys = "vms/" + realVM + "/keys/"

func newWorker(t *testing.T, c *client.Client, id int, seed uint64) *worker {
	w := &worker{t: t, c: c, id: id, rng: rand.New(rand.NewPCG(seed, uint64(id))), has: map[string]string{}}
	w.log = openFile(t, c, onceKeys+w.name("log"), os.O_WRONLY|os.O_CREATE)
	w.sets = 1
	return w
}

func (w *worker) name(s any) string { return fmt.Sprintf("%d-%v", w.id, s) }

// must reports an error that nobody should see; false: there was one.
func (w *worker) must(what string, err error) bool {
	if err != nil {
		w.t.Errorf("worker %d: %s: %v", w.id, what, err)
	}
	return err == nil
}

// run does so many things that programs do, or stops at the first that fails.
func (w *worker) run(steps int) {
	for range steps {
		name, value := w.any()
		ok := false
		switch op := w.rng.IntN(7); {
		case op < 2 || name == "" && op > 3:
			ok = w.append()
		case op == 2:
			ok = w.make()
		case op == 3:
			ok = w.machine()
		case op == 4:
			ok = w.rename(name, value)
		case op == 5:
			ok = w.remove(name)
		default:
			ok = w.check(name, value)
		}
		if !ok {
			return
		}
	}
	w.must("close", w.log.Close())
}

// any is one of the worker's keys, or "".
func (w *worker) any() (name, value string) {
	if w.made > 0 {
		name = w.name(w.rng.IntN(w.made))
	}
	value, ok := w.has[name]
	if !ok {
		name = ""
	}
	return name, value
}

func (w *worker) append() bool {
	line := fmt.Sprintf("%d %x\n", len(w.want), w.rng.Uint64())
	n, err := w.log.WriteAt(w.t.Context(), []byte(line), int64(len(w.want)))
	w.want += line[:n]
	w.sets++
	return w.must("append", err)
}

// make creates a key, which the server does once.
func (w *worker) make() bool {
	ctx, name := w.t.Context(), w.name(w.made)
	w.made++
	file, err := w.c.OpenFile(ctx, onceKeys+name, os.O_RDWR|os.O_CREATE)
	if !w.must("create "+name, err) {
		return false
	}
	value := fmt.Sprint(w.rng.Uint64())
	_, err = file.WriteAt(ctx, []byte(value), 0)
	w.has[name] = value
	return w.must("write "+name, err) && w.must("close "+name, file.Close()) && w.check(name, value)
}

// machine creates a VM, which the server does once, and deletes it, the same.
func (w *worker) machine() bool {
	uuid := fmt.Sprintf("550e8400-e29b-41d4-a716-%012x", w.rng.Uint64()>>16)
	ctx := w.t.Context()
	return w.must("create "+uuid, w.c.WriteFile(ctx, "ctl", []byte(`create {"uuid":"`+uuid+`"}`))) &&
		w.must("delete "+uuid, w.c.WriteFile(ctx, "ctl", []byte("delete "+uuid)))
}

func (w *worker) rename(name, value string) bool {
	ctx, to := w.t.Context(), w.name(w.made)
	w.made++
	if !w.must("rename "+name, w.c.Rename(ctx, onceKeys+name, onceKeys+to)) {
		return false
	}
	delete(w.has, name)
	w.has[to] = value
	if _, err := w.c.Stat(ctx, onceKeys+name); !errors.Is(err, errs.NotFound) {
		w.t.Errorf("%s was renamed: %v", name, err)
	}
	return w.check(to, value)
}

func (w *worker) remove(name string) bool {
	delete(w.has, name)
	return w.must("remove "+name, w.c.Remove(w.t.Context(), onceKeys+name))
}

func (w *worker) check(name, value string) bool {
	got, err := w.c.ReadFile(w.t.Context(), onceKeys+name)
	if err == nil && string(got) != value {
		err = fmt.Errorf("it has %q, want %q", got, value)
	}
	return w.must(name, err)
}

// verify looks by another client.
func (w *worker) verify(c *client.Client, seen map[string]int) {
	got, err := c.ReadFile(w.t.Context(), onceKeys+w.name("log"))
	if err != nil || string(got) != w.want {
		w.t.Errorf("worker %d: its log is %v\n%swant\n%s", w.id, err, got, w.want)
	}
	if n := seen[w.name("log")]; n != w.sets {
		w.t.Errorf("worker %d: %d events of %d changes", w.id, n, w.sets)
	}
	list, err := c.ReadDir(w.t.Context(), onceKeys)
	there := map[string]bool{}
	for _, name := range names(list) {
		if there[name] = true; strings.HasPrefix(name, w.name("")) && name != w.name("log") && w.has[name] == "" {
			w.t.Errorf("%s is there: %v", name, err)
		}
	}
	for name := range w.has {
		if !there[name] {
			w.t.Errorf("%s is not there: %v", name, err)
		}
	}
}

// Transports break in the middle of anything, with and without the server's
// knowledge, all the time. No error reaches who writes, appends, creates, renames
// and removes, all is done once, and no event is lost or seen twice.
func TestOnce(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { once(t, seed) })
	}
}

func once(t *testing.T, seed uint64) {
	s := newRealServer(t, time.Hour)
	calm := s.dial(client.Options{})
	s.create(calm)
	s.with(func() { s.rng = rand.New(rand.NewPCG(seed, 9)) })
	c := s.dial(client.Options{})
	r := &eventReader{t: t, file: openFile(t, c, "vms/"+realVM+"/events", os.O_RDONLY), seen: map[string]int{}}
	var working, reading sync.WaitGroup
	reading.Go(func() { r.run("end") })
	var workers []*worker
	for id := range 6 {
		w := newWorker(t, c, id, seed)
		workers = append(workers, w)
		working.Go(func() { w.run(100) })
	}
	working.Wait()
	if err := calm.WriteFile(t.Context(), onceKeys+"end", nil); err != nil {
		t.Fatal(err)
	}
	reading.Wait()
	for _, w := range workers {
		w.verify(calm, r.seen)
	}
	t.Logf("%d transports", s.cuts)
	if s.cuts < 20 {
		t.Error("that was no storm")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
