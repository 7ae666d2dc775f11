package store

import "time"

// The share that one VM has of a batch while intents of others wait too, or did
// within sharedFor: so many intents that they cost less time than the disk does,
// since whoever comes next waits for the whole batch. A VM alone has all of a
// batch, up to Config.BatchBytes.
const (
	fairIntents = 64
	fairBytes   = 64 << 10
	sharedFor   = time.Second
)

// line is where the intents of one VM wait, in the order of Submit.
type line struct {
	chain
	listed bool  // it is in turns.order
	saved  int64 // of the shares that it had, while its first intent costs more than one
}

// turns are the lines in which intents wait, in the order in which they have
// their turn. The committer's alone.
type turns struct {
	order  []*line
	spare  []*line // of the order before, for its memory
	root   line    // intents of no VM: those that create one, and the root's notes
	newest *line   // the VM that the last intent came for
	shared time.Time
}

// add puts fresh intents into their lines. A line that was empty is the last to
// have its turn.
func (t *turns) add(fresh chain) {
	for fresh.first != nil {
		in := fresh.pop()
		l := &t.root
		if in.Cell != nil {
			l = &in.Cell.line
		}
		l.push(in)
		if !l.listed {
			l.listed = true
			t.order = append(t.order, l)
		}
		if l != &t.root && l != t.newest {
			if t.newest != nil {
				t.shared = time.Now()
			}
			t.newest = l
		}
	}
}

// waiting says whether any intent is.
func (t *turns) waiting() bool { return len(t.order) > 0 }

// share is what one VM has of the next batch.
func (t *turns) share(batchBytes int64) share {
	n := len(t.order)
	if n == 1 && (t.shared.IsZero() || time.Since(t.shared) > sharedFor) {
		return share{intents: maxBatchIntents, bytes: batchBytes}
	}
	return share{
		intents: max(1, min(fairIntents, maxBatchIntents/n)),
		bytes:   min(batchBytes, fairBytes),
		saves:   true,
	}
}

// share bounds what a batch takes of one line. An intent that costs more than a share
// waits until its line has saved up for it, as often as others have their turn; where
// there are no others (saves is false) it fits if it is the first.
type share struct {
	intents int
	bytes   int64
	saves   bool
}

// each calls take for one line after the other until it returns false, which says
// that the line has not had its turn. Lines that had it go behind those that had
// not, if something waits in them still.
func (t *turns) each(take func(*line) bool) {
	next, had := t.spare[:0], 0
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
	t.order, t.spare = next, t.order
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
