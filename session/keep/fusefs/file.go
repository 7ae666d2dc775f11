//go:build (linux && !386 && !arm) || freebsd || darwin

package fusefs

import (
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/keep"
	"meta9/session/wire"
)

// The flags of open(2) as 9P2000.L has them: those of most of Linux's systems.
const (
	linuxCreat    = 0o100
	linuxExcl     = 0o200
	linuxTrunc    = 0o1000
	linuxAppend   = 0o2000
	linuxNonblock = 0o4000
	linuxAccess   = 0o3
)

// linuxFlags are this system's flags of open(2) in those.
func linuxFlags(flags uint32) uint32 {
	l := flags & linuxAccess
	for bit, to := range map[int]uint32{
		syscall.O_EXCL: linuxExcl, syscall.O_TRUNC: linuxTrunc, syscall.O_APPEND: linuxAppend, syscall.O_NONBLOCK: linuxNonblock,
	} {
		if flags&uint32(bit) != 0 {
			l |= to
		}
	}
	return l
}

// opens enters an open file of a node. mu is held.
func (f *FS) opens(n *node, o *file) *file {
	f.lastID++
	o.id, o.node = f.lastID, n
	f.open[o.id] = o
	n.files = append(n.files, o)
	return o
}

// closes ends an open file.
func (f *FS) closes(id uint64) {
	f.mu.Lock()
	o := f.open[id]
	if o != nil {
		delete(f.open, id)
		n := o.node
		n.files = slices.DeleteFunc(n.files, func(x *file) bool { return x == o })
	}
	f.mu.Unlock()
	if o == nil {
		return
	}
	f.reads(o, nil)
	o.mu.Lock()
	fid := o.fid
	o.mu.Unlock()
	switch {
	case fid == wire.NoFid:
	case o.writes:
		f.calls.Start(&wire.Msg{Type: wire.Tclunk, Fid: fid}, func() {
			f.freed(fid)
			f.ends(o.node)
		})
	default:
		f.clunk(fid)
	}
}

// ioHeader is what a Twrite has beside its data, in bytes, and a little more, as
// everybody reserves (IOHDRSZ of fcall.h).
const ioHeader = 24

// chunk is how many bytes one read or write carries.
func (f *FS) chunk() uint32 { return f.calls.Msize() - ioHeader }

// Open opens a file. For writing, a truncation included, it is never another one than was
// looked up.
func (f *FS) Open(cancel <-chan struct{}, o *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := f.node(o.NodeId)
	if n == nil {
		return fuse.ENOENT
	}
	flags := linuxFlags(o.Flags) &^ linuxExcl
	if o := f.openKept(n, flags); o != nil {
		out.Fh, out.OpenFlags = o.id, openFlags(false)
		return fuse.OK
	}
	in := patient(cancel, &o.Caller)
	writes := flags&(linuxAccess|linuxTrunc) != 0
	f.countOpening(n, 1)
	defer f.countOpening(n, -1)
	if writes {
		f.begins(n)
	}
	by := f.at
	if !writes && n.kind == key {
		by = f.atName
	}
	err := by(in, n, func(fid uint32, qid p9.QID) (bool, error) {
		if writes && qid.Path != n.qid.Path {
			return false, errs.Stale
		}
		m := &wire.Msg{Type: wire.Tlopen, Fid: fid}
		m.L.Flags = flags
		r, err := f.calls.Call(in, m)
		if err == nil {
			f.opened9p(n, fid, r.QID, flags, writes, out)
		}
		return err == nil, err
	})
	switch {
	case err != nil && writes:
		f.ends(n)
	case err == nil && f.tells(n):
		_ = f.dropAll(keep.Interrupt{}) // ends soon, since it waits for no server
	}
	return status(f.staleName(n, err))
}

// countOpening counts the Opens of a node that are under way.
func (f *FS) countOpening(n *node, more int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n.opening += more
}

// staleName returns the error of a request for a key by a name that the kernel may have kept.
// If the name leads to another file by now, or to none, that is ESTALE: then the kernel looks
// the name up again, and makes the file if it was told to.
func (f *FS) staleName(n *node, err error) error {
	if n.kind != key || !is(err, errs.NotFound) && !is(err, errs.Stale) {
		return err
	}
	f.forgetName(n)
	return errs.Stale
}

// tells tells whether a node is the events of what is kept. Who has opened them is told of
// what changes after that, and of nothing before: so what this mount has not heard of by
// then must not be shown any more, or he would have the old value for good.
func (f *FS) tells(n *node) bool {
	return f.wanted && n.kind == other && n.at.dir.kind == vmRoot && n.at.name == "events"
}

// opened9p enters what an Rlopen or Rlcreate says.
func (f *FS) opened9p(n *node, fid uint32, qid p9.QID, flags uint32, writes bool, out *fuse.OpenOut) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.opens(n, &file{
		fid: fid, foreign: qid.Path != n.qid.Path, stream: qid.Version == 0, once: flags&linuxNonblock != 0, writes: writes,
	})
	out.Fh, out.OpenFlags = o.id, openFlags(writes)
}

// openFlags are what the kernel is told of a file that is opened: it keeps no pages of it,
// and, from Linux 5.16 on, each close(2) is a request (Flush) only of what may be written. A
// shared lock of fcntl(2) by a file that is open for reading only goes with that file.
func openFlags(writes bool) uint32 {
	if writes {
		return fuse.FOPEN_DIRECT_IO
	}
	return fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
}

// Create makes a file and opens it.
func (f *FS) Create(cancel <-chan struct{}, c *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	dir := f.node(c.NodeId)
	if dir == nil {
		return fuse.ENOENT
	}
	flags := linuxFlags(c.Flags)
	in := patient(cancel, &c.Caller)
	return status(f.at(in, dir, func(fid uint32, _ p9.QID) (bool, error) {
		mark := f.mark()
		m := &wire.Msg{Type: wire.Tlcreate, Fid: fid, Name: name, Perm: c.Mode}
		m.L.Flags, m.L.GID = flags|linuxCreat, c.Gid
		r, err := f.calls.Call(in, m)
		if err != nil {
			return false, err
		}
		f.listed(dir, name) // so mark is old, and nothing that enter is told is kept: the name may lead elsewhere by now
		if f.enter(in, dir, name, fid, mark, &out.EntryOut) != nil {
			return false, errs.IO // it is made: nothing is to be done again
		}
		out.SetEntryTimeout(0) // nobody was counted as opening it (ambiguous)
		n := f.node(out.NodeId)
		f.begins(n)
		f.opened9p(n, fid, r.QID, flags, true, &out.OpenOut)
		return true, nil
	}))
}

// Read reads. What waits, as events, is read as Linux reads 9P: until the buffer is full
// or nothing more is there.
func (f *FS) Read(cancel <-chan struct{}, r *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	o := f.file(r.Fh)
	if o == nil {
		return nil, fuse.EBADF
	}
	in := patient(cancel, &r.Caller)
	if o.stream {
		in = keep.Interrupt{C: cancel}
	}
	if f.wanted && o.node.kind == key && !o.writes && !o.foreign {
		return answer(f.readKey(in, o, r.Offset, len(buf)))
	}
	if f.tells(o.node) {
		return answer(f.readEvents(in, o, r.Offset, buf))
	}
	got, err := f.readInto(in, o, o.fid, r.Offset, buf)
	return answer(buf[:got], err)
}

// answer is what a read is answered. With data, go-fuse would take an error for none.
func answer(data []byte, err error) (fuse.ReadResult, fuse.Status) {
	if err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(data), fuse.OK
}

// readInto reads from the server until buf is full, or nothing more is there.
func (f *FS) readInto(in keep.Interrupt, o *file, fid uint32, off uint64, buf []byte) (got int, err error) {
	most := int(f.chunk())
	for got < len(buf) {
		want := min(len(buf)-got, most)
		reply, err := f.calls.Call(in, &wire.Msg{Type: wire.Tread, Fid: fid, Offset: off + uint64(got), Count: uint32(want)})
		if err == nil && len(reply.Data) > want {
			err = errs.Protocol
		}
		if err != nil {
			if got > 0 {
				break
			}
			return 0, err
		}
		n := copy(buf[got:], reply.Data)
		got += n
		if n == 0 || n < want && (!o.stream || o.once) {
			break
		}
	}
	return got, nil
}

// Write writes; what fits a message is one change.
func (f *FS) Write(cancel <-chan struct{}, w *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	o := f.file(w.Fh)
	if o == nil {
		return 0, fuse.EBADF
	}
	in := patient(cancel, &w.Caller)
	most, done := int(f.chunk()), 0
	for done < len(data) {
		part := data[done:min(done+most, len(data))]
		r, err := f.calls.Call(in, &wire.Msg{Type: wire.Twrite, Fid: o.fid, Offset: w.Offset + uint64(done), Data: part})
		if err == nil && (r.Count == 0 || int(r.Count) > len(part)) {
			err = errs.Protocol
		}
		if err != nil {
			if done > 0 {
				break
			}
			return 0, status(err)
		}
		done += int(r.Count)
		f.wrote(in, o)
	}
	return uint32(done), fuse.OK
}

// wrote drops what a write has changed, before it returns: of txn and the like nobody knows
// what that is.
func (f *FS) wrote(in keep.Interrupt, o *file) {
	f.edited(o.node)
	if o.node.kind == key || !f.wanted {
		return
	}
	_ = f.dropAll(in)
}

// Fsync ends when what was written is durable, a truncation included.
func (f *FS) Fsync(cancel <-chan struct{}, s *fuse.FsyncIn) fuse.Status {
	o := f.file(s.Fh)
	if o == nil {
		return fuse.EBADF
	}
	if !o.writes {
		return fuse.OK
	}
	_, err := f.calls.Call(patient(cancel, &s.Caller), &wire.Msg{Type: wire.Tfsync, Fid: o.fid})
	return status(err)
}

// Flush is called by each close(2) of what may be written (openFlags), which ends the locks
// that the process has by fcntl(2). The file itself may be open elsewhere, and what it holds
// stays.
func (f *FS) Flush(cancel <-chan struct{}, l *fuse.FlushIn) fuse.Status {
	o := f.file(l.Fh)
	if o == nil {
		return fuse.EBADF
	}
	owner := ownerID(l.LockOwner)
	if !o.forget(owner) {
		return fuse.OK
	}
	m := &wire.Msg{Type: wire.Tlock, Fid: o.fid} // who locks has a fid
	m.L.LockType, m.L.ProcID, m.L.ClientID = p9.Unlock, owner, clientID
	_, err := f.calls.Call(patient(cancel, &l.Caller), m)
	return status(err)
}

// Release is called when nobody has the file open any more.
func (f *FS) Release(_ <-chan struct{}, r *fuse.ReleaseIn) { f.closes(r.Fh) }

// clientID is what the server is told of who locks, beside the owner's number.
const clientID = "meta9"

// ownerID is the kernel's name of who holds a lock of fcntl(2), as a process's number.
func ownerID(owner uint64) uint32 { return uint32(owner) ^ uint32(owner>>32) }

// note notes that an owner may hold a lock of fcntl(2); forget that it holds none, and
// whether it did.
func (o *file) note(owner uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Contains(o.owners, owner) {
		o.owners = append(o.owners, owner)
	}
}

func (o *file) forget(owner uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.Index(o.owners, owner)
	if i < 0 {
		return false
	}
	o.owners = slices.Delete(o.owners, i, i+1)
	return true
}

// lockMsg is a lock of the kernel's as 9P2000.L has it.
func (f *FS) lockMsg(in keep.Interrupt, o *file, t wire.Type, l *fuse.LkIn) (*wire.Msg, fuse.Status) {
	fid, err := f.firm(in, o)
	if err != nil {
		return nil, status(err)
	}
	m := &wire.Msg{Type: t, Fid: fid}
	m.L.Start, m.L.ProcID, m.L.ClientID = l.Lk.Start, ownerID(l.Owner), clientID
	if l.Lk.End < math.MaxInt64 {
		m.L.Length = l.Lk.End - l.Lk.Start + 1
	}
	switch l.Lk.Typ {
	case syscall.F_RDLCK:
		m.L.LockType = p9.ReadLock
	case syscall.F_WRLCK:
		m.L.LockType = p9.WriteLock
	case syscall.F_UNLCK:
		m.L.LockType = p9.Unlock
	default:
		return nil, fuse.EINVAL
	}
	return m, fuse.OK
}

// GetLk tells of a lock that would be in the way.
func (f *FS) GetLk(cancel <-chan struct{}, l *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	o := f.file(l.Fh)
	if o == nil {
		return fuse.EBADF
	}
	m, code := f.lockMsg(patient(cancel, &l.Caller), o, wire.Tgetlock, l)
	if !code.Ok() {
		return code
	}
	r, err := f.calls.Call(patient(cancel, &l.Caller), m)
	if err != nil {
		return status(err)
	}
	out.Lk = fuse.FileLock{Start: r.L.Start, End: math.MaxInt64, Typ: syscall.F_UNLCK, Pid: r.L.ProcID}
	if r.L.Length != 0 {
		out.Lk.End = r.L.Start + r.L.Length - 1
	}
	switch r.L.LockType {
	case p9.ReadLock:
		out.Lk.Typ = syscall.F_RDLCK
	case p9.WriteLock:
		out.Lk.Typ = syscall.F_WRLCK
	}
	return fuse.OK
}

// SetLk takes or frees a lock, and does not wait.
func (f *FS) SetLk(cancel <-chan struct{}, l *fuse.LkIn) fuse.Status { return f.lock(cancel, l, false) }

// SetLkw waits for a lock.
func (f *FS) SetLkw(cancel <-chan struct{}, l *fuse.LkIn) fuse.Status { return f.lock(cancel, l, true) }

// lockPause is how long a server is left alone that says "not yet".
const lockPause = time.Second

// lock takes or frees a lock. Whoever locks by flock(2) is the open file, and a free by
// it is told from others' by asking to wait, as v9fs does.
func (f *FS) lock(cancel <-chan struct{}, l *fuse.LkIn, wait bool) fuse.Status {
	o := f.file(l.Fh)
	if o == nil {
		return fuse.EBADF
	}
	m, code := f.lockMsg(patient(cancel, &l.Caller), o, wire.Tlock, l)
	if !code.Ok() {
		return code
	}
	flock, frees := l.LkFlags&fuse.FUSE_LK_FLOCK != 0, m.L.LockType == p9.Unlock
	switch {
	case !flock && !frees:
		o.note(m.L.ProcID)
	case flock && frees:
		wait = true
	}
	in := patient(cancel, &l.Caller)
	if wait {
		in = keep.Interrupt{C: cancel}
		m.L.Flags = uint32(p9.LockFlagsBlock)
	}
	for {
		r, err := f.calls.Call(in, m)
		switch {
		case err != nil:
			return status(err)
		case r.L.Status == p9.LockStatusOK:
			return fuse.OK
		case r.L.Status == p9.LockStatusError:
			return fuse.Status(syscall.ENOLCK)
		case !wait:
			return fuse.EAGAIN
		}
		select {
		case <-cancel:
			return fuse.EINTR
		case <-time.After(lockPause):
		}
	}
}
