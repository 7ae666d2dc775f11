// Package p9fs shows the tree as the Attacher and the Files of hugelgupf/p9, for Go
// programs that serve with p9's Server already, or use p9's File as their file system:
// a VM's metadata beside whatever else they have.
//
//	p9.NewServer(p9fs.New(tree, fs.Principal{VM: uuid})).Serve(listener)
//
// What a read or a write means is the tree's, as over package session. What p9's
// interfaces do not carry is other here: a File goes by 9P2000.L only; nobody can be
// asked who he is, so each Attacher is one principal's; there are no locks (ENOSYS);
// events do not wait (EAGAIN where there is none), since a read that waits in p9's
// Server holds up every rename; and p9 closes a File alike when its client clunks it
// and when the transport is lost, so that a truncation that is held is committed then.
// p9's Server itself bounds nothing: do not let a guest reach it (docs/decisions.md).
//
// Each Attach makes a fs.View, which all its Files share. view.mu is the View's lock; it
// is held for one step of the tree, and never while an answer is waited for. A method of
// File may be called by any number of goroutines, but Close only when no other runs.
package p9fs

import (
	"io"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/posix"
)

// New shows the tree as who sees it. Attach fails with ECONNREFUSED for nobody, and with
// ENOENT for a VM that is not there.
func New(tree *fs.Tree, who fs.Principal) p9.Attacher { return attacher{tree, who} }

type attacher struct {
	tree *fs.Tree
	who  fs.Principal
}

// Attach gives the root.
func (a attacher) Attach() (p9.File, error) {
	v := &view{View: a.tree.View(a.who)}
	ref, err := v.Attach("", "")
	if err != nil {
		v.Close()
		return nil, errno(err)
	}
	return v.file(ref), nil
}

// view is what the Files of one Attach share.
type view struct {
	mu sync.Mutex
	*fs.View
	files int // that are not closed: the last one closes the View
}

// file makes a File; mu is held, or nobody else has the view.
func (v *view) file(ref *fs.Ref) *file {
	v.files++
	return &file{view: v, ref: ref}
}

// change runs start, which begins a change of the tree, and waits until it is done and
// what it means for open files is settled.
func (v *view) change(start func(done func(error))) error {
	done := make(chan error, 1)
	v.mu.Lock()
	start(func(err error) { done <- err })
	v.mu.Unlock()
	err := <-done
	v.mu.Lock()
	defer v.mu.Unlock()
	v.Settle()
	return errno(err)
}

// look takes a step that changes nothing, and waits where somebody else is asked first.
func (v *view) look(step func() error) error { return errno(v.Await(&v.mu, step)) }

// errno is the errno of an error of the tree, as 9P2000.L has it.
func errno(err error) error {
	if err == nil {
		return nil
	}
	return errs.KindOf(err).ErrnoL()
}

// file is one File: a place in the tree, and an open file once it is opened.
type file struct {
	templatefs.NotLockable
	templatefs.XattrUnimplemented
	p9.DefaultWalkGetAttr

	view   *view
	ref    *fs.Ref    // guarded by view.mu
	handle fs.Handle  // nil: not opened; set once, and nothing that needs it comes before Open has returned
	listed p9.Dirents // of a VM's folder, as Readdir has begun to give it; guarded by view.mu
}

// Walk gives the File that the names lead to, or another one of this place. ENOENT,
// ENOTDIR: it does not get there.
func (f *file) Walk(names []string) ([]p9.QID, p9.File, error) {
	var qids []p9.QID
	var to *file
	err := f.view.look(func() error {
		ref := f.ref
		qids = nil
		for _, name := range names {
			next, err := ref.Walk(name)
			if err != nil {
				return err
			}
			ref = next
			qids = append(qids, ref.QID())
		}
		if len(names) == 0 {
			qids = []p9.QID{ref.QID()}
		}
		to = f.view.file(ref)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return qids, to, nil
}

// StatFS tells the limits and the use of the VM.
func (f *file) StatFS() (p9.FSStat, error) {
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	return f.ref.StatFS(), nil
}

// stat fills st. A File that is not open and whose object was replaced becomes what has
// its name now, as a fid does (docs/tree.md). mu is held.
func (f *file) stat(st *fs.Stat) error {
	if f.handle != nil {
		err := f.handle.Stat(st)
		f.ref.Show(st)
		return err
	}
	at, err := f.ref.LookAt(func(at *fs.Ref) error { return at.Stat(st) })
	f.ref = at
	return err
}

// GetAttr gives the attributes of stat(2), whatever is asked for.
func (f *file) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	var st fs.Stat
	if err := f.view.look(func() error { return f.stat(&st) }); err != nil {
		return p9.QID{}, p9.AttrMask{}, p9.Attr{}, err
	}
	var a p9.Attr
	posix.SetAttrs(&a, &st)
	return st.QID, posix.Attrs, a, nil
}

// SetAttr changes all that mask names, or nothing.
func (f *file) SetAttr(mask p9.SetAttrMask, attr p9.SetAttr) error {
	if mask.UID || mask.GID {
		err := f.view.look(func() error {
			var st fs.Stat
			if err := f.stat(&st); err != nil {
				return err
			}
			return posix.KeepsOwner(&mask, &attr, &st)
		})
		if err != nil {
			return err
		}
	}
	change, err := posix.Change(&mask, &attr, time.Now)
	if err != nil || change.Empty() {
		return errno(err)
	}
	return f.view.change(func(done func(error)) {
		if f.handle != nil {
			f.handle.SetStat(change, f.ref.By(), done)
			return
		}
		f.ref.SetStat(change, done)
	})
}

// Close ends the File, an open one as a clunk does.
func (f *file) Close() error {
	var err error
	if f.handle != nil {
		err = f.view.change(func(done func(error)) { f.handle.Clunk(f.ref.By(), done) })
	}
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	if f.view.files--; f.view.files == 0 {
		f.view.Close()
	}
	return err
}

// Open opens the file or folder.
func (f *file) Open(mode p9.OpenFlags) (p9.QID, uint32, error) {
	flags, err := posix.Flags(uint32(mode))
	if err != nil {
		return p9.QID{}, 0, errno(err)
	}
	flags = flags&^fs.Excl | fs.NonBlock
	open := func(at *fs.Ref) (err error) {
		h, err := at.Open(flags)
		if err == nil {
			f.handle = h
		}
		return err
	}
	var qid p9.QID
	err = f.view.look(func() (err error) {
		switch {
		case uint32(mode)&posix.Directory != 0 && !f.ref.IsDir():
			return errs.NotDir
		case flags&fs.Trunc != 0:
			err = open(f.ref) // never of another file than the one that was walked to
		default:
			f.ref, err = f.ref.LookAt(open)
		}
		qid = f.ref.QID()
		return err
	})
	return qid, 0, err
}

// ReadAt reads from an open file. EBADF: it is not open.
func (f *file) ReadAt(p []byte, offset int64) (n int, err error) {
	switch {
	case f.handle == nil:
		return 0, linux.EBADF
	case offset < 0:
		return 0, linux.EINVAL
	}
	err = f.view.look(func() (err error) {
		n, err = f.handle.Read(p, uint64(offset))
		return err
	})
	if err == nil && n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, err
}

// WriteAt writes to an open file; when it returns the bytes are durable.
func (f *file) WriteAt(p []byte, offset int64) (n int, err error) {
	switch {
	case f.handle == nil:
		return 0, linux.EBADF
	case offset < 0:
		return 0, linux.EINVAL
	}
	err = f.view.change(func(done func(error)) {
		f.handle.Write(p, uint64(offset), f.ref.By(), func(written int, err error) {
			n = written
			done(err)
		})
	})
	return n, err
}

// FSync commits a truncation that is held; all else is durable already.
func (f *file) FSync() error {
	if f.handle == nil {
		return linux.EBADF
	}
	return f.view.change(func(done func(error)) { f.handle.Sync(f.ref.By(), done) })
}

// Create makes a file in this folder and opens it.
func (f *file) Create(name string, mode p9.OpenFlags, _ p9.FileMode, _ p9.UID, _ p9.GID) (p9.File, p9.QID, uint32, error) {
	flags, err := posix.Flags(uint32(mode))
	if err != nil {
		return nil, p9.QID{}, 0, errno(err)
	}
	var ref *fs.Ref
	var handle fs.Handle
	err = f.view.change(func(done func(error)) {
		f.ref.Create(name, flags|fs.NonBlock, false, func(r *fs.Ref, h fs.Handle, err error) {
			ref, handle = r, h
			done(err)
		})
	})
	if err != nil {
		return nil, p9.QID{}, 0, err
	}
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	made := f.view.file(ref)
	made.handle = handle
	return made, ref.QID(), 0, nil
}

// Mkdir is refused, since folders come with a VM: EEXIST where there is something of
// that name.
func (f *file) Mkdir(name string, _ p9.FileMode, _ p9.UID, _ p9.GID) (p9.QID, error) {
	switch err := f.view.look(func() error { _, err := f.ref.Walk(name); return err }); err {
	case nil:
		return p9.QID{}, linux.EEXIST
	case linux.ENAMETOOLONG:
		return p9.QID{}, err
	}
	return p9.QID{}, f.view.change(func(done func(error)) {
		f.ref.Create(name, fs.Read, true, func(_ *fs.Ref, _ fs.Handle, err error) { done(err) })
	})
}

// RenameAt gives an entry another name, in the same folder. EXDEV, EINVAL: newDir is
// another folder, or no File of this package.
func (f *file) RenameAt(oldName string, newDir p9.File, newName string) error {
	to, ok := newDir.(*file)
	if !ok || to.view != f.view {
		return linux.EINVAL
	}
	return f.view.change(func(done func(error)) { f.ref.Rename(oldName, to.ref, newName, done) })
}

// Rename gives the object of this File another name, whatever it is called now. EINVAL: as
// of RenameAt. p9's Server calls RenameAt only.
func (f *file) Rename(newDir p9.File, newName string) error {
	to, ok := newDir.(*file)
	if !ok || to.view != f.view {
		return linux.EINVAL
	}
	return f.view.change(func(done func(error)) { f.ref.Move(to.ref, newName, done) })
}

// Renamed changes nothing: a File stands for its object, whatever it is called.
func (f *file) Renamed(p9.File, string) {}

// UnlinkAt removes an entry.
func (f *file) UnlinkAt(name string, flags uint32) error {
	return f.view.change(func(done func(error)) { f.ref.Unlink(name, flags&posix.RemoveDir != 0, done) })
}

// Readdir gives at most count entries whose cookie is greater than offset; there are
// none for "." and "..". What follows a Readdir at 0 is of the same moment, where the
// folder is a VM's (fs.Lister).
func (f *file) Readdir(offset uint64, count uint32) (p9.Dirents, error) {
	if f.handle == nil {
		return nil, linux.EBADF
	}
	_, whole := f.handle.(fs.Lister)
	most := int(min(count, math.MaxInt32))
	var list p9.Dirents
	err := f.view.look(func() error {
		list = nil
		if whole && f.listed != nil && offset > 0 {
			return nil
		}
		from := offset
		if whole {
			from = 0
		}
		return f.ref.List(from, func(cookie uint64, st *fs.Stat) bool {
			if !whole && len(list) >= most {
				return false
			}
			list = append(list, posix.Dirent(cookie, st))
			return true
		})
	})
	if !whole || err != nil {
		return list, err
	}
	f.view.mu.Lock()
	defer f.view.mu.Unlock()
	if list != nil || offset == 0 {
		f.listed = list
	}
	rest := f.listed[sort.Search(len(f.listed), func(i int) bool { return f.listed[i].Offset > offset }):]
	return slices.Clone(rest[:min(most, len(rest))]), nil
}

// Symlink, Link, Mknod and Readlink are refused: no file here is a link or a device.
func (*file) Symlink(string, string, p9.UID, p9.GID) (p9.QID, error) {
	return p9.QID{}, linux.EPERM
}

// Link is refused, as Symlink is.
func (*file) Link(p9.File, string) error { return linux.EPERM }

// Mknod is refused, as Symlink is.
func (*file) Mknod(string, p9.FileMode, uint32, uint32, p9.UID, p9.GID) (p9.QID, error) {
	return p9.QID{}, linux.EPERM
}

// Readlink is refused, as Symlink is.
func (*file) Readlink() (string, error) { return "", linux.EOPNOTSUPP }
