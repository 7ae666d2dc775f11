package store_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

// modelRun holds a store and its model side by side.
type modelRun struct {
	t     *rapid.T
	disk  *storetest.Disk
	cfg   store.Config
	s     *store.Store
	m     *model
	loose bool // a VM's share is small: the order between VMs is not the model's
	n     int

	cells map[string]knownVM // by uuid, as last seen
	keys  map[int]knownKey   // by born
	holds map[int]knownHold
}

type knownVM struct {
	born int
	cell *store.Cell
}

type knownKey struct {
	uuid  string
	space vm.Space
	id    uint64
}

type knownHold struct {
	key  int
	hold *store.Hold
}

// TestModel submits random intents in batches, with holds taken and dropped
// between them, on disks that are full at times, and opens the store anew; it
// compares every answer, every row and every hold with the model's.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &modelRun{t: rt, disk: storetest.NewDisk(), loose: rapid.Bool().Draw(rt, "loose")}
		r.cfg = store.Config{Limits: vm.Limits{Value: 12, Keys: 4, Bytes: 40}, TotalBytes: 70, BatchBytes: 1 << 30}
		if r.loose {
			r.cfg.TotalBytes, r.cfg.BatchBytes = 0, 600
		}
		r.m = &model{limits: r.cfg.Limits, total: r.cfg.TotalBytes, vms: make(map[string]*modelVM)}
		r.keys = make(map[int]knownKey)
		r.open()
		defer func() { _ = r.s.Close() }()
		for range rapid.IntRange(1, 8).Draw(rt, "batches") {
			switch step := rapid.IntRange(0, 9).Draw(rt, "step"); {
			case step == 0:
				r.reopen()
			case step == 1 && !r.loose:
				r.full()
			default:
				r.batch()
			}
			r.compare()
		}
	})
}

func (r *modelRun) open() {
	var err error
	if r.s, err = store.Open(r.disk, r.cfg); err != nil {
		r.t.Fatalf("Open: %v", err)
	}
	r.holds = make(map[int]knownHold)
}

// reopen opens the store anew: the same rows, but no holds.
func (r *modelRun) reopen() {
	_ = r.s.Close()
	for hold := range r.holds {
		r.drop(hold)
	}
	before := storetest.Rows(r.s)
	r.open()
	if after := storetest.Rows(r.s); fmt.Sprint(after) != fmt.Sprint(before) {
		r.t.Fatalf("rows after reopen\n%+v\nwant\n%+v", after, before)
	}
}

func (r *modelRun) batch() {
	results, kinds := r.submit()
	r.compareResults(results, kinds)
}

func (r *modelRun) compareResults(results []store.Result, kinds []errs.Kind) {
	for i, res := range results {
		var got errs.Kind
		if res.Err != nil {
			got = errs.KindOf(res.Err)
		}
		if got != kinds[i] && (kinds[i] != errs.Invalid || got == 0) {
			r.t.Fatalf("intent %d: %v, want kind %v", i, res.Err, kinds[i])
		}
	}
}

// full lets a batch meet a disk that takes nothing: all of it fails, or it had
// nothing to write. The holds stay as they were.
func (r *modelRun) full() {
	before := r.m.clone()
	r.disk.Limit(1)
	results, kinds := r.submit()
	r.disk.Limit(0)
	if !slices.ContainsFunc(results, isFull) {
		r.compareResults(results, kinds)
		return
	}
	for i, res := range results {
		if !isFull(res) {
			r.t.Fatalf("intent %d of a batch that failed: %v", i, res.Err)
		}
	}
	r.m = before
	for hold, h := range r.holds {
		switch active := h.hold.Active(); {
		case active && !before.held(hold):
			r.noteHold(hold, h.key)
		case !active:
			r.drop(hold)
		}
	}
}

// isFull knows the error of Disk from that of a limit.
func isFull(r store.Result) bool {
	return r.Err != nil && strings.HasSuffix(errs.Detail(r.Err), "are more than 1")
}

// lines are what the model is to do in a batch, in one line a VM, which have their
// turn in the order of their first intents.
type lines struct {
	order []string
	steps map[string][]func()
}

// intent adds one to the line of the VM; "": of no VM.
func (l *lines) intent(vm string, step func()) {
	if !slices.Contains(l.order, vm) {
		l.order = append(l.order, vm)
	}
	l.add(vm, step)
}

// add adds what comes between the VM's intents.
func (l *lines) add(vm string, step func()) { l.steps[vm] = append(l.steps[vm], step) }

func (l *lines) run() {
	for _, vm := range l.order {
		for _, step := range l.steps[vm] {
			step()
		}
		delete(l.steps, vm)
	}
	for _, steps := range l.steps {
		for _, step := range steps {
			step()
		}
	}
}

// submit draws a batch, gives it to the model, and to the store while the
// committer is busy, so that it is one batch there, too, unless a VM's share of
// it is full. It returns the answers and the model's.
func (r *modelRun) submit() ([]store.Result, []errs.Kind) {
	entered, busy := make(chan struct{}), make(chan struct{})
	r.s.Submit(&store.Intent{Kind: store.Put, Done: func(store.Result) {
		close(entered)
		<-busy
	}})
	<-entered
	release := sync.OnceFunc(func() { close(busy) })
	defer release() // also when rapid ends the drawing
	var waits []<-chan store.Result
	kinds := make([]errs.Kind, 12)
	l := lines{steps: make(map[string][]func())}
	for range rapid.IntRange(1, 12).Draw(r.t, "intents") {
		if r.drawHold(&l) {
			continue
		}
		op, ok := r.draw()
		if !ok {
			continue
		}
		n := len(waits)
		waits = append(waits, submit(r.s, op.in))
		line := op.uuid
		if op.in.Kind == store.CreateVM {
			line = ""
		}
		l.intent(line, func() { r.m, kinds[n] = r.m.do(op) })
	}
	release()
	l.run()
	results := make([]store.Result, len(waits))
	for i, ch := range waits {
		results[i] = <-ch
	}
	return results, kinds[:len(results)]
}

// drawHold takes or drops a hold, or does nothing.
func (r *modelRun) drawHold(l *lines) bool {
	switch rapid.IntRange(0, 9).Draw(r.t, "hold") {
	case 0, 1:
		key, ok := drawOf(r.t, "held key", r.keys)
		k := r.keys[key]
		if !ok || r.cells[k.uuid].cell == nil {
			return false
		}
		r.n++
		hold := r.n
		r.holds[hold] = knownHold{key, r.s.Hold(r.cells[k.uuid].cell, k.space, k.id, false)}
		l.add(k.uuid, func() { r.noteHold(hold, key) })
		return true
	case 2:
		hold, ok := drawOf(r.t, "dropped hold", r.holds)
		if !ok {
			return false
		}
		h := r.holds[hold]
		add := l.add // the Drop of one that is not active is no intent
		if h.hold.Active() {
			add = l.intent
		}
		h.hold.Drop()
		add(r.keys[h.key].uuid, func() { r.drop(hold) })
		return true
	}
	return false
}

// noteHold puts the hold into the model, if its key is there.
func (r *modelRun) noteHold(hold, key int) {
	r.m = r.m.clone()
	k := r.keys[key]
	if v := r.m.vms[k.uuid]; v == nil || v.born != r.cells[k.uuid].born {
		return
	}
	r.m.entry(k.uuid, key, func(e modelEntry) modelEntry {
		e.holds = append(slices.Clone(e.holds), hold)
		return e
	})
}

// drop takes the hold out of the model.
func (r *modelRun) drop(hold int) {
	r.m = r.m.clone()
	key := r.holds[hold].key
	r.m.entry(r.keys[key].uuid, key, func(e modelEntry) modelEntry {
		e.holds = slices.DeleteFunc(slices.Clone(e.holds), func(h int) bool { return h == hold })
		return e
	})
}

// drawOf draws one of the map's keys.
func drawOf[V any](t *rapid.T, label string, of map[int]V) (int, bool) {
	if len(of) == 0 {
		return 0, false
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(of))).Draw(t, label), true
}

// compare compares everything, and learns the cells and IDs of what is new.
func (r *modelRun) compare() {
	known := make(map[int]knownKey)
	ids := make(map[uint64]bool)
	r.cells = make(map[string]knownVM)
	for uuid, want := range r.m.vms {
		c := r.s.Cell(uuid)
		if c == nil || c.VM() == nil || c.VM().Alias() != want.alias || want.alias != "" && r.s.Alias(want.alias) != c {
			r.t.Fatalf("VM %s is %+v, want %+v", uuid, c, want)
		}
		r.cells[uuid] = knownVM{want.born, c}
		for sp := range vm.NumSpaces {
			entries := slices.Collect(c.VM().Entries(sp))
			if len(entries) != len(want.keys[sp]) {
				r.t.Fatalf("VM %s, %s: %d keys, want %+v", uuid, sp, len(entries), want.keys[sp])
			}
			for _, e := range entries {
				w, ok := want.keys[sp][e.Name]
				if !ok || w.value != e.Value || w.mode != e.Mode || w.mtime != nil && *w.mtime != e.Mtime || ids[e.ID] {
					r.t.Fatalf("VM %s, %s/%s is %+v, want %+v", uuid, sp, e.Name, e, w)
				}
				if old, ok := r.keys[w.born]; ok && old.id != e.ID {
					r.t.Fatalf("VM %s, %s/%s has the ID %d, had %d", uuid, sp, e.Name, e.ID, old.id)
				}
				ids[e.ID] = true
				known[w.born] = knownKey{uuid, sp, e.ID}
			}
		}
	}
	maps.Copy(r.keys, known)
	if r.s.Count() != len(r.m.vms) || r.s.Bytes() != r.m.bytes() {
		r.t.Fatalf("%d VMs, %d bytes; want %d, %d", r.s.Count(), r.s.Bytes(), len(r.m.vms), r.m.bytes())
	}
	for hold, h := range r.holds {
		if h.hold.Active() != r.m.held(hold) {
			r.t.Fatalf("hold %d on %+v is active: %v, want %v", hold, r.keys[h.key], h.hold.Active(), r.m.held(hold))
		}
	}
}
