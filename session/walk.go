package session

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// twalk walks to a new fid, or moves one that is not open (walk(5)). The manual
// has no walks from an open fid; Linux does them since 5.10 (hugelgupf/p9 #47), so
// they are allowed where newfid differs.
func twalk(c *conn, f *fid, m *wire.Msg) error {
	if m.Newfid == m.Fid {
		// A change that still waits means the place that the fid had before.
		if f.handle != nil || f.running > 0 {
			return errs.BadUse
		}
	} else if err := c.vacant(m.Newfid); err != nil {
		return err
	}
	var qids [wire.MaxWalk]p9.QID
	ref, n, err := walk(f.ref, m.Names, &qids)
	if _, pending := fs.AsPending(err); pending || err != nil && n == 0 {
		return err
	}
	switch {
	case err != nil: // walked in part: newfid stays what it was
	case m.Newfid == m.Fid:
		f.ref = ref
	default:
		c.sess.add(&fid{num: m.Newfid, ref: ref})
	}
	c.answer(&wire.Msg{Type: wire.Rwalk, Tag: m.Tag, QIDs: qids[:n]})
	return nil
}

// walk walks as many names as exist, and returns how many.
func walk(ref *fs.Ref, names []string, qids *[wire.MaxWalk]p9.QID) (*fs.Ref, int, error) {
	for i, name := range names {
		next, err := ref.Walk(name)
		if err != nil {
			return nil, i, err
		}
		ref = next
		qids[i] = ref.QID()
	}
	return ref, len(names), nil
}

// tclunk ends a fid. The number is free at once; the reply waits for the earlier
// writes, and for the truncation that is committed with it. A file that was only
// read has nothing to wait for.
func tclunk(c *conn, m *wire.Msg) error {
	f, err := c.sess.find(m.Fid)
	if err != nil {
		return err
	}
	c.unlink(f)
	if f.running == 0 && !f.rclose && (f.handle == nil || f.flags&fs.Write == 0) {
		f.drop()
		c.empty(wire.Rclunk, m.Tag)
		return nil
	}
	r := &request{tag: m.Tag, fid: f, reply: clunked, answer: wire.Rclunk}
	c.begin(r, true, func() { f.clunk(r) })
	return nil
}

// clunk closes the file, and removes it if it was opened with ORCLOSE. If that fails,
// nobody is told, as in Plan 9: the fid is gone whatever is answered, and Linux shows no
// error of a clunk to its programs.
func (f *fid) clunk(r *request) {
	switch {
	case f.rclose:
		f.drop()
		f.ref.RemoveThis(func(error) { r.ended(nil) })
	case f.handle != nil:
		f.handle.Clunk(f.ref.By(), r.ended)
	default:
		r.ended(nil)
	}
}

// clunked frees the locks. It runs only after all that was written is durable.
func clunked(r *request) {
	r.fid.unlock()
	replied(r)
}

// replied answers a change whose reply has no body, or how many bytes were written.
func replied(r *request) {
	if r.err != nil {
		r.c.refuse(r.tag, r.err)
		return
	}
	r.c.answer(&wire.Msg{Type: r.answer, Tag: r.tag, Count: uint32(r.n)})
}

// tremove removes the file and clunks the fid, even when the file stays
// (remove(5)).
func tremove(c *conn, m *wire.Msg) error {
	f, err := c.sess.find(m.Fid)
	if err != nil {
		return err
	}
	c.unlink(f)
	if f.auth {
		return errs.BadUse
	}
	r := &request{tag: m.Tag, fid: f, reply: replied, answer: wire.Rremove}
	c.begin(r, true, func() {
		f.drop()
		f.ref.Remove(r.ended)
	})
	return nil
}

// unlink frees the number of a fid and ends the reads that block on it, before the clunk's
// reply.
func (c *conn) unlink(f *fid) {
	c.sess.remove(f)
	c.sess.touch(f.num)
	if f.stream {
		c.works()
	}
	for tag, r := range c.waiting {
		if r.fid == f && r.cancel != nil {
			r.cancel()
			delete(c.waiting, tag)
			c.refuse(tag, errs.Interrupted)
		}
	}
}

// drop closes the file without a clunk.
func (f *fid) drop() {
	f.unlock()
	if f.handle != nil {
		f.handle.Drop()
		f.handle = nil
	}
}
