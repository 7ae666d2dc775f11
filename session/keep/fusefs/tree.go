//go:build (linux && !386 && !arm) || freebsd || darwin

package fusefs

import (
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/keep"
	"meta9/session/wire"
)

// Lookup finds a name in a folder.
func (f *FS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.node(h.NodeId)
	if dir == nil {
		return fuse.ENOENT
	}
	if len(name) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	if code, ok := f.lookedUp(dir, name, out); ok {
		return code
	}
	names, ok := f.path(dir)
	if !ok {
		return status(errs.Stale)
	}
	in := patient(cancel, &h.Caller)
	mark := f.mark()
	err := f.atPath(in, append(names, name), func(fid uint32, _ p9.QID) (bool, error) {
		return false, f.enter(in, dir, name, fid, mark, out)
	})
	if is(err, errs.NotFound) {
		f.missing(dir, name, mark)
	}
	return status(err)
}

// enter tells the kernel of what a name has led to, which is fid; the server was asked
// after mark.
func (f *FS) enter(in keep.Interrupt, dir *node, name string, fid uint32, mark uint64, out *fuse.EntryOut) error {
	r, err := f.getattr(in, fid)
	if err != nil {
		return err
	}
	f.fill(&out.Attr, r)
	n, first := f.found(dir, name, r.QID, mark)
	out.NodeId = n.id
	if t := f.keepAttr(n, mark, &out.Attr); !first { // it could not be told to forget what it does not know
		out.SetAttrTimeout(t)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out.SetEntryTimeout(f.entryTime(n))
	return nil
}

func (f *FS) getattr(in keep.Interrupt, fid uint32) (*wire.Msg, error) {
	m := &wire.Msg{Type: wire.Tgetattr, Fid: fid}
	m.L.Mask = p9.AttrMaskAll
	return f.calls.Call(in, m)
}

// fill is an Rgetattr as the kernel takes it. The inode's number is v9fs's.
func (f *FS) fill(out *fuse.Attr, r *wire.Msg) {
	a := &r.L.Attr
	out.Ino = inode(r.QID)
	out.Size, out.Blocks = a.Size, a.Blocks
	out.Atime, out.Atimensec = a.ATimeSeconds, uint32(a.ATimeNanoSeconds)
	out.Mtime, out.Mtimensec = a.MTimeSeconds, uint32(a.MTimeNanoSeconds)
	out.Ctime, out.Ctimensec = a.CTimeSeconds, uint32(a.CTimeNanoSeconds)
	out.Mode, out.Nlink = uint32(a.Mode)&^f.umask, uint32(a.NLink)
	out.Uid, out.Gid = uint32(a.UID), uint32(a.GID)
}

func inode(qid p9.QID) uint64 { return qid.Path + 2 }

// GetAttr tells what there is to know of a file. Of one that has lost its name, or given
// it to another, an open file of it tells.
func (f *FS) GetAttr(cancel <-chan struct{}, g *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.node(g.NodeId)
	if n == nil {
		return fuse.ENOENT
	}
	if f.keptAttr(n, &out.Attr) {
		out.SetTimeout(keptTime)
		return fuse.OK
	}
	in := patient(cancel, &g.Caller)
	ours, mark := false, f.mark()
	err := f.at(in, n, func(fid uint32, _ p9.QID) (bool, error) {
		r, err := f.getattr(in, fid)
		if err == nil {
			f.fill(&out.Attr, r)
			ours = r.QID.Path == n.qid.Path
		}
		return false, err
	})
	if ours && err == nil {
		out.SetTimeout(f.keepAttr(n, mark, &out.Attr))
	}
	if ours || err != nil && !is(err, errs.NotFound) && !is(err, errs.Stale) {
		return status(err)
	}
	if o := f.opened(n); o != nil {
		if f.openAttr(in, o, &out.Attr) == nil {
			return fuse.OK
		}
	}
	return status(err)
}

// openAttr tells of an open file whose name leads elsewhere. Where it is not open at the
// server, it is what it was when it was opened, and has no name.
func (f *FS) openAttr(in keep.Interrupt, o *file, out *fuse.Attr) error {
	fid, err := f.firm(in, o)
	if is(err, errs.Stale) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if *out = o.node.attr; o.snap == nil || out.Ino == 0 {
			return err
		}
		out.Size, out.Nlink = uint64(len(o.snap.data)), 0
		return nil
	}
	if err != nil {
		return err
	}
	r, err := f.getattr(in, fid)
	if err == nil {
		f.fill(out, r)
	}
	return err
}

// opened is an open file of a node that is the node's own; nil: none is.
func (f *FS) opened(n *node) *file {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.IndexFunc(n.files, func(o *file) bool { return !o.foreign }); i >= 0 {
		return n.files[i]
	}
	return nil
}

// SetAttr changes attributes: through an open file where the kernel names one, or where
// nothing else leads to the file.
func (f *FS) SetAttr(cancel <-chan struct{}, s *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.node(s.NodeId)
	if n == nil {
		return fuse.ENOENT
	}
	in := patient(cancel, &s.Caller)
	set := func(fid uint32) error {
		m := &wire.Msg{Type: wire.Tsetattr, Fid: fid}
		fillSetAttr(&m.L, s)
		if _, err := f.calls.Call(in, m); err != nil {
			return err
		}
		r, err := f.getattr(in, fid)
		if err == nil {
			f.fill(&out.Attr, r)
		}
		return err
	}
	defer f.edited(n)
	if s.Valid&fuse.FATTR_FH != 0 {
		if o := f.file(s.Fh); o != nil {
			return status(f.byFile(in, o, set))
		}
	}
	err := f.at(in, n, func(fid uint32, qid p9.QID) (bool, error) {
		if qid.Path != n.qid.Path {
			return false, errs.Stale
		}
		return false, set(fid)
	})
	if o := f.opened(n); o != nil && is(err, errs.Stale) {
		err = f.byFile(in, o, set)
	}
	return status(f.staleName(n, err))
}

// byFile does something with the fid of an open file.
func (f *FS) byFile(in keep.Interrupt, o *file, do func(fid uint32) error) error {
	fid, err := f.firm(in, o)
	if err != nil {
		return err
	}
	return do(fid)
}

// fillSetAttr is what the kernel wants to have changed.
func fillSetAttr(l *wire.MsgL, s *fuse.SetAttrIn) {
	has := func(bit uint32) bool { return s.Valid&bit != 0 }
	l.SetMask = p9.SetAttrMask{
		Permissions: has(fuse.FATTR_MODE), UID: has(fuse.FATTR_UID), GID: has(fuse.FATTR_GID), Size: has(fuse.FATTR_SIZE),
		ATime: has(fuse.FATTR_ATIME), ATimeNotSystemTime: has(fuse.FATTR_ATIME) && !has(fuse.FATTR_ATIME_NOW),
		MTime: has(fuse.FATTR_MTIME), MTimeNotSystemTime: has(fuse.FATTR_MTIME) && !has(fuse.FATTR_MTIME_NOW),
		CTime: has(fuse.FATTR_CTIME),
	}
	l.SetAttr = p9.SetAttr{
		Permissions: p9.FileMode(s.Mode), UID: p9.UID(s.Uid), GID: p9.GID(s.Gid), Size: s.Size,
		ATimeSeconds: s.Atime, ATimeNanoSeconds: uint64(s.Atimensec), MTimeSeconds: s.Mtime, MTimeNanoSeconds: uint64(s.Mtimensec),
	}
}

// Mkdir, Symlink, Link and Mknod ask the server, which says why not.

// Mkdir makes a folder.
func (f *FS) Mkdir(cancel <-chan struct{}, mk *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	m := &wire.Msg{Type: wire.Tmkdir, Name: name, Perm: mk.Mode}
	m.L.GID = mk.Gid
	return f.makes(cancel, &mk.InHeader, m, out)
}

// Mknod makes a file of whatever kind.
func (f *FS) Mknod(cancel <-chan struct{}, mk *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	m := &wire.Msg{Type: wire.Tmknod, Name: name, Perm: mk.Mode}
	m.L.GID = mk.Gid
	return f.makes(cancel, &mk.InHeader, m, out)
}

// Symlink makes a symbolic link.
func (f *FS) Symlink(cancel <-chan struct{}, h *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	m := &wire.Msg{Type: wire.Tsymlink, Name: name, Ext: to}
	m.L.GID = h.Gid
	return f.makes(cancel, h, m, out)
}

// makes asks for something in a folder, and looks it up.
func (f *FS) makes(cancel <-chan struct{}, h *fuse.InHeader, m *wire.Msg, out *fuse.EntryOut) fuse.Status {
	dir := f.node(h.NodeId)
	if dir == nil {
		return fuse.ENOENT
	}
	err := f.change(patient(cancel, &h.Caller), dir, m)
	f.listed(dir, m.Name)
	if err != nil {
		return status(err)
	}
	return f.Lookup(cancel, h, m.Name, out)
}

// Link gives a file one more name.
func (f *FS) Link(cancel <-chan struct{}, l *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, n := f.node(l.NodeId), f.node(l.Oldnodeid)
	if dir == nil || n == nil {
		return fuse.ENOENT
	}
	in := patient(cancel, &l.Caller)
	err := f.at(in, n, func(fid uint32, _ p9.QID) (bool, error) {
		return false, f.change(in, dir, &wire.Msg{Type: wire.Tlink, Newfid: fid, Name: name})
	})
	if err != nil {
		return status(err)
	}
	return f.Lookup(cancel, &l.InHeader, name, out)
}

// removeDir is unlinkat(2)'s AT_REMOVEDIR, as 9P2000.L has it.
const removeDir = 0x200

// Unlink removes a file.
func (f *FS) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.unlink(cancel, h, name, 0)
}

// Rmdir removes a folder.
func (f *FS) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.unlink(cancel, h, name, removeDir)
}

func (f *FS) unlink(cancel <-chan struct{}, h *fuse.InHeader, name string, flags uint32) fuse.Status {
	dir := f.node(h.NodeId)
	if dir == nil {
		return fuse.ENOENT
	}
	m := &wire.Msg{Type: wire.Tunlinkat, Name: name}
	m.L.Flags = flags
	err := f.change(patient(cancel, &h.Caller), dir, m)
	f.listed(dir, name)
	if err == nil {
		f.unname(dir, name)
	}
	return status(err)
}

// Rename gives a file another name, and replaces what has that.
func (f *FS) Rename(cancel <-chan struct{}, r *fuse.RenameIn, from, to string) fuse.Status {
	dir, other := f.node(r.NodeId), f.node(r.Newdir)
	switch {
	case dir == nil || other == nil:
		return fuse.ENOENT
	case r.Flags != 0:
		return fuse.EINVAL
	}
	in := patient(cancel, &r.Caller)
	err := f.at(in, dir, func(fid uint32, _ p9.QID) (bool, error) {
		move := func(into uint32) error {
			_, err := f.calls.Call(in, &wire.Msg{Type: wire.Trenameat, Fid: fid, Name: from, Newfid: into, Ext: to})
			return err
		}
		if dir == other {
			return false, move(fid)
		}
		return false, f.at(in, other, func(into uint32, _ p9.QID) (bool, error) { return false, move(into) })
	})
	f.listed(dir, from)
	f.listed(other, to)
	if err == nil {
		f.rename(entry{dir, from}, entry{other, to})
	}
	return status(err)
}

// listed drops what is kept of a name and its folder, which this mount has changed, or has
// tried to.
func (f *FS) listed(dir *node, name string) {
	f.edited(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	at := entry{dir, name}
	delete(f.absent, at)
	if n := f.named[at]; n != nil {
		f.forget(n)
	}
}

// StatFs tells of the VM's limits, and of what it has.
func (f *FS) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r, err := f.calls.Call(patient(cancel, &h.Caller), &wire.Msg{Type: wire.Tstatfs, Fid: rootFid})
	if err != nil {
		return status(err)
	}
	s := &r.L.Stat
	*out = fuse.StatfsOut{
		Blocks: s.Blocks, Bfree: s.BlocksFree, Bavail: s.BlocksAvailable, Files: s.Files, Ffree: s.FilesFree,
		Bsize: s.BlockSize, Frsize: s.BlockSize, NameLen: s.NameLength,
	}
	return fuse.OK
}

// OpenDir opens a folder to list it.
func (f *FS) OpenDir(cancel <-chan struct{}, o *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := f.node(o.NodeId)
	if n == nil {
		return fuse.ENOENT
	}
	if o := f.openKept(n, 0); o != nil {
		out.Fh = o.id
		return fuse.OK
	}
	in := patient(cancel, &o.Caller)
	return status(f.at(in, n, func(fid uint32, _ p9.QID) (bool, error) {
		r, err := f.calls.Call(in, &wire.Msg{Type: wire.Tlopen, Fid: fid})
		if err == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			out.Fh = f.opens(n, &file{fid: fid, foreign: r.QID.Path != n.qid.Path}).id
		}
		return err == nil, err
	}))
}

// ReadDir lists as much of a folder as fits, from the entry after an offset on.
func (f *FS) ReadDir(cancel <-chan struct{}, r *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	o := f.file(r.Fh)
	if o == nil {
		return fuse.EBADF
	}
	b, err := f.entries(patient(cancel, &r.Caller), o, r)
	if err != nil {
		return status(err)
	}
	for len(b) > 0 {
		var e p9.Dirent
		if e, b, err = wire.DecodeDirent(b); err != nil {
			return fuse.EIO
		}
		mode := uint32(fuse.S_IFREG)
		if e.QID.Type&p9.TypeDir != 0 {
			mode = fuse.S_IFDIR
		}
		if !out.AddDirEntry(fuse.DirEntry{Mode: mode, Name: e.Name, Ino: inode(e.QID), Off: e.Offset}) {
			break
		}
	}
	return fuse.OK
}

// entries are those of a folder after an offset, some or all.
func (f *FS) entries(in keep.Interrupt, o *file, r *fuse.ReadIn) ([]byte, error) {
	if o.node.kind == folder && f.wanted && !o.foreign {
		if b, ok, err := f.list(in, o, r.Offset); ok || err != nil {
			return b, err
		}
	}
	fid, err := f.firm(in, o)
	if err != nil {
		return nil, err
	}
	reply, err := f.calls.Call(in, &wire.Msg{Type: wire.Treaddir, Fid: fid, Offset: r.Offset, Count: min(r.Size, f.chunk())})
	if err != nil {
		return nil, err
	}
	return reply.Data, nil
}

// ReleaseDir closes a folder.
func (f *FS) ReleaseDir(r *fuse.ReleaseIn) { f.closes(r.Fh) }

// FsyncDir has nothing to do: what is changed in a folder is durable.
func (f *FS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }
