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
	nFiles    = 64
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
	scale   string // the folder of many VMs, once made
	meta9   string // the client, once built
}

func newBench(o options) (*bench, error) {
	tmp, err := os.MkdirTemp(o.dir, "meta9-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, tmp: tmp, running: map[string]*instance{}}
	if b.meta9d == "" {
		if b.meta9d, err = daemon.Build(tmp, "meta9d"); err != nil {
			b.close()
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) close() {
	b.stopAll()
	os.RemoveAll(b.tmp)
}

func (b *bench) stopAll() {
	for name, in := range b.running {
		in.proc.Kill()
		delete(b.running, name)
	}
}

// dirFor is a new folder for a server of the row at hand.
func (b *bench) dirFor(name string) (string, error) {
	return os.MkdirTemp(b.tmp, filepath.Base(name)+"-")
}

// instance gives the running server of this name, starting it if need be.
func (b *bench) instance(name string) (*instance, error) {
	if in := b.running[name]; in != nil {
		return in, nil
	}
	in, err := b.start(name)
	if err != nil {
		return nil, err
	}
	b.running[name] = in
	return in, nil
}

// figure is what was measured once, or the median of that.
type figure struct {
	value    float64
	p50, p99 time.Duration // 0 where there are no single requests
}

// measure runs every entry of a row in each round, in turn, on servers that are
// started for the row, and gives the medians by the entries' names.
func (b *bench) measure(r row) (map[string]figure, error) {
	defer b.stopAll()
	all := map[string][]figure{}
	for round := range b.rounds {
		for _, e := range r.entries {
			if !strings.Contains(e.name, b.only) {
				continue
			}
			if b.verbose {
				fmt.Fprintf(os.Stderr, "bench: %s, round %d of %d: %s\n", r.name, round+1, b.rounds, e.name)
			}
			f, err := e.measure(b)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
			all[e.name] = append(all[e.name], f)
		}
	}
	medians := map[string]figure{}
	for name, figures := range all {
		medians[name] = figure{
			value: median(figures, func(f figure) float64 { return f.value }),
			p50:   median(figures, func(f figure) time.Duration { return f.p50 }),
			p99:   median(figures, func(f figure) time.Duration { return f.p99 }),
		}
	}
	return medians, nil
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
