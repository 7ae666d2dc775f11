//go:build (linux && !386 && !arm) || freebsd || darwin

package fusefs

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/keep"
	"meta9/session/redial"
	"meta9/session/wire"
)

const (
	// rootFid is the attach's, and the root's.
	rootFid uint32 = 0

	// maxName is the longest name in bytes that is asked for.
	maxName = 255

	// staleTries is how often something is done again whose fid was lost on the way: with
	// a session, or with the file's last name.
	staleTries = 3
)

// FS is the file system. It is a fuse.RawFileSystem.
type FS struct {
	fuse.RawFileSystem // refuses what is not here
	calls              *keep.Calls
	umask              uint32
	root               *node

	mu      sync.Mutex // guards what follows
	nodes   map[uint64]*node
	named   map[entry]*node // those that have their names still
	lastID  uint64          // of a node or an open file
	open    map[uint64]*file
	free    []uint32 // fids that the server does not have
	lastFid uint32
	cache
}

// node is what the kernel knows by a number.
type node struct {
	id      uint64
	at      entry
	qid     p9.QID
	lookups uint64 // that the kernel has not forgotten
	files   []*file

	kind    kind
	sure    bool      // it has its name, as far as events tell
	known   bool      // attr is current
	given   bool      // the kernel may have attributes of it
	attr    fuse.Attr // as they were last kept
	kept    *snapshot // its value or listing; nil: not known
	writers int       // files of it that are open for writing
	edits   uint64    // changes of it by this mount
	opening int       // Opens of it that are under way

	nameUntil time.Time // until then the kernel may use its name without a Lookup
	replaced  time.Time // when it replaced another file under its name; zero: it did not
}

// entry is a name in a folder; the root has no folder.
type entry struct {
	dir  *node
	name string
}

// file is an open file or folder.
type file struct {
	id   uint64
	node *node
	fid  uint32

	foreign bool // fid is another file than the node's, which had its name by then: nothing it says is the node's
	stream  bool // reads may wait, and nothing is known of its length
	once    bool // a read takes what is there
	writes  bool // it is one of its node's writers

	snap  *snapshot // what it reads; nil: what fid says. FS.mu guards both
	edits uint64    // its node's, when it took that

	mu     sync.Mutex // guards what follows, and fid, which is wire.NoFid where nothing is open at the server
	owners []uint32   // who may hold locks of fcntl(2)
	tail   []byte     // the end of what was read of events
	due    []byte     // events that the server gave, at dueAt, and that no reader got: he was interrupted
	dueAt  uint64
}

// New attaches, and gives the file system. umask are bits that no mode has. cached: what
// the server has told is kept, as long as there are events that tell of changes.
func New(calls *keep.Calls, uname, aname string, umask uint32, cached bool) (*FS, error) {
	r, err := calls.Call(keep.Interrupt{}, &wire.Msg{
		Type: wire.Tattach, Fid: rootFid, Afid: wire.NoFid, Uname: uname, Aname: aname, NUname: wire.NoUID,
	})
	if err != nil {
		return nil, err
	}
	root := &node{id: fuse.FUSE_ROOT_ID, qid: r.QID, lookups: 1}
	f := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), calls: calls, umask: umask, root: root,
		nodes: map[uint64]*node{root.id: root}, named: make(map[entry]*node), lastID: root.id,
		open: make(map[uint64]*file), lastFid: rootFid,
		cache: cache{moved: make(chan struct{}), sweeps: make(chan struct{}, 1), absent: make(map[entry]struct{})},
	}
	if cached {
		f.prepare(uname, aname)
	}
	return f, nil
}

// begin keeps what the server tells from now on, if that was asked for and can be.
func (f *FS) begin(k kernel) {
	if !f.wanted {
		return
	}
	f.kernel = k
	f.calls.Watch(f.link)
	go f.sweep()
	go f.follow()
	go f.pulse()
}

// String names the type of the file system.
func (f *FS) String() string { return "meta9" }

// node is the one that the kernel names.
func (f *FS) node(id uint64) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[id]
}

// file is the one that the kernel names; nil: there is none.
func (f *FS) file(id uint64) *file {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open[id]
}

// path is the names from the root to a node; false: it has lost its name.
func (f *FS) path(n *node) (names []string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; n != f.root; n = n.at.dir {
		if f.named[n.at] != n {
			return nil, false
		}
		names = append(names, n.at.name)
	}
	slices.Reverse(names)
	return names, true
}

// found is the node of a name that leads to qid, which the kernel hears of once more; the
// server was asked after mark. first: the kernel may not know it yet.
func (f *FS) found(dir *node, name string, qid p9.QID, mark uint64) (n *node, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, fresh := entry{dir, name}, f.fresh(mark)
	if n = f.named[at]; n == nil || n.qid.Path != qid.Path {
		var replaced time.Time
		if n != nil {
			f.forget(n)
			n.sure = false
			if n.ambiguous() {
				f.noteAmbiguous(n)
			}
			replaced = time.Now()
		}
		f.lastID++
		n = &node{id: f.lastID, at: at, qid: qid, kind: kindOf(dir, name, qid.Type&p9.TypeDir != 0), replaced: replaced}
		f.nodes[n.id], f.named[at] = n, n
	}
	if fresh || n.kind == folder {
		n.sure = true
	}
	n.lookups++
	return n, n.lookups == 1
}

// Forget ends nodes that the kernel has forgotten as often as it has heard of them.
func (f *FS) Forget(id, times uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[id]
	if n == nil || n == f.root {
		return
	}
	if n.lookups -= min(times, n.lookups); n.lookups > 0 {
		return
	}
	delete(f.nodes, id)
	f.forget(n)
	if f.named[n.at] == n {
		delete(f.named, n.at)
	}
}

// unname takes the name from whatever has it.
func (f *FS) unname(dir *node, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := entry{dir, name}
	if n := f.named[at]; n != nil {
		f.forget(n)
		n.sure = false
	}
	delete(f.named, at)
}

// rename gives what has one name another.
func (f *FS) rename(from, to entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, replaced := f.named[from], f.named[to]
	for _, x := range []*node{n, replaced} {
		if x != nil {
			f.forget(x)
			x.sure = false
		}
	}
	delete(f.named, from)
	delete(f.named, to)
	delete(f.absent, to)
	if n != nil {
		n.at = to
		f.named[to] = n
	}
}

// fid is one that is free.
func (f *FS) fid() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.free); n > 0 {
		fid := f.free[n-1]
		f.free = f.free[:n-1]
		return fid
	}
	f.lastFid++
	return f.lastFid
}

func (f *FS) freed(fid uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, fid)
}

// clunk lets a fid go, and does not wait for it.
func (f *FS) clunk(fid uint32) {
	f.calls.Start(&wire.Msg{Type: wire.Tclunk, Fid: fid}, func() { f.freed(fid) })
}

// walk makes a new fid of what names lead to.
func (f *FS) walk(in keep.Interrupt, from redial.Root, names []string) (fid uint32, qid p9.QID, err error) {
	fid = f.fid()
	ask := func(m *wire.Msg) (*wire.Msg, error) { return f.calls.Call(in, m) }
	qid, made, err := redial.Walk(ask, from, fid, names)
	switch {
	case err == nil:
	case made || errors.Is(err, keep.ErrInterrupted): // it may be there
		f.clunk(fid)
	default:
		f.freed(fid)
	}
	return fid, qid, err
}

// at does something with a fid of a node's file, and, where that keeps it not, lets the
// fid go. What finds its fid lost was not done, and is done again.
func (f *FS) at(in keep.Interrupt, n *node, do func(fid uint32, qid p9.QID) (keeps bool, err error)) error {
	names, ok := f.path(n)
	if !ok {
		return errs.Stale
	}
	return f.atPath(in, names, do)
}

// atName is at for a key that may have lost its name: what has the name now is good for reading.
func (f *FS) atName(in keep.Interrupt, n *node, do func(fid uint32, qid p9.QID) (keeps bool, err error)) error {
	f.mu.Lock()
	at := n.at
	f.mu.Unlock()
	names, ok := f.path(at.dir)
	if !ok {
		return errs.Stale
	}
	return f.atPath(in, append(names, at.name), do)
}

// atPath is at for the names from the root on.
func (f *FS) atPath(in keep.Interrupt, names []string, do func(fid uint32, qid p9.QID) (keeps bool, err error)) error {
	for try := 1; ; try++ {
		fid, qid, err := f.walk(in, redial.Root{Fid: rootFid, QID: f.root.qid}, names)
		if err != nil {
			return err
		}
		keeps, err := do(fid, qid)
		if !keeps {
			f.clunk(fid)
		}
		if !is(err, errs.Stale) || try == staleTries {
			return err
		}
	}
}

// change asks for one thing that alters a node's file, or what is in a folder.
func (f *FS) change(in keep.Interrupt, n *node, m *wire.Msg) error {
	return f.at(in, n, func(fid uint32, _ p9.QID) (bool, error) {
		m.Fid = fid
		_, err := f.calls.Call(in, m)
		return false, err
	})
}

// is tells whether the kernel would take an error for one of a kind: a server of
// 9P2000.L names errnos, not kinds.
func is(err error, kind errs.Kind) bool { return err != nil && status(err) == status(kind) }

// status is an error as the kernel takes it.
func status(err error) fuse.Status {
	var r *redial.Refusal
	var kind errs.Kind
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, keep.ErrInterrupted):
		return fuse.EINTR
	case errors.As(err, &r) && r.Errno != 0:
		return errnoOf(r.Errno)
	case errors.As(err, &kind):
		return errnoOf(kind.ErrnoL())
	}
	return fuse.EIO
}
