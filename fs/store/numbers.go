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
// as the marks are durable. The committer's alone.
type numbers struct {
	next     marks
	reserved marks // durable
	asked    marks // in the transaction under way

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

// reserve is the op that must be durable before any number handed out so far is
// told, if there is one.
func (n *numbers) reserve() (Op, bool) {
	if n.next.rev <= n.reserved.rev && n.next.id <= n.reserved.id {
		return Op{}, false
	}
	n.asked = marks{rev: n.next.rev + blockSize, id: n.next.id + blockSize}
	return Op{Key: marksKey(), Value: n.asked.value()}, true
}

// durable notes that the op of reserve is.
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
