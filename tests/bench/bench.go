package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/peers"
)

// What is served: keys of one VM, or files of one folder.
const (
	nFiles    = 100
	valueSize = 100
)

func fileName(i int) string { return fmt.Sprintf("key%02d", i%nFiles) }

// fileValue is the value of every file, so that every reply has one length.
func fileValue() string {
	b := make([]byte, valueSize)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return string(b)
}

func files() peers.Files {
	f := peers.Files{}
	for i := range nFiles {
		f[fileName(i)] = fileValue()
	}
	return f
}

// bench is one run: where things are, and the servers of the row at hand.
type bench struct {
	options
	tmp     string // everything on disk; removed at the end
	running map[string]*instance
	way     way            // of the measurement at hand
	synced  map[way]figure // of the disk, as beside meta9d
	tree    *build         // what is measured
	other   *build         // the commit to compare with; nil for none
	commit  string         // its id
	remove  func()         // its worktree
	cpus    cpus
	etcds   *etcdCluster // nil: no row has asked for it
}

// build is the build of the measurement at hand.
func (b *bench) build() *build {
	if b.way.base {
		return b.other
	}
	return b.tree
}

func newBench(o options) (*bench, error) {
	tmp, err := os.MkdirTemp(o.dir, "meta9-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, tmp: tmp, running: map[string]*instance{}, synced: map[way]figure{}, remove: func() {}}
	if err := b.prepare(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// prepare builds what is to be measured and finds the CPUs.
func (b *bench) prepare() error {
	root, err := daemon.Root()
	if err != nil {
		return err
	}
	b.tree = &build{root: root, dir: b.tmp, meta9d: b.meta9d}
	if b.meta9d == "" {
		if b.tree.meta9d, err = daemon.BuildIn(root, b.tmp, "meta9d"); err != nil {
			return err
		}
	}
	if b.base != "" {
		var remove func()
		if b.other, b.commit, remove, err = checkOut(b.tmp, b.base); err != nil {
			return err
		}
		b.remove = remove
	}
	var ok bool
	if b.cpus, ok = twoCPUs(); !ok && b.pin {
		fmt.Fprintln(os.Stderr, "bench: only one CPU: nothing is pinned")
		b.pin = false
	}
	return nil
}

func (b *bench) close() {
	b.stopAll()
	if b.etcds != nil {
		b.etcds.proc.Kill()
	}
	b.remove()
	os.RemoveAll(b.tmp)
}

func (b *bench) stopAll() {
	for name, in := range b.running {
		in.proc.Kill()
		delete(b.running, name)
	}
}

// ended is what servers that have ended by themselves said last.
func (b *bench) ended() (text string) {
	for name, in := range b.running {
		select {
		case <-in.proc.Exited():
			log := in.proc.Log()
			text += fmt.Sprintf("\n%s has ended: %s", name, log[max(0, len(log)-2000):])
		default:
		}
	}
	return text
}

// dirFor is a new folder for a server of the row at hand.
func (b *bench) dirFor(name string) (string, error) {
	return os.MkdirTemp(b.tmp, filepath.Base(name)+"-")
}

// key is the name of a server in running.
func (b *bench) key(name string) string { return fmt.Sprintf("%s %+v", name, b.way) }

// instance gives the running server of this name, of the build and on the CPU
// of the measurement at hand, starting it if need be.
func (b *bench) instance(name string) (*instance, error) {
	key := b.key(name)
	if in := b.running[key]; in != nil {
		return in, nil
	}
	in, err := b.start(name)
	if err != nil {
		return nil, err
	}
	b.running[key] = in
	return in, nil
}

// figure is what was measured once, or the median of that.
type figure struct {
	value    float64
	p50, p99 time.Duration // 0 where there are no single requests
}

// measured is what the rounds of a row gave.
type measured struct {
	main    way                         // the one that bars are about
	figures map[way]map[string]figure   // medians, by the entries' names
	ratios  map[bool]map[string]float64 // pinned or not: the median, over the rounds, of how much better than the base's an entry's figure was
}

// measure runs every entry of a row in each round, in turn and in each way, on
// servers that are started for the row.
func (b *bench) measure(r row) (measured, error) {
	defer b.stopAll()
	rounds := b.rounds
	if r.slow {
		rounds = min(rounds, 3)
	}
	all := map[way]map[string][]figure{}
	for round := range rounds {
		for _, e := range r.entries {
			if !strings.Contains(e.name, b.only) {
				continue
			}
			for _, w := range b.ways(r, e, round) {
				if b.verbose {
					fmt.Fprintf(os.Stderr, "bench: %s, round %d of %d: %s %+v\n", r.name, round+1, rounds, e.name, w)
				}
				f, err := b.once(e, w)
				if err != nil {
					return measured{}, fmt.Errorf("%s %+v: %w%s", e.name, w, err, b.ended())
				}
				if all[w] == nil {
					all[w] = map[string][]figure{}
				}
				all[w][e.name] = append(all[w][e.name], f)
			}
		}
	}
	return medians(all, r.less, way{pinned: b.pin && !r.slow && !r.free}), nil
}

// ways are those in which an entry is measured in a round. What is compared takes
// turns in going first.
func (b *bench) ways(r row, e entry, round int) (list []way) {
	for _, pinned := range []bool{true, false} {
		if pinned && (!b.pin || r.slow || r.free) {
			continue
		}
		list = append(list, way{pinned: pinned})
		if e.ours && b.other != nil && b.other.has(e.needs) {
			list = append(list, way{pinned: pinned, base: true})
		}
	}
	if round%2 == 1 {
		slices.Reverse(list)
	}
	return list
}

// once measures an entry in one way.
func (b *bench) once(e entry, w way) (figure, error) {
	if b.way.pinned != w.pinned {
		if err := b.cpus.apply(w.pinned); err != nil {
			return figure{}, fmt.Errorf("the load's CPU: %w", err)
		}
	}
	b.way = w
	return e.measure(b)
}

func medians(all map[way]map[string][]figure, less bool, main way) measured {
	m := measured{main: main, figures: map[way]map[string]figure{}, ratios: map[bool]map[string]float64{true: {}, false: {}}}
	for w, entries := range all {
		m.figures[w] = map[string]figure{}
		for name, figures := range entries {
			m.figures[w][name] = figure{
				value: median(figures, func(f figure) float64 { return f.value }),
				p50:   median(figures, func(f figure) time.Duration { return f.p50 }),
				p99:   median(figures, func(f figure) time.Duration { return f.p99 }),
			}
			if w.base {
				m.ratios[w.pinned][name] = better(all[way{pinned: w.pinned}][name], figures, less)
			}
		}
	}
	return m
}

// better is the median of how much better each figure is than the base's of the
// same round: above 1 is better, also where less is.
func better(figures, base []figure, less bool) float64 {
	var ratios []figure
	for i, f := range figures {
		over := base[i].value
		if less {
			f.value, over = over, f.value
		}
		ratios = append(ratios, figure{value: f.value / over})
	}
	return median(ratios, func(f figure) float64 { return f.value })
}

// median is the middle of what field gives; of an even number, the lower one.
func median[T float64 | time.Duration](figures []figure, field func(figure) T) T {
	values := make([]T, 0, len(figures))
	for _, f := range figures {
		values = append(values, field(f))
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}
