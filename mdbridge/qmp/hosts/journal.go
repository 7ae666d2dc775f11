package hosts

import (
	"meta9/fs"
	"meta9/fs/ring"
)

// The bounds of a journal, and of one line in it.
const (
	maxLines     = 256
	maxBytes     = 256 << 10
	maxLineBytes = 64 << 10
)

// journal keeps the newest events of one QEMU as lines: the source of qmp/events.
// The positions of the lines are successive numbers.
type journal struct{ *ring.Ring[entry] }

// entry is a line, with its end.
type entry struct {
	position uint64
	line     []byte
}

// newJournal makes a journal whose positions follow after. The caller passes the clock's
// microseconds: positions of an earlier process do not come again, so a reader that was
// restored from then gets a `lost` line and not a silent gap.
func newJournal(after uint64) journal {
	return journal{ring.New(ring.Config[entry]{
		Items: maxLines, Position: func(e *entry) uint64 { return e.position },
		Bytes: maxBytes, Size: func(e *entry) int { return len(e.line) },
	}, after)}
}

// add adds a line, given without its end, and wakes waiting readers. Only the goroutine
// of the QEMU's client adds.
func (j journal) add(line []byte) {
	for _, w := range j.Add(entry{j.Last() + 1, append(line, '\n')}, nil) {
		w.Wake()
	}
}

// Lines returns the lines after a position. ended is never true: a QEMU may come back.
func (j journal) Lines(after uint64, room int) (b []byte, to uint64, ended bool) {
	entries, lost := j.After(after, 0, nil)
	if lost != 0 {
		b, after = fs.AppendLost(b, after+1, lost), lost
	}
	for to = after; len(entries) > 0 && (len(b) == 0 || len(b)+len(entries[0].line) <= room); entries = entries[1:] {
		b, to = append(b, entries[0].line...), entries[0].position
	}
	return b, to, false
}
