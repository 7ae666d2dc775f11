package store

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs/cpu"
	"meta9/fs/vm"
)

// Cell is the one place where a VM's newest row is. It stays the same as long as
// the VM is there; a VM that is deleted and created anew gets a new Cell.
type Cell struct {
	uuid   string
	id     uint64
	store  *Store
	vm     atomic.Pointer[vm.VM]
	given  *vm.VM // the row while the VM is being given away, and vm is nil; the committer's, under Store.publish
	work   *work  // what the batch under way makes of the VM; the committer's
	line   line   // its intents that wait; the committer's
	host   line   // those of them that are the host's own
	beside line   // of a Shared: those that add nothing to it
	drops  int    // Holds that the Drops in line are of; the committer's
	cpu    *cpu.Share

	owesUntil time.Duration // the time since the store's opening at which WriteRate has paid for all that the guest has written; the committer's
	hurries   atomic.Bool   // somebody waits for the end of what the guest has begun (Hurry)

	came   bool // the VM may come from another host, where its CID was its alone; it never changes
	left   bool // the VM is another host's; the committer's
	ending bool // an intent of kind elsewhere, which ends the Cell, is queued; the committer's

	mu    sync.Mutex
	ring  *Ring                  // nil until somebody reads it
	holds map[holdKey]*list.List // of *Hold, in the order of their seq
}

func (s *Store) newCell(v *vm.VM) *Cell {
	return &Cell{uuid: v.UUID, id: v.ID, store: s, cpu: s.cpu.Share()}
}

// UUID is the VM's.
func (c *Cell) UUID() string { return c.uuid }

// ID is the first of the VM's own qid paths (vm.IDsPerVM).
func (c *Cell) ID() uint64 { return c.id }

// CPU is the VM's share of the CPUs: of all that its guest lets this process do.
func (c *Cell) CPU() *cpu.Share { return c.cpu }

// VM is the newest durable row: one atomic load. It is nil once the VM is
// deleted, and while it is being given to another host (batch.hideGiven).
func (c *Cell) VM() *vm.VM { return c.vm.Load() }

// Ring is the VM's events. It is made when first asked for, so that a VM that
// nobody watches has none; what was before is lost to it.
func (c *Cell) Ring() *Ring {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ring == nil {
		c.ring = newRing(c.store.cfg.VMEvents, c.store.Rev())
	}
	return c.ring
}

// watched is the VM's ring if anybody ever asked for it. The store's revision
// must have been advanced before: then a ring that is not there yet begins after
// what the committer is about to tell.
func (c *Cell) watched() *Ring {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ring
}
