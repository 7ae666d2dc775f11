package store

import (
	"time"
)

// The share of a batch that one VM gets while intents of other VMs wait, or did within
// sharedFor. So many intents cost less time than the disk does: the next intent waits
// for the whole batch. A VM that is alone gets all of a batch, up to Config.BatchBytes.
const (
	fairIntents = 64
	fairBytes   = 64 << 10
	sharedFor   = time.Second
)

// A VM has a part of the committer's time while it is not alone, as it has of the CPUs
// (cpu.Share), so that others find the committer free whatever it writes. A batch's time
// is split among its guests by what each has added, in the measure of costOf; batchCost is
// what a batch costs that has nothing in it, which nobody pays: little changes cost next to
// nothing. The writing and syncing counts as well, since others wait for that too, but no
// more than diskTime, and diskByte for each byte of costOf: guests do not pay, also with
// rests of their reads, for a disk that is slow or stands still.
const (
	commitPart = 0.125
	batchCost  = fairIntents * intentCost
	diskTime   = 5 * time.Millisecond
	diskByte   = 10 * time.Nanosecond
	maxCharge  = 50 * time.Millisecond // of one batch for one VM
)

// A Shared engine keeps also what was replaced, until its cluster forgets it, and all VMs of all
// hosts share its space. So a guest may write Config.WriteRate bytes a second, and at once what it
// has not used in the last writeBurst. Each op costs opCost beside its bytes, for what the engine
// adds to it.
const (
	writeBurst = 64 * time.Second
	opCost     = 128
)

// line is where the intents of one VM wait, in the order of Submit. Those of the host
// have another one than those of the guest: an operator does not wait behind all that a
// guest has sent. What adds nothing to a Shared engine has a third one (lineOf): it would
// wait, and pile up, behind a guest that has written too much.
type line struct {
	chain
	listed bool  // it is in turns.order
	saved  int64 // of the shares that it had, while its first intent costs more than one
}

// turns are the lines in which intents wait, in the order of their turns. Only the
// committer uses them, or await in its place.
type turns struct {
	order    []*line
	oldOrder []*line // the slice of the previous order, used again
	root     line    // intents of no VM: those that create one, and the root's notes
	newest   *Cell   // the VM that the last intent came for
	shared   time.Time
	now      time.Duration // of the batch's fill, since the store was opened
}

// pause is how long the guest of the line's VM is to wait; 0: it need not.
func (t *turns) pause(l *line) time.Duration {
	switch c := l.first.Cell; {
	case c == nil || l == &c.host:
		return 0
	case l == &c.beside:
		return c.cpu.Rest()
	default:
		return max(c.cpu.Rest(), c.writePause(t.now))
	}
}

// writePause is how long the guest is to wait for what it has written. Who waits for its end
// (Hurry), or finds no VM any more, need not.
func (c *Cell) writePause(now time.Duration) time.Duration {
	long := c.owesUntil - now - writeBurst
	if long <= 0 || c.hurries.Load() || c.VM() == nil {
		return 0
	}
	return long
}

// wrote makes the guest wait longer for so many bytes that it has written.
func (c *Cell) wrote(bytes, rate int64, now time.Duration) {
	c.owesUntil = max(c.owesUntil, now) + time.Duration(float64(bytes)/float64(rate)*float64(time.Second))
}

// Hurry says whether somebody waits for the end of what the VM's guest has begun: then that no
// longer waits for what the guest has written before. See to it that the guest begins nothing
// more, or hardly anything.
func (c *Cell) Hurry(on bool) {
	c.hurries.Store(on)
	if on {
		c.store.queue.wake()
	}
}

// Hurry is Cell.Hurry of all VMs, for a store that is about to be stopped.
func (s *Store) Hurry() {
	s.hurries.Store(true)
	s.queue.wake()
}

// maxDrops is how many Holds the Drops in a guest's line may be of.
const maxDrops = 4096

// lineOf is the line of an intent that is about a VM. A guest may cause any number of notes and
// Drops, and QEMU's are the host's. So where writes may have to wait for long, notes do not wait
// with them, nor does a Drop, unless an intent that waits needs one of its Holds. Where Drops of
// maxDrops Holds wait, no other Drop does: then an earlier write of the guest may find what its lost
// connection had truncated.
func (c *Cell) lineOf(in *Intent) *line {
	guests := in.Kind != dropHold || in.Hold == nil || in.Hold.guest
	switch {
	case !guests || in.Kind == elsewhere || !in.Guest && in.Kind.changes():
		return &c.host
	case c.store.rate <= 0:
	case in.Kind == Note:
		return &c.beside
	case in.Kind == dropHold && in.Hold != nil:
		if c.drops >= maxDrops || !c.line.uses(in.Hold) {
			return &c.beside
		}
		c.drops += int(in.Hold.count())
	}
	return &c.line
}

// uses says whether an intent in the line may find one of the Holds that are dropped with h.
func (l *line) uses(h *Hold) bool {
	for ; h != nil && l.first != nil; h = h.next {
		if l.last.seq > h.seq {
			return true
		}
	}
	return false
}

// add puts fresh intents into their lines. A line that was empty is the last to
// have its turn.
func (t *turns) add(fresh chain) {
	for fresh.first != nil {
		in := fresh.pop()
		l := &t.root
		if in.Cell != nil {
			l = in.Cell.lineOf(in)
		}
		l.push(in)
		if !l.listed {
			l.listed = true
			t.order = append(t.order, l)
		}
		if in.Cell != nil && in.Cell != t.newest {
			if t.newest != nil {
				t.shared = time.Now()
			}
			t.newest = in.Cell
		}
	}
}

// waiting says whether any intent waits.
func (t *turns) waiting() bool { return len(t.order) > 0 }

// share is what one VM gets of the next batch.
func (t *turns) share(batchBytes int64) share {
	if len(t.order) == 1 && (t.shared.IsZero() || time.Since(t.shared) > sharedFor) {
		return share{intents: maxBatchIntents, bytes: batchBytes}
	}
	n := 0 // of the lines that are to have their turn
	for _, l := range t.order {
		if t.pause(l) == 0 {
			n++
		}
	}
	return share{
		intents: max(1, min(fairIntents, maxBatchIntents/max(1, n))),
		bytes:   min(batchBytes, fairBytes),
		saves:   true,
	}
}

// share bounds what a batch takes from one line. An intent that costs more than a share
// waits until its line has saved enough shares, one for each batch; where the line is
// alone (saves is false) such an intent is taken if it is the batch's first.
type share struct {
	intents int
	bytes   int64
	saves   bool
}

// each calls take for one line after the other until take returns false: that line has not
// had its turn then. Lines that had their turn and are not empty go to the end.
func (t *turns) each(take func(*line) bool) {
	next, had := t.oldOrder[:0], 0
	for _, l := range t.order {
		if !take(l) {
			break
		}
		had++
	}
	next = append(next, t.order[had:]...)
	for _, l := range t.order[:had] {
		if l.first != nil {
			next = append(next, l)
		} else {
			l.listed = false
		}
	}
	clear(t.order)
	t.order, t.oldOrder = next, t.order
}

// refuse answers all that waits with an error.
func (t *turns) refuse(err error) {
	t.each(func(l *line) bool {
		for l.first != nil {
			l.pop().done(Result{Err: err})
		}
		return true
	})
}

// refuseUntil answers what has come no later than that intent with an error, but for what
// only frees something.
func (t *turns) refuseUntil(seq uint64, err error) {
	t.each(func(l *line) bool {
		var kept chain
		for l.first != nil {
			in := l.pop()
			if in.seq > seq || in.Kind == dropHold || in.Kind == elsewhere {
				kept.push(in)
				continue
			}
			l.saved = 0
			in.done(Result{Err: err})
		}
		l.chain = kept
		return true
	})
}
