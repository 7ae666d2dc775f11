package session

import (
	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/posix"
	"meta9/session/wire"
)

// treaddir answers with as many entries as fit, from the cookie of an earlier
// one on. There are none for "." and "..", as from p9's server: nothing that
// Linux or its programs do needs them, since a path with them never comes here.
func treaddir(c *conn, m *wire.Msg) error {
	f, err := c.sess.opened(m.Fid, fs.Read)
	if err != nil {
		return err
	}
	from := f.progress().after(m.Offset)
	p, err := c.list(f, &from, int(min(m.Count, c.msize-wire.ReadLen, listSize)))
	switch {
	case err != nil:
		return err
	case p.used == 0 && p.more:
		return errs.New(errs.Invalid, "count %d is too small for the next entry", m.Count)
	}
	f.listed(from, p)
	c.answerRead(wire.Rreaddir, m.Tag, p.used, f.num, nil)
	return nil
}

// dirents fills b with the entries of a folder after a cookie.
func dirents(ref *fs.Ref, after uint64, b []byte) (p page, err error) {
	p.cookie = after
	err = ref.List(after, func(cookie uint64, st *fs.Stat) bool {
		d := posix.Dirent(cookie, st)
		if p.used+wire.DirentSize(&d) > len(b) {
			p.more = true
			return false
		}
		p.used = len(wire.AppendDirent(b[:p.used], &d))
		p.cookie = cookie
		return true
	})
	return p, err
}

// tunlinkat removes an entry of a folder by its name.
func tunlinkat(c *conn, f *fid, m *wire.Msg) error {
	name, dir := m.Name, m.L.Flags&posix.RemoveDir != 0
	return c.alter(f, m, wire.Runlinkat, func(done func(error)) { f.ref.Unlink(name, dir, done) })
}

// trenameat gives an entry of a folder another name, and replaces what has that.
func trenameat(c *conn, f *fid, m *wire.Msg) error {
	to, err := c.sess.file(m.Newfid)
	if err != nil {
		return err
	}
	from, name := m.Name, m.Ext
	return c.alter(f, m, wire.Rrenameat, func(done func(error)) { f.ref.Rename(from, to.ref, name, done) })
}

// trename gives the file that the fid is another name, in the folder that newfid
// is.
func trename(c *conn, f *fid, m *wire.Msg) error {
	to, err := c.sess.file(m.Newfid)
	if err != nil {
		return err
	}
	name := m.Name
	return c.alter(f, m, wire.Rrename, func(done func(error)) { f.ref.Move(to.ref, name, done) })
}

// alter enters a change that f is asked for by m and that has nothing to say but how it
// ended. Names that wait count like data: they have not been looked at yet, and may be
// long.
func (c *conn) alter(f *fid, m *wire.Msg, t wire.Type, change func(done func(error))) error {
	if err := c.mayWait(); err != nil {
		return err
	}
	r := &request{tag: m.Tag, fid: f, size: len(m.Name) + len(m.Ext), reply: replied, answer: t}
	c.begin(r, true, func() { change(r.ended) })
	return nil
}

// tmkdir is refused: folders come with a VM.
func tmkdir(c *conn, f *fid, m *wire.Msg) error {
	switch _, err := f.ref.Walk(m.Name); {
	case err == nil:
		return errs.Exists
	case errs.KindOf(err) == errs.NameTooLong:
		return err
	}
	name := m.Name
	return c.alter(f, m, wire.Rmkdir, func(done func(error)) {
		f.ref.Create(name, fs.Read, true, func(_ *fs.Ref, _ fs.Handle, err error) { done(err) })
	})
}

// refuseLink refuses to make links and devices, with link(2)'s, symlink(2)'s and mknod(2)'s
// errno for a file system that has none: programs do without then (Python's mailbox renames).
func refuseLink(*conn, *fid, *wire.Msg) error { return errs.NotPermitted }

// tunsupported refuses to read links, and extended attributes, of which Linux falls back
// on EOPNOTSUPP, and on no other errno.
func tunsupported(*conn, *fid, *wire.Msg) error { return errs.Unsupported }
