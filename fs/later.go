package fs

import (
	"sync"

	"meta9/fs/cpu"
)

// later goes on with lines after one that had to wait, in a goroutine for each share of the
// CPUs: a VM's writes to any number of Handles take one place, and none of the committer's time.
type later struct {
	mu sync.Mutex
	of map[*cpu.Share][]*lines // that wait for their turn; there as long as the goroutine is
}

// add gives l its turn after those that wait.
func (t *later) add(l *lines) {
	v := l.file.view()
	share := v.tree.CPU(v.who, false)
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting, there := t.of[share]
	if t.of == nil {
		t.of = make(map[*cpu.Share][]*lines)
	}
	t.of[share] = append(waiting, l)
	if !there {
		go t.run(share)
	}
}

// run gives each one line in turn.
func (t *later) run(share *cpu.Share) {
	var place cpu.Place
	defer place.Give()
	for l := t.next(share, nil); l != nil; {
		if place.Over() {
			place.Give()
		}
		if !place.Held() {
			place.Take(share) // it gives up after cpu.Longest; then the line runs without a place, since it must be done
		}
		again := l
		if !l.step() {
			again = nil
		}
		l = t.next(share, again)
	}
}

// next is whose turn it is; nil: nobody's, and the goroutine ends. again, if it is not nil,
// is to have another one.
func (t *later) next(share *cpu.Share, again *lines) *lines {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting := t.of[share]
	if again != nil {
		waiting = append(waiting, again)
	}
	if len(waiting) == 0 {
		delete(t.of, share)
		return nil
	}
	t.of[share] = waiting[1:]
	return waiting[0]
}
