package fs

import (
	"slices"
	"strconv"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
)

// Source makes the lines of a stream. Events have positions, increasing numbers that are
// never used again for the same store, also not by another process: a Handle may be
// restored there. Any number of streams may use a Source at the same time.
type Source interface {
	// Last is the position of the newest event.
	Last() uint64
	// Lines makes lines of the events after a position: as many as fit in room bytes, and
	// at least one if there is any. to is the position that they reach; it may be greater
	// than after without a line. ended: no more events will come. For events that the
	// Source does not have any more there is a line by AppendLost first.
	Lines(after uint64, room int) (lines []byte, to uint64, ended bool)
	// Wait calls wake when there are events after a position, as Waiter.Wait does.
	Wait(after uint64, wake func()) (cancel func(), ready bool)
}

// NewStream makes a read-only file whose reads wait for the lines of a source,
// each Handle from its open on. qidPath must be its own (see DerivedPath).
func NewStream(qidPath uint64, mode uint16, src Source) Node {
	return &streamFile{file{path: qidPath, mode: mode}, src}
}

// streamFile is what NewStream makes. It has no whole, so it is no Valuer.
type streamFile struct {
	file file
	src  Source
}

func (n *streamFile) QID() p9.QID { return n.file.QID() }

func (n *streamFile) Stat(st *Stat) error { return n.file.Stat(st) }

func (n *streamFile) Open(f Flags) (Handle, error) {
	if err := refuseWrite(n, f); err != nil {
		return nil, err
	}
	return openStream(n, f, n.src), nil
}

// openStream opens a stream that begins after the newest event.
func openStream(n Node, f Flags, src Source) Handle {
	return &stream{plain: plain{node: n, flags: f}, src: src, at: src.Last()}
}

// stream is an open stream: a byte stream of lines, which the source makes as they are
// read. The bytes of the last read are kept, and returned again to a read at the same
// offset; a read at any other offset goes on. So a client that lost the reply with its
// transport reads again and misses nothing.
//
// It keeps only those bytes and a position: a slow reader holds up no other, and is told
// what it lost.
type stream struct {
	plain
	src Source

	at    uint64 // up to where lines were made
	base  uint64 // the offset of last
	last  []byte // what the last read gave
	rest  []byte // what of its lines it had no room for; follows last in memory
	ended bool   // the source has

	buffer int // the capacity of what last and rest are parts of
}

// streamBuffer is how many bytes of lines are made at a time; one more line may
// pass it.
const streamBuffer = 8 << 10

// Read gives the next bytes, and ErrWait where there are none. errs.Gone: the source
// has ended, and all was read.
func (h *stream) Read(p []byte, off uint64) (int, error) {
	switch {
	case !h.readable():
		return 0, errs.BadUse
	case len(p) == 0:
		return 0, nil
	case off == h.base && len(h.last) > 0:
		return h.again(p), nil
	}
	if len(h.rest) == 0 && h.src.Last() > h.at {
		var ended bool
		h.rest, h.at, ended = h.src.Lines(h.at, min(len(p), streamBuffer))
		h.ended, h.buffer = h.ended || ended, cap(h.rest)
	}
	switch {
	case len(h.rest) > 0:
	case h.ended:
		return 0, errs.Gone
	default:
		return 0, ErrWait
	}
	n := copy(p, h.rest)
	h.base, h.last, h.rest = off, h.rest[:n], h.rest[n:]
	return n, nil
}

// again gives what the last read gave. Where p has less room, what is left comes
// next after all.
func (h *stream) again(p []byte) int {
	n := copy(p, h.last)
	h.last, h.rest = h.last[:n], h.last[n:len(h.last)+len(h.rest)]
	return n
}

// Wait asks to be woken when Read may have more. That may turn out to be nothing
// that this reader is shown: then Read answers ErrWait again.
func (h *stream) Wait(wake func()) (cancel func(), ready bool) {
	if len(h.rest) > 0 || h.ended {
		return func() {}, true
	}
	return h.src.Wait(h.at, wake)
}

// State keeps the position and the bytes last given.
func (h *stream) State() HandleState {
	return HandleState{
		Flags: h.flags, Rev: h.at, Offset: h.base,
		Last: slices.Clone(h.last), Rest: slices.Clone(h.rest),
	}
}

// restore goes on where the State was taken. A position that this source has not
// reached is another's, so that nobody knows what was missed: the reader is told that
// all is lost which this source no longer has.
func (h *stream) restore(hs HandleState) {
	h.base = hs.Offset
	if hs.Rev > h.at {
		hs.Rev = 0
	}
	h.at = hs.Rev
	all := slices.Concat(hs.Last, hs.Rest)
	h.last, h.rest = all[:len(hs.Last)], all[len(hs.Last):]
}

// AppendLost appends the line that says what a reader missed: from and to are the
// first and the last position.
func AppendLost(b []byte, from, to uint64) []byte {
	b = strconv.AppendUint(append(b, `{"type":"lost","from":`...), from, 10)
	b = strconv.AppendUint(append(b, `,"to":`...), to, 10)
	return append(b, '}', '\n')
}
