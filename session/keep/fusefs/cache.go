//go:build (linux && !386 && !arm) || freebsd || darwin

package fusefs

import (
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"meta9/session/keep"
	"meta9/session/redial"
	"meta9/session/wire"
)

const (
	// maxKept is how many bytes a value or a listing that is kept may have, and
	// maxAllKept all of them together, with those that open files still read.
	maxKept, maxAllKept = 64 << 10, 2 << 20

	// maxAbsent is how many names are kept of which it is known that nothing has them.
	maxAbsent = 1024

	// keptTime is how long the kernel may keep what it is told to forget when it changes.
	keptTime = 24 * time.Hour

	// nameTime is how long the kernel may keep the name of a key, which it is not told to
	// forget, and nameEnd after how long it does not have it any more: it begins to count
	// when the thread that looked the name up runs again, and counts in ticks of up to 10 ms.
	nameTime, nameEnd = 50 * time.Millisecond, 300 * time.Millisecond

	// afterReplace is how long the kernel may not keep the name of a key that has replaced
	// another one: a program that opens such a name to write gets ESTALE if it leads to another
	// key by then, and the kernel looks the name up again only once.
	afterReplace = time.Second
)

// kind is what a node is for the cache.
type kind uint8

const (
	other  kind = iota // nothing of it is kept
	vmRoot             // a VM's folder: its attributes are kept, and names that never change
	folder             // keys/ or internal/: attributes, names and the listing
	key                // what is in them: attributes and the value
)

// fixed are the names in a VM's folder that are there as long as the VM is.
var fixed = map[string]bool{"keys": true, "internal": true, "sdc": true, "nocloud": true, "vm.json": true, "txn": true, "events": true}

// kindOf is that of what a name in a folder leads to.
func kindOf(dir *node, name string, isDir bool) kind {
	switch {
	case dir.kind == vmRoot && isDir && (name == "keys" || name == "internal"):
		return folder
	case dir.kind == folder && !isDir:
		return key
	}
	return other
}

// kernel is what keeps attributes, and is told to forget them. That waits for nothing
// that this process does.
type kernel interface {
	InodeNotify(node uint64, off, length int64) fuse.Status
}

// cache is what is kept of the server's answers. FS.mu guards all of it.
//
// The cache is never older than the events that this mount has followed. A caller takes seq
// (mark) before it asks the server, and keeps the answer only if seq is still the same and the
// mount still follows the events (fresh). A change of any key, a loss, and a new beginning of
// the events all raise seq. An answer that was on its way then still goes to whoever asked,
// but it is not kept.
type cache struct {
	wanted bool   // set before the kernel asks for anything
	kernel kernel // the same
	vm     redial.Root
	space  string // where the root is a folder: "keys" or "internal"
	sweeps chan struct{}

	streams bool // the events are followed, without a gap
	up      bool // there is a transport
	silent  bool // the server has been silent for too long

	seq    uint64 // grows with all that changes, here or there, with each loss, and where the events begin
	told   uint64 // the revision up to which these events were followed, and all that is kept is right
	losses uint64 // how often all was dropped
	swept  uint64 // of these, how many the kernel was told of
	moved  chan struct{}
	bytes  int // of snapshots
	pinned int // of those, what open files and others than nodes refer to: no room is made of it
	absent map[entry]struct{}

	ambiguousUntil time.Time // until then the kernel may have a name that is ambiguous

	lastHeard time.Time // of the server
}

// snapshot is one version of a value or of a listing. FS.mu guards what follows data.
type snapshot struct {
	data []byte
	refs int  // of open files, and of who is about to use it
	kept bool // by a node
}

// live tells whether anything may be kept, or answered from what is. mu is held.
func (f *FS) live() bool { return f.wanted && f.streams && f.up && !f.silent }

// mark is to be taken before the server is asked.
func (f *FS) mark() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

// fresh tells whether an answer may be kept whose question was sent after mark. mu is held.
func (f *FS) fresh(mark uint64) bool { return f.live() && f.seq == mark }

// wake wakes who waits for what is told. mu is held.
func (f *FS) wake() {
	close(f.moved)
	f.moved = make(chan struct{})
}

// forget drops what is kept of a node. mu is held.
func (f *FS) forget(n *node) {
	f.seq++
	n.known = false
	f.evict(n)
}

// ambiguous tells whether the kernel may use a node's name without a Lookup while a file of the
// node is open. If the name leads to another file by then, stat(2) of the name and fstat(2) of
// the open file are the same GetAttr, and both get the open file's attributes. Without an open
// file all that the kernel asks about the node is answered by where the name leads. mu is held.
func (n *node) ambiguous() bool {
	return n.opening+len(n.files) > 0 && time.Now().Before(n.nameUntil)
}

// noteAmbiguous notes that a node with an ambiguous name has lost it, or may have. mu is held.
func (f *FS) noteAmbiguous(n *node) {
	if n.nameUntil.After(f.ambiguousUntil) {
		f.ambiguousUntil = n.nameUntil
	}
}

// forgetName drops what is kept of a node whose name has led to another file, or to none, before
// an event has told of it: so that the next Lookup asks the server.
func (f *FS) forgetName(n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(n)
	n.sure = false
	delete(f.absent, n.at)
}

// evict drops the snapshot that a node keeps. mu is held.
func (f *FS) evict(n *node) {
	s := n.kept
	if s == nil {
		return
	}
	n.kept, s.kept = nil, false
	if s.refs == 0 {
		f.bytes -= len(s.data)
	}
}

// edited notes a change that this mount makes, before who made it hears of its end: of a
// file, or of what is in a folder. Files that are open for reading see it, wherever they read.
func (f *FS) edited(n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for m := n; m != nil; m = m.at.dir {
		f.forget(m)
	}
	n.edits++
	if n.kind == key && !n.sure { // it may have another name by now
		for _, m := range f.nodes {
			if m != n && m.qid.Path == n.qid.Path {
				f.forget(m)
				m.edits++
			}
		}
	}
}

// begins and ends are around all the time that a file is open for writing. Until it is
// closed this mount may see a truncation that nobody else does, which may come to nothing:
// so nothing of the file is kept.
func (f *FS) begins(n *node) {
	f.mu.Lock()
	n.writers++
	f.mu.Unlock()
	f.edited(n)
}

func (f *FS) ends(n *node) {
	f.mu.Lock()
	n.writers--
	f.mu.Unlock()
	f.edited(n)
}

// hold makes a snapshot, with a reference for who asks; nil: there is no room.
func (f *FS) hold(data []byte) *snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(data) > maxKept || f.pinned+len(data) > maxAllKept { // evicting would make no room
		return nil
	}
	for _, n := range f.nodes { // in no order
		if f.bytes+len(data) <= maxAllKept {
			break
		}
		if n.kept != nil && n.kept.refs == 0 {
			f.evict(n)
		}
	}
	f.bytes += len(data)
	s := &snapshot{data: data}
	f.refer(s)
	return s
}

// refer takes a reference, which is not a node's. mu is held.
func (f *FS) refer(s *snapshot) {
	if s.refs++; s.refs == 1 {
		f.pinned += len(s.data)
	}
}

// release gives such a reference up. mu is held.
func (f *FS) release(s *snapshot) {
	if s == nil {
		return
	}
	if s.refs--; s.refs > 0 {
		return
	}
	f.pinned -= len(s.data)
	if !s.kept {
		f.bytes -= len(s.data)
	}
}

// keep keeps a snapshot as a node's, if it may.
func (f *FS) keep(n *node, mark uint64, s *snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s == nil || !f.fresh(mark) || !n.sure || n.writers > 0 || f.nodes[n.id] != n {
		return
	}
	f.evict(n)
	n.kept, s.kept = s, true
}

// kept is a node's value or listing with a reference for who asks; nil: it is not known.
func (f *FS) kept(n *node) *snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keptOf(n)
}

// keptOf is kept. mu is held.
func (f *FS) keptOf(n *node) *snapshot {
	if !f.live() || !n.sure || n.writers > 0 || n.kept == nil {
		return nil
	}
	f.refer(n.kept)
	return n.kept
}

// reads makes s, which o gets a reference of, what an open file reads from now on.
func (f *FS) reads(o *file, s *snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(o.snap)
	o.snap, o.edits = s, o.node.edits
}

// keepAttr keeps a node's attributes; how long the kernel may.
func (f *FS) keepAttr(n *node, mark uint64, attr *fuse.Attr) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.fresh(mark) || n.kind == other || !n.sure || n.writers > 0 {
		return 0
	}
	n.attr, n.known, n.given = *attr, true, true
	return keptTime
}

// keptAttr is what is known of a node's attributes.
func (f *FS) keptAttr(n *node, attr *fuse.Attr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.attrOf(n, attr)
}

// attrOf is keptAttr. mu is held.
func (f *FS) attrOf(n *node, attr *fuse.Attr) bool {
	if !f.live() || !n.known || !n.sure || n.writers > 0 {
		return false
	}
	*attr = n.attr
	n.given = true
	return true
}

// lookedUp answers a Lookup from what is known.
func (f *FS) lookedUp(dir *node, name string, out *fuse.EntryOut) (code fuse.Status, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := entry{dir, name}
	if _, none := f.absent[at]; none && f.live() {
		return fuse.ENOENT, true
	}
	n := f.named[at]
	if n == nil || !f.attrOf(n, &out.Attr) {
		return fuse.OK, false
	}
	n.lookups++
	out.NodeId = n.id
	out.SetAttrTimeout(keptTime)
	out.SetEntryTimeout(f.entryTime(n))
	return fuse.OK, true
}

// entryTime is how long the kernel may keep a name. That of a key it is not told to forget:
// that takes a lock of the folder's, which whoever waits for a server that is away may hold.
// So it has the name for a moment. If the name leads to another file by then, and is ambiguous,
// the event of that is told when the moment is over. mu is held.
func (f *FS) entryTime(n *node) time.Duration {
	switch {
	case !f.live():
	case n.at.dir.kind == vmRoot && fixed[n.at.name]:
		return keptTime
	case n.kind == key && n.sure && time.Since(n.replaced) > afterReplace:
		n.nameUntil = time.Now().Add(nameEnd)
		return nameTime
	}
	return 0
}

// missing keeps that nothing has a name.
func (f *FS) missing(dir *node, name string, mark uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if dir.kind != folder || !f.fresh(mark) {
		return
	}
	if len(f.absent) >= maxAbsent {
		clear(f.absent)
	}
	f.absent[entry{dir, name}] = struct{}{}
}

// prepare finds out whether anything can be kept: there are events for the part of the tree
// that aname names, and the kinds of its files are known.
func (f *FS) prepare(uname, aname string) {
	names := strings.FieldsFunc(aname, func(r rune) bool { return r == '/' })
	for len(names) > 0 && strings.Contains(names[0], "=") {
		names = names[1:]
	}
	var above []string
	if len(names) >= 2 && (names[0] == "vms" || names[0] == "names") {
		above, names = names[:2], names[2:]
	}
	switch {
	case len(names) == 0:
		f.root.kind = vmRoot
	case len(names) == 1 && (names[0] == "keys" || names[0] == "internal"):
		f.root.kind, f.space = folder, names[0]
	default:
		return
	}
	f.vm.Fid = f.fid()
	r, err := f.calls.Call(keep.Interrupt{}, &wire.Msg{
		Type: wire.Tattach, Fid: f.vm.Fid, Afid: wire.NoFid, Uname: uname, Aname: strings.Join(above, "/"), NUname: wire.NoUID,
	})
	if err != nil {
		return
	}
	f.vm.QID = r.QID
	for _, name := range []string{"keys", "events"} { // the admin's root has events, too
		fid, _, err := f.walk(keep.Interrupt{}, f.vm, []string{name})
		if err != nil {
			return
		}
		f.clunk(fid)
	}
	f.wanted, f.up, f.root.sure, f.lastHeard = true, true, true, time.Now()
}
