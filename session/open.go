package session

import (
	"slices"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// topen opens a file or folder (open(5)).
func topen(c *conn, f *fid, m *wire.Msg) error {
	flags, err := c.openFlags(m.Mode)
	if err != nil {
		return err
	}
	return c.open(m.Tag, f, flags, m.Mode&wire.ORclose != 0, wire.Ropen)
}

// open opens the fid's file and answers with a message of type t.
func (c *conn) open(tag uint16, f *fid, flags fs.Flags, rclose bool, t wire.Type) error {
	switch {
	case f.handle != nil || f.making:
		return errs.BadUse
	case f.ref.IsDir() && (flags&(fs.Write|fs.Trunc|fs.AppendTo) != 0 || rclose):
		return errs.IsDir
	}
	h, err := f.openNow(flags)
	if err != nil {
		return err
	}
	_, stream := h.(fs.Waiter)
	if stream {
		if err := c.mayStream(); err != nil {
			h.Drop()
			return err
		}
	}
	f.opened(h, flags, rclose)
	if stream {
		c.sess.streams++
		c.works()
	}
	c.answer(&wire.Msg{Type: t, Tag: tag, QID: f.ref.QID(), Iounit: c.iounit()})
	return nil
}

// openNow opens the fid's object, or the one that its name leads to by now. It never
// truncates an object that the client was not told of.
func (f *fid) openNow(flags fs.Flags) (h fs.Handle, err error) {
	if flags&fs.Trunc != 0 {
		return f.ref.Open(flags)
	}
	walked := f.ref
	err = f.lookAt(func(at *fs.Ref) (err error) {
		h, err = at.Open(flags)
		return err
	})
	if err == nil && f.ref != walked && flags&fs.Read != 0 {
		f.walked = walked
	}
	return h, err
}

// mayStream refuses a stream when as many are open as requests may wait. Each stream
// keeps the bytes that it gave last, so a great many would take more memory than all else
// of the fids.
func (c *conn) mayStream() error {
	if limit := c.srv.cfg.Limits.Waiting; c.sess.streams >= limit {
		return errs.New(errs.TooManyFids, "%d files of events are open, the limit", limit)
	}
	return c.sess.pays(0, 1)
}

func (f *fid) opened(h fs.Handle, flags fs.Flags, rclose bool) {
	f.handle, f.flags, f.rclose = h, flags, rclose
	f.folder = f.ref.IsDir()
	_, f.stream = h.(fs.Waiter)
}

// iounit is how many bytes fit a Twrite or an Rread of any dialect, as Plan 9 counts.
func (c *conn) iounit() uint32 { return c.msize - 24 }

// modeBits are the bits of an open mode that are known here; 0x20 is Plan 9's
// close-on-exec, which only concerns the client.
const modeBits = 3 | wire.OTrunc | 0x20 | wire.ORclose | wire.OAppend

// openFlags returns the flags that an open mode asks for.
func (c *conn) openFlags(mode uint8) (fs.Flags, error) {
	if mode&^modeBits != 0 || (mode&wire.OAppend != 0 && !c.dialect.IsU()) {
		return 0, errs.New(errs.Invalid, "open mode 0x%02x", mode)
	}
	flags := [4]fs.Flags{wire.ORead: fs.Read, wire.OWrite: fs.Write, wire.ORdWr: fs.Read | fs.Write, wire.OExec: fs.Read}[mode&3]
	if mode&wire.OTrunc != 0 {
		flags |= fs.Trunc
	}
	if mode&wire.OAppend != 0 {
		flags |= fs.AppendTo
	}
	return flags, nil
}

// tcreate makes a file in the folder that the fid is, and opens it as that fid
// (create(5)). Rights come from the channel, so of perm only the kind of file
// counts, and DMAPPEND, for as long as this fid has it open.
func tcreate(c *conn, f *fid, m *wire.Msg) error {
	if m.Perm&(wire.DMUnix|wire.DMAuth) != 0 {
		return errs.New(errs.NotPermitted, "only files are made here, perm was %#o", m.Perm)
	}
	flags, err := c.openFlags(m.Mode)
	if err != nil {
		return err
	}
	if m.Perm&wire.DMAppend != 0 {
		flags |= fs.AppendTo
	}
	return c.create(f, creation{
		tag: m.Tag, name: m.Name, dir: m.Perm&wire.DMDir != 0, flags: flags&^fs.Trunc | fs.Excl,
		rclose: m.Mode&wire.ORclose != 0, answer: wire.Rcreate,
	})
}

// creation is what a Tcreate or a Tlcreate asks for, in any dialect.
type creation struct {
	tag    uint16
	name   string
	dir    bool
	flags  fs.Flags
	rclose bool
	answer wire.Type
}

// create makes a file in the folder that the fid is, which becomes the file.
func (c *conn) create(f *fid, n creation) error {
	if f.handle != nil || f.making {
		return errs.BadUse
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	r := &request{tag: n.tag, fid: f, size: len(n.name), reply: func(r *request) { r.created(&n) }, answer: n.answer}
	r.makes = func() *FidState {
		st := f.state(nil)
		node := *st.Node
		node.Path = append(slices.Clone(node.Path), n.name)
		return &FidState{Fid: f.num, Node: &node, Handle: &fs.HandleState{Flags: n.flags}, Rclose: n.rclose}
	}
	c.begin(r, true, func() {
		f.making = true
		f.ref.Create(n.name, n.flags, n.dir, r.made)
	})
	return nil
}

// created makes the fid the new file.
func (r *request) created(n *creation) {
	f, c := r.fid, r.c
	f.making = false
	if r.err != nil {
		c.refuse(r.tag, r.err)
		return
	}
	f.ref = r.ref
	f.opened(r.handle, n.flags, n.rclose)
	c.answer(&wire.Msg{Type: n.answer, Tag: r.tag, QID: f.ref.QID(), Iounit: c.iounit()})
}
