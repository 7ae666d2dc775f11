package fs

import (
	"strings"

	"meta9/fs/vm"
)

// reader is the reading half of an open key or derived file: which version it
// reads. Its View keeps a list of those that are open.
//
// A client reads a value in pieces, and must not get the head of one and the tail
// of another; but it must see what it has written itself, and tail -f what others
// append. So a reader keeps its version until
//
//	a read at offset 0              the client starts again
//	a commit of its own View        Settle
//	the end of a hold of its View   it read "" until then
//	a read at the end of the value, when the newest begins with all of it
//
// and loses it only to the VM's limit; a derived file also to Park.
type reader struct {
	view       *View
	file       *openFile // nil: closed, or not open for reading
	pin        *version  // nil: the next read takes the newest
	err        error     // why the last retake has got nothing
	next, prev *reader
}

// value is the content for a read at that offset; nil when nothing is left of the
// file. An append by anyone is seen at the end of what was read before; derived
// files are never appended to.
func (r *reader) value(off uint64) *vm.Entry {
	e := r.pin.content()
	switch {
	case off == 0 || e == nil:
		return r.retake(nil)
	case off >= uint64(len(e.Value)) && r.file.derive == nil:
		return r.extend(e)
	}
	return e
}

// retake pins the newest version. Where there is none any more the reader keeps
// what it had, as long as the VM is there. room is newest's.
func (r *reader) retake(room *int64) *vm.Entry {
	for {
		p, err := r.file.newest(room)
		if r.err = err; err != nil {
			return nil
		}
		if p == nil && r.file.table.cell.VM() == nil {
			return nil // its owner, if it has another one, may have changed it
		}
		if p == nil {
			return r.pin.content()
		}
		if p != r.pin {
			if !p.acquire() {
				continue // retired just now
			}
			r.unpin()
			r.pin = p
		}
		if e := p.content(); e != nil {
			return e
		}
	}
}

// pinned is how many bytes the version has that it reads.
func (r *reader) pinned() int {
	if e := r.pin.content(); e != nil {
		return len(e.Value)
	}
	return 0
}

// extend pins the newest version if it begins with e's value.
func (r *reader) extend(e *vm.Entry) *vm.Entry {
	p, _ := r.file.newest(nil)
	if p == nil || p == r.pin {
		return e
	}
	if next := p.content(); next == nil || !strings.HasPrefix(next.Value, e.Value) || !p.acquire() {
		return e
	}
	r.unpin()
	r.pin = p
	if next := p.content(); next != nil {
		return next
	}
	return e
}

// unpin lets go of the version that is pinned.
func (r *reader) unpin() {
	if r.pin != nil {
		r.pin.release()
		r.pin = nil
	}
}

// open enters the reader into the tree's table and the View's list, and pins what
// is there; nil when nothing is.
func (r *reader) open(v *View, f *openFile) *vm.Entry {
	r.enter(v, f)
	return r.retake(nil)
}

// restore pins a version that is not the newest any more. It counts as an old one at once:
// readers that shared it have one each now, so that there may be too many.
func (r *reader) restore(e *vm.Entry) {
	t := r.file.table
	p := newVersion(t, e)
	p.state.Store(1)
	t.mu.Lock()
	t.retire(p)
	if m := t.cell.VM(); m != nil {
		r.view.tree.opens.trim(t, m)
	}
	t.mu.Unlock()
	r.unpin()
	r.pin = p
}

// enter is open without a look at what is there.
func (r *reader) enter(v *View, f *openFile) {
	r.view, r.file = v, f
	r.next = v.readers
	if r.next != nil {
		r.next.prev = r
	}
	v.readers = r
}

// close undoes open; closing twice is harmless.
func (r *reader) close() {
	if r.file == nil {
		return
	}
	r.unpin()
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		r.view.readers = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.view.tree.opens.close(r.file)
	r.file, r.next, r.prev = nil, nil, nil
}

// copyAt copies what value has from offset off.
func copyAt(p []byte, value string, off uint64) int {
	if off >= uint64(len(value)) {
		return 0
	}
	return copy(p, value[off:])
}
