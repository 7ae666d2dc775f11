package store

// FirstID is the first qid path that a store hands out; those below are for the
// files of the tree that belong to no VM.
const FirstID = 1 << 16

// blockSize is how many revisions and how many ids are reserved at a time, and so
// how many a restart may skip.
const blockSize = 1 << 16

// lostMarks is how far numbers jump when the record of the marks is damaged: an
// entry that was removed since may have had any that a store of any age gives.
const lostMarks = 1 << 40

// numbers hands out revisions and ids that no store on this engine ever handed
// out. They are reserved in blocks: a number below the marks may be used as soon
// as the marks are durable. A fleet's ids come from blocks of the fleet's instead,
// since no two of its VMs, whatever host has made them, may have one in common. The
// committer's alone.
type numbers struct {
	next     marks
	reserved marks  // durable
	asked    marks  // in the transaction under way
	fleet    Shared // nil: the ids are this store's alone
	end      uint64 // of the fleet's block of ids that next.id is in

	batch uint64 // Group.Number of the newest batch
}

// group is the Number of the next batch's groups.
func (n *numbers) group() uint64 {
	n.batch++
	return n.batch
}

func (n *numbers) rev() uint64 {
	n.next.rev++
	return n.next.rev - 1
}

func (n *numbers) id(count uint64) uint64 {
	n.next.id += count
	return n.next.id - count
}

// share takes ids from a fleet's blocks from now on. What was left of a block by an
// earlier process is not used.
func (n *numbers) share(fleet Shared) {
	n.fleet = fleet
	n.next.id, n.end = 0, 0
	n.above(fleet.Mark())
}

// above lets revisions go on above mark.
func (n *numbers) above(mark uint64) { n.next.rev = max(n.next.rev, mark+1) }

// stock makes sure that so many ids can be handed out; whoever takes ids calls it first.
// In a fleet they may need a new block; the error is that none can be had.
func (n *numbers) stock(ids uint64) error {
	if n.fleet == nil || n.end-n.next.id >= ids {
		return nil
	}
	first, count, err := n.fleet.Block(ids)
	if err == nil {
		n.next.id, n.end = first, first+count
	}
	return err
}

// reserve returns the op that must be durable before any number handed out so far is told,
// if there is one.
func (n *numbers) reserve() (Op, bool) {
	if n.next.rev <= n.reserved.rev && (n.next.id <= n.reserved.id || n.fleet != nil) {
		return Op{}, false
	}
	n.asked = marks{rev: n.next.rev + blockSize, id: n.next.id + blockSize}
	return Op{Key: marksKey(), Value: n.asked.value()}, true
}

// durable notes that the op of reserve is durable.
func (n *numbers) durable() { n.reserved = n.asked }

// afterLoad begins after what is durable.
func afterLoad(l *loader) numbers {
	switch {
	case l.marks != nil:
		next := marks{max(l.marks.rev, l.seen.rev), max(l.marks.id, l.seen.id)}
		return numbers{next: next, reserved: *l.marks, asked: *l.marks}
	case l.seen == marks{}:
		return numbers{next: marks{rev: 1, id: FirstID}}
	}
	return numbers{next: marks{l.seen.rev + lostMarks, l.seen.id + lostMarks}}
}
