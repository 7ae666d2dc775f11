package storetest

import (
	"slices"
	"sync"

	"meta9/fs/store"
)

// Failing is an engine of which one Apply fails.
type Failing struct {
	store.Engine
	Nth int   // which Apply it was; the first is 1
	Err error // what it returns; the engine below is not called then

	mu sync.Mutex
	n  int
}

// Apply is store.Engine's.
func (f *Failing) Apply(groups []store.Group) []error {
	f.mu.Lock()
	f.n++
	fails := f.n == f.Nth
	f.mu.Unlock()
	if fails {
		return store.AllFailed(groups, f.Err)
	}
	return f.Engine.Apply(groups)
}

// Applies is how often Apply was called.
func (f *Failing) Applies() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// What a Recorder writes down by itself.
const (
	ApplyStart = "apply-start"
	ApplyEnd   = "apply-end"
)

// Recorder is an engine that writes down when an Apply starts and ends, and can
// make it wait. A test writes down what it sees itself, in the same order.
type Recorder struct {
	store.Engine

	mu      sync.Mutex
	log     []string
	gate    chan struct{} // nil: Apply does not wait
	entered chan struct{} // closed when one waits at gate
}

// Note writes something down.
func (r *Recorder) Note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, what)
}

// Log is what was written down.
func (r *Recorder) Log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

// Applies is how many were started.
func (r *Recorder) Applies() int {
	n := 0
	for _, what := range r.Log() {
		if what == ApplyStart {
			n++
		}
	}
	return n
}

// Block makes each Apply wait until release is called. entered is closed when the
// first waits.
func (r *Recorder) Block() (entered <-chan struct{}, release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate, r.entered = make(chan struct{}), make(chan struct{})
	return r.entered, sync.OnceFunc(r.open)
}

func (r *Recorder) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.gate)
	r.gate = nil
}

// Apply is store.Engine's.
func (r *Recorder) Apply(groups []store.Group) []error {
	if gate := r.start(); gate != nil {
		<-gate
	}
	err := r.Engine.Apply(groups)
	r.Note(ApplyEnd)
	return err
}

// start writes the start down, and gives what to wait for.
func (r *Recorder) start() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, ApplyStart)
	if r.gate == nil {
		return nil
	}
	if r.entered != nil {
		close(r.entered)
		r.entered = nil
	}
	return r.gate
}
