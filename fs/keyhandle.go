package fs

import (
	"sync/atomic"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// A program replaces a value by a truncation to 0 and then a write, which are two messages
// (v9fs: Topen OTRUNC or Tsetattr, then Twrite). In between others must not see the key
// empty. So the truncation is held:
//
//	truncate     nothing is committed; this View sees length 0, on every fid
//	a commit     to the key, by anybody, computes on "" and ends all its holds
//	Sync, Clunk  commit the truncation by itself
//	a refusal    of a write leaves it held; the Clunk then drops it, and the old
//	             value stays
//	Drop, Close  drop it: the writer is lost, and the old value stays
//
// The store keeps the holds, since its committer applies them; the View keeps its
// own by key (View.held), and the Handle the one that it has to end.

// keyHandle is an open key.
type keyHandle struct {
	node    *keyNode
	flags   Flags
	reader  reader
	stat    *Stat       // open for writing only: the key as it was last seen; else nil
	held    *store.Hold // the truncation that this Handle holds, or held last
	refused atomic.Bool // a write was refused since; set in the committer
}

// open makes the Handle readable; nil when the key is not there any more.
func (h *keyHandle) open() *vm.Entry {
	n := h.node
	key := fileKey{path: n.id, guest: n.view().guest()}
	f := n.view().tree.opens.open(n.dir.dir.cell, key, n.dir.space, nil)
	return h.reader.open(n.view(), f)
}

// created is the Handle of a key that a create has made or found. Settle adds it to the
// View.
func (n *keyNode) created(f Flags) *keyHandle {
	h := &keyHandle{node: n, flags: f}
	n.view().noteCreated(h)
	return h
}

// keepStat keeps the stat of a key that is open only for writing, whose value is not
// pinned.
func (h *keyHandle) keepStat(e *vm.Entry) {
	h.stat = new(Stat)
	statKey(h.stat, e, h.node.file, false)
}

// enter does what Open does, for a created Handle. If the key was removed meanwhile,
// the next operation says so.
func (h *keyHandle) enter() {
	if h.node.view().closed {
		return
	}
	e := h.node.dir.find(h.node.id)
	switch {
	case h.flags&Read != 0:
		h.open()
	case e != nil:
		h.keepStat(e)
	}
	// A new key is empty already, and one that was there is truncated.
	if e != nil && e.Value != "" && h.flags&Trunc != 0 {
		_ = h.truncate()
	}
}

// Read gives the value as of the last read at offset 0 (see reader), or nothing
// while this View holds a truncation. errs.Gone: the key was removed, and there
// is no old value to give.
func (h *keyHandle) Read(p []byte, off uint64) (int, error) {
	if h.reader.file == nil {
		return 0, errs.BadUse
	}
	if h.node.held() {
		return 0, nil
	}
	e := h.reader.value(off)
	if e == nil {
		return 0, errs.Gone
	}
	return copyAt(p, e.Value, off), nil
}

// Size is the size of the value that is being read, or of the newest one.
func (h *keyHandle) Size() uint64 {
	n := h.reader.pinned()
	if e := h.node.dir.find(h.node.id); e != nil {
		n = max(n, len(e.Value))
	}
	return uint64(n)
}

// Write is one atomic splice, or append.
func (h *keyHandle) Write(p []byte, off uint64, by Author, done func(int, error)) {
	if h.flags&Write == 0 {
		done(0, errs.BadUse)
		return
	}
	in := h.node.intent(store.Splice, by)
	in.Off, in.Data = off, string(p)
	if h.flags&AppendTo != 0 {
		in.Kind, in.Off = store.Append, 0
	}
	h.node.dir.submit(in, func(r store.Result) {
		if r.Err != nil {
			h.refused.Store(true)
		}
		done(r.N, r.Err)
	})
}

// Stat is the key's. For a key that is gone it is that of the open value: kernels do not
// read past the length.
func (h *keyHandle) Stat(st *Stat) error {
	if h.node.Stat(st) == nil {
		if h.stat != nil {
			*h.stat = *st
		}
		return nil
	}
	e := h.reader.pin.content()
	switch {
	case h.node.dir.dir.cell.VM() == nil:
		return errs.Gone
	case e != nil:
		statKey(st, e, h.node.file, h.node.held())
	case h.stat != nil:
		*st = *h.stat
	default:
		return errs.Gone
	}
	st.Gone = true
	return nil
}

// SetStat holds a truncation to 0 if the Handle is open for writing. The mtime
// that v9fs sends along is left to the commit: setting it now would commit the
// truncation with it.
func (h *keyHandle) SetStat(c Change, by Author, done func(error)) {
	switch {
	case c.Empty():
		done(nil)
	case c.Length != nil && *c.Length == 0 && c.Mode == nil && c.Name == nil && h.flags&Write != 0:
		done(h.truncate())
	default:
		h.node.change(c, by, func(err error) { done(opened(err)) })
	}
}

// truncate holds a truncation to 0. errs.Gone: the key is no longer there.
func (h *keyHandle) truncate() error {
	if h.holds() {
		return nil
	}
	n := h.node
	hold, err := n.view().hold(n.dir.dir.cell, n.dir.space, n.id)
	if err != nil {
		return err
	}
	h.held = hold
	h.refused.Store(false)
	return nil
}

// holds tells whether the Handle's truncation waits for a commit.
func (h *keyHandle) holds() bool { return h.held != nil && h.held.Active() }

// Sync commits a held truncation.
func (h *keyHandle) Sync(by Author, done func(error)) {
	if !h.holds() {
		done(nil)
		return
	}
	h.flush(by, done)
}

// flush commits the truncation, unless another commit does so first.
func (h *keyHandle) flush(by Author, done func(error)) {
	in := h.node.intent(store.FlushHold, by)
	in.Hold = h.held
	h.node.dir.submit(in, ending(done))
}

// Clunk closes the Handle. A held truncation is committed, or forgotten when a
// write was refused; this View sees it until then.
func (h *keyHandle) Clunk(by Author, done func(error)) {
	h.reader.close()
	switch {
	case !h.holds():
		done(nil)
	case h.refused.Load():
		h.held.Drop()
		done(nil)
	default:
		hold := h.held
		h.flush(by, func(err error) {
			if err != nil {
				hold.Drop()
			}
			done(err)
		})
	}
}

// Drop closes the Handle and forgets a held truncation.
func (h *keyHandle) Drop() {
	h.reader.close()
	if h.held != nil {
		h.held.Drop()
	}
}

// State has, for a held truncation, the key's revision: by that another process knows
// whether a commit has ended it since.
func (h *keyHandle) State() HandleState {
	hs := HandleState{Flags: h.flags &^ (Trunc | Excl)}
	newest, read := h.node.dir.find(h.node.id), h.reader.pin.content()
	switch {
	case newest == nil:
	case h.holds():
		hs.Held, hs.Rev, hs.Refused = true, newest.Rev, h.refused.Load()
	case read != nil && read.Rev != newest.Rev && len(read.Value) <= MaxOld:
		hs.Old, hs.Rev = []byte(read.Value), read.Rev
	}
	return hs
}

// restore holds the truncation again, unless a commit has ended it since, or goes on
// reading the old value.
func (h *keyHandle) restore(hs HandleState) {
	e := h.node.dir.find(h.node.id)
	switch {
	case e == nil:
	case hs.Held && e.Rev == hs.Rev:
		if h.truncate() == nil {
			h.refused.Store(hs.Refused)
		}
	case !hs.Held && len(hs.Old) > 0 && len(hs.Old) <= MaxOld && h.reader.file != nil:
		h.reader.restore(&vm.Entry{ID: e.ID, Name: e.Name, Rev: hs.Rev, Mtime: e.Mtime, Value: string(hs.Old)})
	}
}
