package residence

import (
	"bytes"
	"testing"

	tree "meta9/fs"
	"meta9/session"
)

// Image restores what the bytes of a file say.
func Image(b []byte, home Home, srv *session.Server, t *tree.Tree) (r Report) {
	r.Found = true
	if err := r.read(bytes.NewReader(b), int64(len(b)), home, func(rec any) error { return r.restore(rec, srv, t) }); err != nil {
		r.lost(err)
	}
	return r
}

// Sealed is a file of this home that has one record, whatever its body is.
func Sealed(home Home, kind byte, body []byte) []byte {
	var b bytes.Buffer
	w := newWriter(&b)
	_ = w.home(home) // into memory
	_ = w.record(kind, body)
	_ = w.end()
	_ = w.out.Flush()
	return b.Bytes()
}

// Body is a session's record.
func Body(st session.State) []byte {
	w := newWriter(new(bytes.Buffer))
	_ = w.session(st) // into memory
	return w.body
}

// SmallSegments makes the segments of journals small, until the test has ended, and the
// journals that it makes from now on with it.
func SmallSegments(t testing.TB) {
	was := segmentSize
	segmentSize = 16 << 10
	t.Cleanup(func() { segmentSize = was })
}

// JournalImage restores what the bytes of a journal's only segment say.
func JournalImage(b []byte, p Place, srv *session.Server, t *tree.Tree) (r Report) {
	f := newFolded()
	err := f.segment(b, p, true)
	if err == nil {
		err = f.settle(p.Number)
	}
	if err != nil {
		r.lost(err)
		return r
	}
	f.restore(&r, srv, t)
	return r
}

// Used is how many bytes of a segment say something.
func Used(b []byte) int {
	records, _ := segmentRecords(b)
	return recordsAt + len(records)
}

// SealedSegment is a segment of that place that has one record.
func SealedSegment(p Place, kind byte, body []byte) []byte {
	s := &segment{mem: make([]byte, segmentSize), used: recordsAt}
	copy(s.mem, journalMagic)
	home, _ := p.form() // into memory
	s.append(kindHome, home)
	if s.fits(len(body)) {
		s.append(kind, body)
	}
	return s.mem
}

// ChangeJSON is a Change without its kept replies.
func ChangeJSON(ch *session.Change) []byte { return appendChangeJSON(nil, ch) }

// HoldSweep makes the journal as it is while the segments of an epoch before are there still.
func (j *Journal) HoldSweep() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sweeping = true
}
