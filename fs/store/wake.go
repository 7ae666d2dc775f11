package store

import (
	"sync"
	"time"

	"meta9/fs/cpu"
	"meta9/fs/ring"
)

// fewWaiters is how many readers of a VM's events, or of all VMs', the committer wakes
// itself. More of them must not make everybody's commits wait.
const fewWaiters = 16

// crowd are many readers of one VM's events, who cost their VM's time.
type crowd struct {
	cell    *Cell
	waiters []*ring.Waiter
}

func (c crowd) wake() {
	var p cpu.Place
	p.Take(c.cell.cpu) // in vain or not: they are to be told
	for i, w := range c.waiters {
		if i%fewWaiters == 0 && p.Over() {
			p.Give()
			p.Take(c.cell.cpu)
		}
		w.Wake()
	}
	p.Give()
}

// wakePause is how long it takes until the next few readers of all VMs' events are
// woken: 16,000 in a second. Each reads all that has come meanwhile, so that many
// commits cost no more than few.
const wakePause = time.Millisecond

// paced are readers of all VMs' events that wait to be woken, the oldest first.
type paced struct {
	mu      sync.Mutex
	waiters []*ring.Waiter
	running bool
}

// add takes more of them over. It tells whether somebody has to begin to wake them.
func (p *paced) add(waiters []*ring.Waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters = append(p.waiters, waiters...)
	begin := !p.running
	p.running = true
	return begin
}

// wake wakes those who wait to be, a few at a time, until there are none. Once the
// committer has ended it makes no pauses.
func (p *paced) wake(stop <-chan struct{}) {
	for {
		p.mu.Lock()
		few := p.waiters[:min(fewWaiters, len(p.waiters))]
		if p.waiters = p.waiters[len(few):]; len(few) == 0 {
			p.waiters, p.running = nil, false
		}
		p.mu.Unlock()
		if len(few) == 0 {
			return
		}
		for _, w := range few {
			w.Wake()
		}
		select {
		case <-stop:
		case <-time.After(wakePause):
		}
	}
}
