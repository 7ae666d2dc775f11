package fs

import (
	"bytes"
	"math"
	"sync"
	"sync/atomic"

	"meta9/fs/errs"
)

// lineFile is a file that runs the lines that are written to it: ctl and txn.
type lineFile interface {
	Node
	// run executes a line, which the caller does not use any more. It may call answer with
	// the text that is read from then on, and then calls done once, from any goroutine;
	// done may be called before run returns.
	run(line []byte, by Author, answer func(text []byte), done func(error))
	// longest is how many bytes a line may have, and the kind of error for a longer one.
	longest() (int, errs.Kind)
	// refused is the answer to a line that was refused before run; nil: none.
	refused(err error) []byte
	// reserve counts more bytes, or fewer, of a line that is written in several pieces. An
	// error: they may not be kept.
	reserve(more int) error
	// view is whose lines they are.
	view() *View
}

// putLines runs the lines of data; its end ends the last one.
func putLines(n lineFile, data []byte, by Author, done func(error)) {
	l := lines{file: n}
	l.write(append(bytes.Clone(data), '\n'), by, func(_ int, err error) { done(err) })
}

// setLineFile takes a truncation and an mtime, as a shell's > sends them, and ignores
// both.
func setLineFile(n lineFile, c Change, done func(error)) {
	if c.Mode != nil || c.Name != nil {
		done(Missing(n, OpSetStat))
		return
	}
	done(nil)
}

// lineHandle is an open lineFile. It reads as the file's content, and once a line
// has answered as that answer.
type lineHandle struct {
	fileHandle
	lines lines

	answer []byte // nil: no line has answered yet
	base   uint64 // the offset of its first byte; unread: that of the first read
}

func newLineHandle(n lineFile, f Flags, content func() ([]byte, error)) *lineHandle {
	return &lineHandle{fileHandle: fileHandle{plain: plain{node: n, flags: f}, content: content}, lines: lines{file: n}}
}

// unread is greater than any offset.
const unread = math.MaxUint64

// Read reads the content, or the newest answer of a line: it begins where the first
// read after it does, since a Linux file goes on reading where it was written.
func (h *lineHandle) Read(p []byte, off uint64) (int, error) {
	if answer := h.lines.takeAnswer(); answer != nil {
		h.answer, h.base = answer, unread
	}
	switch {
	case h.answer == nil:
		return h.fileHandle.Read(p, off)
	case !h.readable():
		return 0, errs.BadUse
	}
	h.base = min(h.base, off)
	return copy(p, h.answer[min(off-h.base, uint64(len(h.answer))):]), nil
}

// Write adds p to the line that was begun, wherever off is, and runs the lines
// that it ends. done gets the error of the first that fails: what follows it in p
// is not run.
func (h *lineHandle) Write(p []byte, _ uint64, by Author, done func(int, error)) {
	if h.flags&Write == 0 {
		done(0, errs.BadUse)
		return
	}
	h.lines.write(bytes.Clone(p), by, done)
}

// State keeps the unfinished line and the answer.
func (h *lineHandle) State() HandleState {
	hs := HandleState{Flags: h.flags &^ (Trunc | Excl), Offset: h.base, Rest: bytes.Clone(h.answer)}
	h.lines.mu.Lock()
	defer h.lines.mu.Unlock()
	hs.Last, hs.Skips = bytes.Clone(h.lines.line), h.lines.refused != nil
	if h.lines.answer != nil {
		hs.Offset, hs.Rest = unread, bytes.Clone(h.lines.answer)
	}
	return hs
}

// Clunk forgets the unfinished line.
func (h *lineHandle) Clunk(_ Author, done func(error)) {
	h.Drop()
	done(nil)
}

// Drop forgets the unfinished line.
func (h *lineHandle) Drop() {
	h.lines.mu.Lock()
	defer h.lines.mu.Unlock()
	h.lines.closed = true
	_ = h.lines.keep(nil)
}

// restore takes the unfinished line and the answer back; what ran before is not
// run again.
func (h *lineHandle) restore(hs HandleState) {
	switch err := h.lines.file.reserve(len(hs.Last)); {
	case err != nil:
		h.lines.refused = err
	case hs.Skips:
		h.lines.refused = errs.New(errs.Invalid, "the line was refused before")
	default:
		h.lines.line = bytes.Clone(hs.Last)
	}
	h.answer, h.base = bytes.Clone(hs.Rest), hs.Offset
}

// lines runs the lines that are written to one Handle, one after the other: those that need
// not wait in the writer's goroutine, and what follows one that had to wait in that of later.
// The committer, which ends most lines, reads none: one may be a MiB of JSON.
//
// A write is cut into lines when its turn comes, not when it arrives: after a line that
// failed the rest of its write is dropped, and the next write, which may have arrived
// already, begins a new line.
type lines struct {
	file lineFile

	mu      sync.Mutex
	running bool
	closed  bool // nothing is kept any more
	queue   []*lineWrite
	line    []byte // the unfinished line; its bytes are counted by reserve
	refused error  // why the unfinished line is skipped up to its end; nil: it is not
	answer  []byte // of the newest line with an answer; nil: none since takeAnswer
}

// setAnswer is run's answer function.
func (l *lines) setAnswer(text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = append([]byte{}, text...)
}

// takeAnswer returns the newest answer, and forgets it.
func (l *lines) takeAnswer() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer := l.answer
	l.answer = nil
	return answer
}

// lineWrite is one write: data is what of it is still to be run.
type lineWrite struct {
	data []byte
	size int
	by   Author
	done func(int, error)
}

// write takes data over.
func (l *lines) write(data []byte, by Author, done func(int, error)) {
	l.mu.Lock()
	l.queue = append(l.queue, &lineWrite{data, len(data), by, done})
	running := l.running
	l.running = true
	l.mu.Unlock()
	if !running {
		l.run()
	}
}

// run runs queued lines until one has to wait; the end of that one calls goOn.
func (l *lines) run() {
	for l.step() {
	}
}

// step runs the next line. It tells whether there may be another that can be run now.
func (l *lines) step() bool {
	w, line, err := l.next()
	switch {
	case w == nil:
		return false
	case err != nil:
		if answer := l.file.refused(err); answer != nil {
			l.setAnswer(answer)
		}
		l.end(w, err)
	case len(line) == 0:
		l.end(w, nil)
	default:
		return l.do(w, line)
	}
	return true
}

// do runs one line. It tells whether that is done already; else goOn is called when it is.
func (l *lines) do(w *lineWrite, line []byte) bool {
	var first atomic.Bool // who of the two is first leaves the rest to the other
	l.file.run(line, w.by, l.setAnswer, func(err error) {
		if err != nil {
			l.end(w, err)
		}
		if first.Swap(true) {
			l.goOn()
		}
	})
	return first.Swap(true)
}

// goOn ends the writes of which nothing is left to run, and leaves the others to later.
func (l *lines) goOn() {
	for {
		w, left := l.oldest()
		switch {
		case w == nil:
			return
		case left:
			l.file.view().tree.later.add(l)
			return
		}
		l.end(w, nil)
	}
}

// oldest is the oldest write, and whether something of it is left to run; nil: there is none,
// and the next write runs its lines.
func (l *lines) oldest() (w *lineWrite, left bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.running = false
		return nil, false
	}
	return l.queue[0], len(l.queue[0].data) > 0
}

// next is the next line of the oldest write; none when nothing is left of it to run;
// no write when nothing is queued.
func (l *lines) next() (w *lineWrite, line []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.running = false
		return nil, nil, nil
	}
	w = l.queue[0]
	for len(line) == 0 && err == nil {
		part, rest, ended := bytes.Cut(w.data, []byte{'\n'})
		w.data = rest
		line, err = l.gather(part, ended)
		if !ended {
			return w, nil, err
		}
	}
	return w, line, err
}

// gather adds to the line, and gives it when it has ended, without blanks at its ends.
// A line is refused that is longer than any can be, and one of which the file keeps no
// more.
func (l *lines) gather(part []byte, ended bool) ([]byte, error) {
	refused := l.refused
	if most, kind := l.file.longest(); refused == nil && len(l.line)+len(part) > most {
		refused = errs.New(kind, "a line is at most %d bytes", most)
	}
	if refused == nil && !ended {
		refused = l.keep(append(l.line, part...))
	}
	switch {
	case refused != nil:
		_ = l.keep(nil)
		if l.refused = refused; ended {
			l.refused = nil
		}
		return nil, refused
	case !ended:
		return nil, nil
	}
	if len(l.line) > 0 {
		part = append(l.line, part...)
		_ = l.keep(nil)
	}
	return bytes.TrimSpace(part), nil
}

// keep replaces the unfinished line, if the file has room for it. A shorter line always
// has room.
func (l *lines) keep(line []byte) error {
	if l.closed {
		line = nil
	}
	if err := l.file.reserve(len(line) - len(l.line)); err != nil {
		return err
	}
	l.line = line
	return nil
}

// end answers the oldest write, which is w. What is left of a failed one is
// dropped.
func (l *lines) end(w *lineWrite, err error) {
	l.mu.Lock()
	l.queue = l.queue[1:]
	l.mu.Unlock()
	if err != nil {
		w.done(0, err)
		return
	}
	w.done(w.size, nil)
}
