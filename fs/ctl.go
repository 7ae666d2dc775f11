package fs

import (
	"bytes"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
)

// ctlFile is ctl: a VM's, or with no dir the root's. It takes verbs, one a line,
// and reads as the state of what it controls.
type ctlFile struct {
	v   *View
	dir *vmDir
}

func (n *ctlFile) QID() p9.QID {
	if n.dir == nil {
		return streamQID(pathCtl)
	}
	return streamQID(n.dir.cell.ID() + slotCtl)
}

func (n *ctlFile) Stat(st *Stat) error {
	err := n.v.statStream(st, n.QID(), n.dir, "ctl", 0o600)
	st.OwnMode = true // whoever mounts it, it is the admin's
	return err
}

// Open takes the state where it is to be read; truncation is ignored.
func (n *ctlFile) Open(f Flags) (Handle, error) {
	h := &ctlHandle{fileHandle: fileHandle{plain: plain{node: n, flags: f}, content: n.status}, ctl: ctl{file: n}}
	if f&Read == 0 {
		_, err := n.status() // only to know that it is still there
		return h, err
	}
	return h, h.take()
}

// AppendValue appends the state.
func (n *ctlFile) AppendValue(b []byte, max int) ([]byte, error) {
	text, err := n.status()
	switch {
	case err != nil:
		return b, err
	case len(text) > max:
		return b, errs.TooBig
	}
	return append(b, text...), nil
}

// PutValue runs the lines of data; its end ends the last one.
func (n *ctlFile) PutValue(data []byte, by Author, done func(error)) {
	c := ctl{file: n}
	c.write(append(bytes.Clone(data), '\n'), by, func(_ int, err error) { done(err) })
}

// SetStat takes a truncation and an mtime, as a shell's > sends them, and ignores
// both.
func (n *ctlFile) SetStat(c Change, _ Author, done func(error)) {
	if c.Mode != nil || c.Name != nil {
		done(Missing(n, OpSetStat))
		return
	}
	done(nil)
}

// ctlHandle is an open ctl. It reads as the state, and once a verb has answered
// as that answer.
type ctlHandle struct {
	fileHandle
	ctl ctl

	answer []byte // nil: no verb has answered yet
	base   uint64 // the offset of its first byte; unread: that of the first read
}

// unread is greater than any offset.
const unread = math.MaxUint64

// Read reads the state, or the newest answer of a verb: it begins where the first
// read after it does, since a Linux file goes on reading where it was written.
func (h *ctlHandle) Read(p []byte, off uint64) (int, error) {
	if answer := h.ctl.takeAnswer(); answer != nil {
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
func (h *ctlHandle) Write(p []byte, _ uint64, by Author, done func(int, error)) {
	if h.flags&Write == 0 {
		done(0, errs.BadUse)
		return
	}
	h.ctl.write(bytes.Clone(p), by, done)
}

// State keeps the unfinished line and the answer.
func (h *ctlHandle) State() HandleState {
	hs := HandleState{Flags: h.flags &^ (Trunc | Excl), Offset: h.base, Rest: bytes.Clone(h.answer)}
	h.ctl.mu.Lock()
	defer h.ctl.mu.Unlock()
	hs.Last = bytes.Clone(h.ctl.line)
	if h.ctl.answer != nil {
		hs.Offset, hs.Rest = unread, bytes.Clone(h.ctl.answer)
	}
	return hs
}

// restore takes the unfinished line and the answer back; what ran before is not
// run again.
func (h *ctlHandle) restore(hs HandleState) {
	h.ctl.line, h.answer, h.base = bytes.Clone(hs.Last), bytes.Clone(hs.Rest), hs.Offset
}

// ctl runs the lines that are written to one Handle, one after the other. A verb
// ends in the committer, and the next begins there.
//
// Lines are gathered when their write's turn comes, not when it is written: what a
// failed line leaves of its write is dropped whole, and the next write, which may
// have come already, starts a line of its own.
type ctl struct {
	file *ctlFile

	mu      sync.Mutex
	running bool
	queue   []*ctlWrite
	line    []byte // begun and not ended
	over    bool   // the line is too long: it is skipped up to its end
	answer  []byte // of the newest verb that gave one; nil: none since takeAnswer
}

// setAnswer is Call.Answer.
func (c *ctl) setAnswer(text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = append([]byte{}, text...)
}

// takeAnswer is the newest answer, once.
func (c *ctl) takeAnswer() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := c.answer
	c.answer = nil
	return answer
}

// ctlWrite is one write: data is what of it is still to be run.
type ctlWrite struct {
	data []byte
	size int
	by   Author
	done func(int, error)
}

// write takes data over.
func (c *ctl) write(data []byte, by Author, done func(int, error)) {
	c.mu.Lock()
	c.queue = append(c.queue, &ctlWrite{data, len(data), by, done})
	running := c.running
	c.running = true
	c.mu.Unlock()
	if !running {
		c.run()
	}
}

// run runs what is queued, until a verb has to wait; that one runs the rest.
func (c *ctl) run() {
	for {
		w, line, err := c.next()
		switch {
		case w == nil:
			return
		case err != nil:
			c.end(w, err)
		case line == "":
			c.end(w, nil)
		case !c.verb(w, line):
			return
		}
	}
}

// verb runs one line. It tells whether the verb is done already; else the verb
// goes on with run when it is.
func (c *ctl) verb(w *ctlWrite, line string) bool {
	var first atomic.Bool // who of the two is first leaves the rest to the other
	c.file.run(line, w.by, c.setAnswer, func(err error) {
		if err != nil {
			c.end(w, err)
		}
		if first.Swap(true) {
			c.run()
		}
	})
	return first.Swap(true)
}

// next is the next line of the oldest write; "" when nothing is left of it to run;
// no write when nothing is queued.
func (c *ctl) next() (w *ctlWrite, line string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.running = false
		return nil, "", nil
	}
	w = c.queue[0]
	for line == "" && err == nil {
		head, tail, ended := bytes.Cut(w.data, []byte{'\n'})
		if err = c.gather(head); !ended {
			w.data = nil
			return w, "", err
		}
		w.data = tail
		line = strings.TrimSpace(string(c.line))
		c.line, c.over = nil, false
	}
	return w, line, err
}

// gather adds to the line. errs.TooLarge: it is longer than any verb can be.
func (c *ctl) gather(part []byte) error {
	limit := c.file.maxLine()
	if c.over || len(c.line)+len(part) > limit {
		c.line, c.over = nil, true
		return errs.New(errs.TooLarge, "a line is at most %d bytes", limit)
	}
	c.line = append(c.line, part...)
	return nil
}

// end answers the oldest write, which is w. What is left of a failed one is
// dropped.
func (c *ctl) end(w *ctlWrite, err error) {
	c.mu.Lock()
	c.queue = c.queue[1:]
	c.mu.Unlock()
	if err != nil {
		w.done(0, err)
		return
	}
	w.done(w.size, nil)
}
