package fs

import (
	"slices"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Ref is a place in the tree that a fid names. Only a Meter changes it, so a fid that
// is cloned may share it.
type Ref struct {
	view   *View
	node   Node
	parent *Ref    // nil: the principal's root
	name   string  // as it was walked
	by     *Author // who attached
	look   *Look   // what the attach asked for; nil: nothing
	top    bool    // ".." does not lead further up
	turn   uint32  // the Meter that has counted it last
}

// QID is what a walk to this place answers.
func (r *Ref) QID() p9.QID { return r.node.QID() }

// IsDir tells whether it is a folder.
func (r *Ref) IsDir() bool { return r.QID().Type&p9.TypeDir != 0 }

// OfVM tells whether the file to which names lead from here has data of VMs. For a guest each
// file has. For the admin vms/, names/ and events have, and the rest is about this daemon, as
// ctl is; a path with ".." counts as a VM's.
func (r *Ref) OfVM(names []string) bool {
	if !r.view.who.Admin || slices.Contains(names, "..") {
		return true
	}
	first := ""
	if len(names) > 0 {
		first = names[0]
	}
	for ; r.parent != nil; r = r.parent {
		first = r.name
	}
	return first == "vms" || first == "names" || first == "events"
}

// By is who attached.
func (r *Ref) By() Author { return *r.by }

// Node is what stands at this place.
func (r *Ref) Node() Node { return r.node }

// LookAt runs look on this place and, as long as that answers errs.NotFound, on what
// its name leads to by then. It gives the place that look was run on last.
//
// A Ref stands for its object under whatever name; what a client asks for by a fid
// that is not open must nevertheless not fail only because the name has got another
// object in between (editors, mv and config management replace files all the time).
// Each further turn needs another replacement in that moment, so that this ends.
func (r *Ref) LookAt(look func(at *Ref) error) (*Ref, error) {
	for {
		err := look(r)
		if errs.KindOf(err) != errs.NotFound {
			return r, err
		}
		now := r.Current()
		if now == nil {
			return r, err
		}
		r = now
	}
}

// Current is the place that this one's name leads to now, for a key that is no
// longer there: what has replaced it. nil: nothing has, or the key is there still.
//
// The name is the last that the key was seen under, or else the one that the client
// walked by: it need not know that somebody has renamed the key in between.
func (r *Ref) Current() *Ref {
	n, ok := r.node.(*keyNode)
	if !ok || r.parent == nil {
		return nil
	}
	if _, err := n.entry(); err == nil {
		return nil
	}
	for _, name := range [...]string{n.file, r.name} {
		if now, err := Walk(n.dir, name); err == nil {
			return r.parent.to(now, name)
		}
	}
	return nil
}

// Stat fills st as this View sees the place. errs.NotFound: it is gone.
func (r *Ref) Stat(st *Stat) error {
	if err := r.node.Stat(st); err != nil {
		return err
	}
	if st.Name == "" {
		st.Name = r.name
	}
	r.Show(st)
	return nil
}

// Walk goes to an entry of this folder, or with ".." to the folder above, which
// at the attach's own place is that place. Errors: NotDir, NotFound, NameTooLong.
func (r *Ref) Walk(name string) (*Ref, error) {
	if name == ".." {
		return r.up()
	}
	n, err := Walk(r.node, name)
	if err != nil {
		return nil, err
	}
	return r.to(n, name), nil
}

func (r *Ref) up() (*Ref, error) {
	switch {
	case !r.IsDir():
		return nil, errs.NotDir
	case r.top || r.parent == nil:
		return r, nil
	}
	return r.parent, nil
}

func (r *Ref) to(n Node, name string) *Ref {
	return &Ref{view: r.view, node: n, parent: r, name: name, by: r.by, look: r.look}
}

// Walk finds the entry of n with that file name. Errors: NotDir, NotFound,
// NameTooLong.
func Walk(n Node, name string) (Node, error) {
	f, err := folderFor(n, name)
	if err != nil {
		return nil, err
	}
	return f.Walk(name)
}

// folderFor is n as a Folder that may have such a name.
func folderFor(n Node, name string) (Folder, error) {
	f, ok := n.(Folder)
	if !ok {
		return nil, Missing(n, OpWalk)
	}
	if len(name) > vm.MaxName {
		return nil, errs.New(errs.NameTooLong, "a name is at most %d bytes", vm.MaxName)
	}
	return f, nil
}

// AppendFile appends the whole value of the file that the folder n has under that
// name. Errors: as Walk and AppendValue.
func AppendFile(b []byte, n Node, name string, max int) ([]byte, error) {
	f, err := folderFor(n, name)
	if err != nil {
		return b, err
	}
	if v, ok := f.(ValueFolder); ok {
		return v.AppendFile(b, name, max)
	}
	file, err := f.Walk(name)
	if err != nil {
		return b, err
	}
	return AppendValue(b, file, max)
}

// AppendValue appends the whole value of the file n. Errors: Valuer's, IsDir,
// Permission for a file that has no whole, such as events.
func AppendValue(b []byte, n Node, max int) ([]byte, error) {
	v, ok := n.(Valuer)
	if !ok {
		return b, Missing(n, OpRead)
	}
	return v.AppendValue(b, max)
}

// appendWhole appends a value. errs.TooBig: it has over max bytes.
func appendWhole[T string | []byte](b []byte, value T, max int) ([]byte, error) {
	if len(value) > max {
		return b, errs.Big(len(value), max)
	}
	return append(b, value...), nil
}

// List calls fn for the entries whose cookie is greater than after; see Folder.
// errs.NotDir: this is a file.
func (r *Ref) List(after uint64, fn func(cookie uint64, st *Stat) bool) error {
	f, ok := r.node.(Folder)
	if !ok {
		return Missing(r.node, OpWalk)
	}
	return f.List(after, func(cookie uint64, st *Stat) bool {
		r.Show(st)
		return fn(cookie, st)
	})
}

// Open opens the file. A folder gives a Handle whose Read answers IsDir; opening
// one for writing is IsDir. Other errors: Permission or NotPermitted with a text
// that says why, NotFound when it is gone.
func (r *Ref) Open(f Flags) (Handle, error) {
	if o, ok := r.node.(Opener); ok {
		return o.Open(f)
	}
	if _, ok := r.node.(Folder); !ok || f&(Write|Trunc) != 0 {
		return nil, Missing(r.node, OpWrite)
	}
	h := dirHandle{plain{node: r.node, flags: f}}
	if _, ok := r.node.(rowFolder); ok {
		return &listHandle{dirHandle: h, look: r.look}, nil
	}
	return &h, nil
}

// RestoreHandle opens the file as hs says that it was. It never truncates and
// never creates; a truncation that was held is held again if no commit has ended
// it since. errs.NotFound: the file is gone.
func (r *Ref) RestoreHandle(hs HandleState) (Handle, error) {
	hs.Flags &^= Trunc | Excl
	h, err := r.Open(hs.Flags)
	if err != nil {
		return nil, err
	}
	if s, ok := h.(restorer); ok {
		s.restore(hs)
	}
	return h, nil
}

// restorer is a Handle that takes back its State, just after it was opened.
type restorer interface{ restore(hs HandleState) }

// Create makes the file name in this folder and opens it with f. A file that is
// there already is opened, or with Excl answered with errs.Exists. Folders cannot
// be made: dir is NotPermitted. done gets the new file's Ref and Handle; the
// Handle may be used after Settle.
func (r *Ref) Create(name string, f Flags, dir bool, done func(*Ref, Handle, error)) {
	c, ok := r.node.(Creator)
	switch {
	case !ok:
		done(nil, nil, Missing(r.node, OpCreate))
		return
	case dir:
		done(nil, nil, errs.New(errs.NotPermitted, "no folders are made here"))
		return
	}
	c.Create(name, f, *r.by, func(n Node, err error) {
		if err != nil {
			done(nil, nil, err)
			return
		}
		h, err := openCreated(n, f)
		if err != nil {
			done(nil, nil, err)
			return
		}
		done(r.to(n, name), h, nil)
	})
}

// openCreated opens what a create has made. It runs in the committer, so it must
// leave the View alone: Settle does the rest for a key.
func openCreated(n Node, f Flags) (Handle, error) {
	switch n := n.(type) {
	case *keyNode:
		return n.created(f), nil
	case Opener:
		return n.Open(f)
	}
	return nil, Missing(n, OpWrite)
}

// Keys tells whether the place is a key, or a folder of keys.
func (r *Ref) Keys() bool {
	switch r.node.(type) {
	case *keyNode, *spaceDir:
		return true
	}
	return false
}

// Remove removes what has this place's name: the object, as it is called now, or
// what has replaced it.
func (r *Ref) Remove(done func(error)) {
	if now := r.Current(); now != nil {
		r = now
	}
	if n, ok := r.node.(*keyNode); ok {
		n.dir.Unlink(n.file, *r.by, done)
		return
	}
	r.RemoveThis(done)
}

// RemoveThis removes this very object, under whatever name. errs.NotFound: it is gone.
func (r *Ref) RemoveThis(done func(error)) {
	if n, ok := r.node.(Remover); ok {
		n.Remove(*r.by, done)
		return
	}
	// The error is the one that Unlink in its folder would give.
	_, gone := r.node.(goneNode)
	if at := r.parent; at != nil && !r.IsDir() && !gone {
		done(Missing(at.node, OpRemove))
		return
	}
	done(Missing(r.node, OpRemove))
}

// Unlink removes the entry name of this folder, which is a folder itself if dir
// (rmdir) and else a file. No folder can be removed, and one with entries says so
// by NotEmpty, as rmdir(2) does.
func (r *Ref) Unlink(name string, dir bool, done func(error)) {
	n, err := Walk(r.node, name)
	if _, pending := AsPending(err); err != nil && !pending {
		done(err)
		return
	}
	_, isDir := n.(Folder) // what somebody must be asked for is a file
	u, ok := r.node.(Unlinker)
	switch {
	case dir && !isDir:
		done(errs.NotDir)
	case !dir && isDir:
		done(errs.IsDir)
	case dir && hasEntries(n):
		done(errs.NotEmpty)
	case !ok:
		done(Missing(r.node, OpRemove))
	default:
		u.Unlink(name, *r.by, done)
	}
}

// hasEntries tells whether the View is shown an entry of the folder n.
func hasEntries(n Node) (has bool) {
	err := n.(Folder).List(0, func(uint64, *Stat) bool { has = true; return false })
	return has && err == nil
}

// Rename gives the entry name of this folder another name, in the folder to,
// which must be the same folder. What has that name is replaced.
func (r *Ref) Rename(name string, to *Ref, newName string, done func(error)) {
	n, ok := r.node.(Renamer)
	_, err := Walk(r.node, name)
	switch _, pending := AsPending(err); {
	case err != nil && !pending:
		done(err)
		return
	case !ok:
		done(Missing(r.node, OpRename))
		return
	}
	n.Rename(name, to.node, newName, *r.by, done)
}

// Move gives this very file another name, in the folder to, as Rename does.
// errs.NotFound: it is gone.
func (r *Ref) Move(to *Ref, newName string, done func(error)) {
	if n, ok := r.node.(*keyNode); ok {
		n.rename(to.node, newName, *r.by, done)
		return
	}
	var st Stat
	if err := r.node.Stat(&st); err != nil {
		done(err)
		return
	}
	if r.parent == nil {
		done(Missing(r.node, OpRename))
		return
	}
	r.parent.Rename(st.Name, to, newName, done)
}

// SetStat changes the file's stat, all of c or nothing. A Length of 0 commits at
// once here; on a Handle it is held.
func (r *Ref) SetStat(c Change, done func(error)) { setStat(r.node, c, *r.by, done) }

// statBlock is the block size that StatFS counts in.
const statBlock = 1024

// StatFS tells limits and use of the VM that this place belongs to, or of all VMs
// together. Without a limit what is free is what is used, so that df shows half.
func (r *Ref) StatFS() p9.FSStat {
	for at := r; at != nil; at = at.parent {
		if d, ok := at.node.(*vmDir); ok {
			if m := d.cell.VM(); m != nil {
				lim := r.view.tree.store.Limits()
				return statFS(d.cell.ID(), m.Bytes(), lim.Bytes, m.Count(), lim.Keys)
			}
		}
	}
	return r.view.tree.statFS()
}

// statFS counts the VMs of the whole tree as if each could grow to its limit.
func (t *Tree) statFS() p9.FSStat {
	lim, n := t.store.Limits(), t.store.Count()
	return statFS(pathRoot, t.store.Bytes(), lim.Bytes*int64(n), t.keys(), lim.Keys*n)
}

func statFS(id uint64, used, limit int64, files, maxFiles int) p9.FSStat {
	blocks, inUse := uint64(limit+statBlock-1)/statBlock, uint64(used+statBlock-1)/statBlock
	if limit == 0 {
		blocks = 2 * inUse
	}
	if maxFiles == 0 {
		maxFiles = 2 * files
	}
	free := blocks - min(blocks, inUse)
	return p9.FSStat{
		Type: 0x01021997, BlockSize: statBlock, // V9FS_MAGIC
		Blocks: blocks, BlocksFree: free, BlocksAvailable: free,
		Files: uint64(maxFiles), FilesFree: uint64(maxFiles - min(maxFiles, files)),
		FSID: id, NameLength: vm.MaxName,
	}
}
