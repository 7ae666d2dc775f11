package session

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/posix"
	"meta9/session/wire"
)

// tlopen opens a file or folder.
func tlopen(c *conn, f *fid, m *wire.Msg) error {
	flags, err := posix.Flags(m.L.Flags)
	if err != nil {
		return err
	}
	if m.L.Flags&posix.Directory != 0 && !f.ref.IsDir() {
		return errs.NotDir
	}
	return c.open(m.Tag, f, flags&^fs.Excl, false, wire.Rlopen)
}

// tlcreate makes a file in the folder that the fid is, and opens it as that fid.
// Rights come from the channel, so mode and gid say nothing. Without O_EXCL a
// file that another client has made meanwhile is opened.
func tlcreate(c *conn, f *fid, m *wire.Msg) error {
	flags, err := posix.Flags(m.L.Flags)
	if err != nil {
		return err
	}
	return c.create(f, creation{tag: m.Tag, name: m.Name, flags: flags, answer: wire.Rlcreate})
}

// tgetattr tells what there is to know of a file, whatever of it was asked for.
func tgetattr(c *conn, f *fid, m *wire.Msg) error {
	st := &c.work.st
	if err := c.sess.stat(f, st); err != nil {
		return err
	}
	r := wire.Msg{Type: wire.Rgetattr, Tag: m.Tag, QID: st.QID}
	r.L.Mask = posix.Attrs
	posix.SetAttrs(&r.L.Attr, st)
	c.answer(&r)
	return nil
}

// tsetattr changes attributes, all that are asked for or none. The times of
// access and of change are the server's to say: asking for them changes nothing.
func tsetattr(c *conn, f *fid, m *wire.Msg) error {
	if err := c.keepsOwner(f, &m.L.SetMask, &m.L.SetAttr); err != nil {
		return err
	}
	change, err := posix.Change(&m.L.SetMask, &m.L.SetAttr, c.srv.cfg.Now)
	if err != nil {
		return err
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	r := &request{tag: m.Tag, fid: f, reply: replied, answer: wire.Rsetattr}
	c.begin(r, true, func() {
		if change.Empty() {
			r.ended(nil)
			return
		}
		f.change(r, change)
	})
	return nil
}

// keepsOwner refuses a chown to anybody but who owns the file.
func (c *conn) keepsOwner(f *fid, mask *p9.SetAttrMask, a *p9.SetAttr) error {
	if !mask.UID && !mask.GID {
		return nil
	}
	st := &c.work.st
	if err := f.stat(st); err != nil {
		return err
	}
	return posix.KeepsOwner(mask, a, st)
}

// tstatfs tells the limits and the use of the VM.
func tstatfs(c *conn, f *fid, m *wire.Msg) error {
	r := wire.Msg{Type: wire.Rstatfs, Tag: m.Tag}
	r.L.Stat = f.ref.StatFS()
	c.answer(&r)
	return nil
}

// tfsync is answered when all that was written through the fid is durable, a
// held truncation included. With or without datasync it is the same. One that
// comes right behind a create waits for that, as a write does.
func tfsync(c *conn, f *fid, m *wire.Msg) error {
	if f.handle == nil && !f.making {
		return errs.BadUse
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	r := &request{tag: m.Tag, fid: f, reply: replied, answer: wire.Rfsync}
	c.begin(r, true, func() {
		if f.handle == nil { // the create failed
			r.ended(errs.BadUse)
			return
		}
		f.change(r, fs.Change{})
	})
	return nil
}
