package store

import (
	"container/list"
	"sync/atomic"

	"meta9/fs/vm"
)

// Hold is a truncation to 0 of one key that is not committed yet (docs: "A
// truncation to 0"). The next commit to the key by anyone computes on "" in place
// of the value, and ends it; so do the key's removal and Drop.
type Hold struct {
	cell    *Cell
	key     holdKey
	seq     uint64        // intents submitted up to here come before it
	active  atomic.Bool   // it is neither committed nor dropped
	elem    *list.Element // its place in the cell's list; nil: a batch under way applies it
	dropSeq atomic.Uint64 // of the intent of its Drop; 0: not dropped. Later intents do not find it
	guest   bool          // its fid is a guest's: in whose line its Drop waits
	dropped bool          // the committer has seen Drop; the committer's
	next    *Hold         // the one that is dropped with it
}

// holdKey names the entry, whatever it is called.
type holdKey struct {
	space vm.Space
	id    uint64
}

// Hold registers a Hold at once, for intents that are submitted from now on. guest: its
// fid is a guest's. If the key is not there, the Hold is not active.
func (s *Store) Hold(c *Cell, sp vm.Space, id uint64, guest bool) *Hold {
	h := &Hold{cell: c, key: holdKey{sp, id}, guest: guest}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Under the lock, so that the list is in the order of seq.
	h.seq = s.queue.seq.Load()
	if !hasID(c.VM(), h.key) {
		return h
	}
	l := c.holds[h.key]
	if l == nil {
		if c.holds == nil {
			c.holds = make(map[holdKey]*list.List)
		}
		l = list.New()
		c.holds[h.key] = l
	}
	h.elem = l.PushBack(h)
	h.active.Store(true)
	return h
}

func hasID(v *vm.VM, k holdKey) bool {
	return v != nil && k.space < vm.NumSpaces && v.GetID(k.space, k.id) != nil
}

// Active says whether the key still reads as empty for whoever holds it.
func (h *Hold) Active() bool { return h.active.Load() }

// Drop ends the Hold without a commit, at once for whoever holds it. The intents
// that were submitted before still find it: what was written over a truncated key
// must not be mixed with what was in it when the writer's connection is lost. So
// Drop is an intent itself, in the line of the guest's intents or of the host's.
func (h *Hold) Drop() {
	if h.active.Swap(false) {
		h.cell.store.Submit(&Intent{Kind: dropHold, Cell: h.cell, Hold: h})
	}
}

// dropMost is how many Holds one intent drops: a quarter of a VM's share of a batch.
const dropMost = 512

// DropAll is Drop of many.
func DropAll(holds []*Hold) {
	var first *Hold
	n := 0
	submit := func() {
		if first != nil {
			first.cell.store.Submit(&Intent{Kind: dropHold, Cell: first.cell, Hold: first})
		}
		first, n = nil, 0
	}
	for _, h := range holds {
		if !h.active.Swap(false) {
			continue
		}
		if n == dropMost || first != nil && (first.cell != h.cell || first.guest != h.guest) {
			submit()
		}
		first, h.next = h, first
		n++
	}
	submit()
}

// drop is Drop in the committer, of all that are dropped together.
func (c *Cell) drop(h *Hold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; h != nil; h, h.next = h.next, nil {
		h.dropped = true
		if h.elem != nil {
			c.unlist(h)
		}
	}
}

// count is how many are dropped together with h.
func (h *Hold) count() (n int64) {
	for ; h != nil; h = h.next {
		n++
	}
	return n
}

// waits says whether h is still to be applied, for an intent of that seq.
func (c *Cell) waits(h *Hold, seq uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return h.cell == c && h.elem != nil && !h.droppedBefore(seq)
}

// setDropped notes the intent that drops h and those together with it.
func (h *Hold) setDropped(seq uint64) {
	for ; h != nil; h = h.next {
		h.dropSeq.Store(seq)
	}
}

// droppedBefore says whether an intent of that seq comes after the Hold's Drop. The
// host's intents have a line of their own, so that they may be computed before a Drop
// that was submitted earlier.
func (h *Hold) droppedBefore(seq uint64) bool {
	d := h.dropSeq.Load()
	return d != 0 && d < seq
}

// held says whether an intent of that seq finds the key held.
func (c *Cell) held(k holdKey, seq uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.holds[k]
	if l == nil {
		return false
	}
	e := l.Front()
	for e != nil && e.Value.(*Hold).droppedBefore(seq) {
		e = e.Next()
	}
	return e != nil && e.Value.(*Hold).seq < seq
}

// takeHolds takes the key's Holds that come before seq out of the cell and
// appends them to taken. They stay active until endHolds.
func (c *Cell) takeHolds(k holdKey, seq uint64, taken []*Hold) []*Hold {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.holds[k]
	if l == nil {
		return taken
	}
	for e := l.Front(); e != nil; {
		h := e.Value.(*Hold)
		e = e.Next()
		switch {
		case h.seq >= seq:
			return taken
		case !h.droppedBefore(seq):
			c.unlist(h)
			taken = append(taken, h)
		}
	}
	return taken
}

// unlist takes h out of its list, and an empty list out of the cell.
func (c *Cell) unlist(h *Hold) {
	l := c.holds[h.key]
	l.Remove(h.elem)
	h.elem = nil
	if l.Len() == 0 {
		delete(c.holds, h.key)
	}
}

// returnHolds undoes takeHolds, for a batch that came to nothing.
func (c *Cell) returnHolds(taken []*Hold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(taken) - 1; i >= 0; i-- {
		h := taken[i]
		if h.dropped {
			continue
		}
		l := c.holds[h.key]
		if l == nil {
			l = list.New()
			c.holds[h.key] = l
		}
		at := l.Front()
		for at != nil && at.Value.(*Hold).seq < h.seq {
			at = at.Next()
		}
		if at == nil {
			h.elem = l.PushBack(h)
		} else {
			h.elem = l.InsertBefore(h, at)
		}
	}
}

// endHolds ends those that a durable batch has applied.
func endHolds(taken []*Hold) {
	for _, h := range taken {
		h.active.Store(false)
	}
}

// holding says whether any Hold is registered.
func (c *Cell) holding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.holds) > 0
}

// endGone ends the Holds of an entry that is no longer there. A Hold that is
// registered later finds the new row.
func (c *Cell) endGone(k holdKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endList(k)
}

// endAll ends every Hold of a VM that was deleted.
func (c *Cell) endAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.holds {
		c.endList(k)
	}
}

func (c *Cell) endList(k holdKey) {
	for l := c.holds[k]; l != nil && l.Len() > 0; {
		h := l.Front().Value.(*Hold)
		c.unlist(h)
		h.active.Store(false)
	}
}
