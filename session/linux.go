package session

import (
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// The flags of open(2) that say something here, in Linux's generic numbers,
// which 9P2000.L has on every machine (diod protocol.md).
const (
	linuxAccess    = 3
	linuxExcl      = 0o200
	linuxTrunc     = 0o1000
	linuxAppend    = 0o2000
	linuxNonblock  = 0o4000
	linuxDirectory = 0o200000
)

// linuxFlags are the flags that open(2)'s ask for. O_CREAT in a Tlopen says
// nothing: Linux has looked the file up. Nor does O_APPEND where nothing is
// written.
func linuxFlags(open uint32) (fs.Flags, error) {
	access := [4]fs.Flags{fs.Read, fs.Write, fs.Read | fs.Write, 0}[open&linuxAccess]
	if access == 0 {
		return 0, errs.New(errs.Invalid, "open flags %#o", open)
	}
	flags := access
	for _, f := range [...]struct {
		bit  uint32
		flag fs.Flags
	}{{linuxExcl, fs.Excl}, {linuxTrunc, fs.Trunc}, {linuxAppend, fs.AppendTo}, {linuxNonblock, fs.NonBlock}} {
		if open&f.bit != 0 {
			flags |= f.flag
		}
	}
	if flags&fs.Write == 0 {
		flags &^= fs.AppendTo
	}
	return flags, nil
}

// tlopen opens a file or folder.
func tlopen(c *conn, m *wire.Msg) error {
	flags, err := linuxFlags(m.L.Flags)
	if err != nil {
		return err
	}
	f, err := c.sess.file(m.Fid)
	if err != nil {
		return err
	}
	if m.L.Flags&linuxDirectory != 0 && !f.ref.IsDir() {
		return errs.NotDir
	}
	return c.open(m.Tag, f, flags&^fs.Excl, false, wire.Rlopen)
}

// tlcreate makes a file in the folder that the fid is, and opens it as that fid.
// Rights come from the channel, so mode and gid say nothing. Without O_EXCL a
// file that another client has made meanwhile is opened.
func tlcreate(c *conn, m *wire.Msg) error {
	flags, err := linuxFlags(m.L.Flags)
	if err != nil {
		return err
	}
	f, err := c.sess.file(m.Fid)
	if err != nil {
		return err
	}
	return c.create(f, creation{tag: m.Tag, name: m.Name, flags: flags, answer: wire.Rlcreate})
}

// linuxAttrs are the attributes that every file has, those of stat(2)
// (P9_STATS_BASIC). The time of birth, the generation and the data's version are
// not kept, and clients ask for them in vain.
var linuxAttrs = p9.AttrMask{
	Mode: true, NLink: true, UID: true, GID: true, RDev: true, ATime: true,
	MTime: true, CTime: true, INo: true, Size: true, Blocks: true,
}

// The blocks of st_blksize and st_blocks, in bytes.
const (
	blockSize = 4096
	block     = 512
)

// tgetattr tells what there is to know of a file, whatever of it was asked for.
func tgetattr(c *conn, m *wire.Msg) error {
	f, err := c.sess.file(m.Fid)
	if err != nil {
		return err
	}
	st := &c.in.sc.st
	if err := c.sess.stat(f, st); err != nil {
		return err
	}
	r := wire.Msg{Type: wire.Rgetattr, Tag: m.Tag, QID: st.QID}
	r.L.Mask = linuxAttrs
	attributes(&r.L.Attr, st)
	c.answer(&r)
	return nil
}

// attributes fills a from st. A folder has one link, which tells find(1) that
// links do not count folders here; an open file that is gone has none, as in any
// Unix.
func attributes(a *p9.Attr, st *fs.Stat) {
	sec, nsec := uint64(st.Mtime/1e9), uint64(st.Mtime%1e9)
	*a = p9.Attr{
		Mode: p9.ModeRegular | p9.FileMode(st.Mode), NLink: 1,
		UID: p9.UID(st.UID), GID: p9.GID(st.GID),
		Size: st.Length, BlockSize: blockSize, Blocks: (st.Length + block - 1) / block,
		ATimeSeconds: sec, ATimeNanoSeconds: nsec,
		MTimeSeconds: sec, MTimeNanoSeconds: nsec,
		CTimeSeconds: sec, CTimeNanoSeconds: nsec,
	}
	if st.Gone {
		a.NLink = 0
	}
	if st.IsDir() {
		a.Mode = p9.ModeDirectory | p9.FileMode(st.Mode)
	}
}

// tsetattr changes attributes, all that are asked for or none. The times of
// access and of change are the server's to say: asking for them changes nothing.
func tsetattr(c *conn, m *wire.Msg) error {
	f, err := c.sess.file(m.Fid)
	if err != nil {
		return err
	}
	if err := c.keepsOwner(f, &m.L.SetMask, &m.L.SetAttr); err != nil {
		return err
	}
	change, err := c.setAttr(&m.L.SetMask, &m.L.SetAttr)
	if err != nil {
		return err
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	r := &request{tag: m.Tag, fid: f, reply: func(r *request) { r.c.reply(r, wire.Rsetattr) }}
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
	st := &c.in.sc.st
	if err := f.stat(st); err != nil {
		return err
	}
	if mask.UID && uint32(a.UID) != st.UID || mask.GID && uint32(a.GID) != st.GID {
		return errs.New(errs.NotPermitted, "this file belongs to %d:%d", st.UID, st.GID)
	}
	return nil
}

// setAttr is the change that a Tsetattr asks for. A commit stamps the time of
// the last write anyway, so that a new length needs no time beside it.
func (c *conn) setAttr(mask *p9.SetAttrMask, a *p9.SetAttr) (ch fs.Change, err error) {
	if mask.Permissions {
		mode := uint16(a.Permissions & 0o777)
		ch.Mode = &mode
	}
	if mask.Size {
		size := a.Size
		ch.Length = &size
	}
	switch {
	case mask.MTime && mask.MTimeNotSystemTime:
		if a.MTimeSeconds > 1<<33 || a.MTimeNanoSeconds >= 1e9 {
			return ch, errs.New(errs.Invalid, "a time of %d s %d ns", a.MTimeSeconds, a.MTimeNanoSeconds)
		}
		at := time.Unix(int64(a.MTimeSeconds), int64(a.MTimeNanoSeconds)).UnixNano()
		ch.Mtime = &at
	case mask.MTime && !mask.Size:
		now := c.srv.cfg.Now().UnixNano()
		ch.Mtime = &now
	}
	return ch, nil
}

// tstatfs tells the limits and the use of the VM.
func tstatfs(c *conn, m *wire.Msg) error {
	f, err := c.sess.file(m.Fid)
	if err != nil {
		return err
	}
	r := wire.Msg{Type: wire.Rstatfs, Tag: m.Tag}
	r.L.Stat = f.ref.StatFS()
	c.answer(&r)
	return nil
}

// tfsync is answered when all that was written through the fid is durable, a
// held truncation included. With or without datasync it is the same. One that
// comes right behind a create waits for that, as a write does.
func tfsync(c *conn, m *wire.Msg) error {
	f, err := c.sess.file(m.Fid)
	switch {
	case err != nil:
		return err
	case f.handle == nil && !f.making:
		return errs.BadUse
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	r := &request{tag: m.Tag, fid: f, reply: func(r *request) { r.c.reply(r, wire.Rfsync) }}
	c.begin(r, true, func() {
		if f.handle == nil { // the create failed
			r.ended(errs.BadUse)
			return
		}
		f.change(r, fs.Change{})
	})
	return nil
}
