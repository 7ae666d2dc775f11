package cpu

import (
	"runtime"
	"sync"
	"time"
)

const (
	// spare is how many threads more than CPUs Go runs at a time while VMs are made to
	// rest.
	spare = 2
	// lentFor is how long it does so after the last rest.
	lentFor = 10 * time.Second
)

// threads lets Go run more threads than there are CPUs while some VM does all that it
// can. The kernel then runs a thread at once for a request of a VM that seldom has one,
// whatever the places, the collector and the committer are at, where Go would let it
// wait until one of them is done. At other times it would only cost: more threads look
// for work.
type threads struct {
	set sync.Mutex // one sets the number at a time; before mu

	mu    sync.Mutex // after Scheduler.mu
	may   bool
	lent  bool
	again bool // a VM was made to rest since it was looked at last
}

// LendThreads lets the Scheduler set runtime.GOMAXPROCS, which is the whole process's.
func (t *Scheduler) LendThreads() {
	t.threads.mu.Lock()
	defer t.threads.mu.Unlock()
	t.threads.may = true
}

// lend notes that a VM is made to rest.
func (t *threads) lend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.again = true
	if t.may && !t.lent {
		t.lent = true
		go t.apply() // it stops the world, and may wait for the collector before
	}
}

// apply sets the number, and looks again later.
func (t *threads) apply() {
	t.set.Lock()
	defer t.set.Unlock()
	t.mu.Lock()
	t.lent, t.again = t.again, false
	n := cpus
	if t.lent {
		n += spare
		time.AfterFunc(lentFor, t.apply)
	}
	t.mu.Unlock()
	if runtime.GOMAXPROCS(0) != n {
		runtime.GOMAXPROCS(n)
	}
}
