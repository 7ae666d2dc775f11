package hosts

import (
	"sync"
	"sync/atomic"

	"meta9/fs"
)

// The bounds of a journal, and of one line in it.
const (
	maxLines     = 256
	maxBytes     = 256 << 10
	maxLineBytes = 64 << 10
)

// journal keeps the newest events of one QEMU as lines: the source of qmp/events.
// The position of a line is how many there were up to it.
type journal struct {
	mu      sync.Mutex
	lines   [][]byte
	bytes   int
	dropped uint64 // lines that are gone
	waiters map[*waiter]struct{}
}

// waiter is one Wait; done decides between its wake and its cancel.
type waiter struct {
	done atomic.Bool
	wake func()
}

func newJournal() *journal { return &journal{waiters: make(map[*waiter]struct{})} }

// add takes in a line without its end, and wakes those who wait. What is too long
// to be kept is lost to the readers, who are told so.
func (j *journal) add(line []byte) {
	j.mu.Lock()
	if len(line) > maxLineBytes {
		j.dropped += uint64(len(j.lines)) + 1
		j.lines, j.bytes = nil, 0
	} else {
		j.lines = append(j.lines, append(line, '\n'))
		j.bytes += len(line) + 1
	}
	for len(j.lines) > maxLines || j.bytes > maxBytes {
		j.bytes -= len(j.lines[0])
		j.lines, j.dropped = j.lines[1:], j.dropped+1
	}
	woken := j.waiters
	j.waiters = make(map[*waiter]struct{})
	j.mu.Unlock()
	for w := range woken {
		if !w.done.Swap(true) {
			w.wake()
		}
	}
}

// Last is how many lines there were.
func (j *journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.dropped + uint64(len(j.lines))
}

// Lines gives the lines after a position. It never ends: a QEMU may come back.
func (j *journal) Lines(after uint64, room int) (b []byte, to uint64, ended bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	to = after
	if to < j.dropped {
		b = fs.AppendLost(b, to+1, j.dropped)
		to = j.dropped
	}
	for _, line := range j.lines[to-j.dropped:] {
		if len(b) > 0 && len(b)+len(line) > room {
			break
		}
		b = append(b, line...)
		to++
	}
	return b, to, false
}

// Wait asks to be woken by a line after a position.
func (j *journal) Wait(after uint64, wake func()) (cancel func(), ready bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dropped+uint64(len(j.lines)) > after {
		return func() {}, true
	}
	w := &waiter{wake: wake}
	j.waiters[w] = struct{}{}
	return func() {
		if !w.done.Swap(true) {
			j.mu.Lock()
			defer j.mu.Unlock()
			delete(j.waiters, w)
		}
	}, false
}
