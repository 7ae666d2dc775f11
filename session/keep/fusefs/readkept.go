//go:build (linux && !386 && !arm) || freebsd || darwin

package fusefs

import (
	"bytes"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/keep"
	"meta9/session/wire"
)

// How open files are read through the cache: from what is kept, or from the server, whose
// answer is kept then. At the server nothing is open for a file of which all is known.

// openKept opens a key or a folder of which all is known, to read it, without the
// server; nil: not so.
func (f *FS) openKept(n *node, flags uint32) *file {
	if n.kind != key && n.kind != folder || flags&(linuxAccess|linuxTrunc) != 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.keptOf(n)
	if s == nil {
		return nil
	}
	return f.opens(n, &file{fid: wire.NoFid, snap: s, edits: n.edits})
}

// firm is the fid of an open file, which is opened now if it was not: at the server
// nothing is open for a file of which all is known.
func (f *FS) firm(in keep.Interrupt, o *file) (uint32, error) {
	o.mu.Lock()
	fid := o.fid
	o.mu.Unlock()
	if fid != wire.NoFid {
		return fid, nil
	}
	err := f.at(in, o.node, func(fid uint32, qid p9.QID) (bool, error) {
		if qid.Path != o.node.qid.Path {
			return false, errs.Stale
		}
		if _, err := f.calls.Call(in, &wire.Msg{Type: wire.Tlopen, Fid: fid}); err != nil {
			return false, err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.fid != wire.NoFid {
			return false, nil // somebody else was faster
		}
		o.fid = fid
		return true, nil
	})
	if is(err, errs.NotFound) {
		err = errs.Stale
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fid, err
}

// readKey reads a key by a file that is open for reading only. It goes on in the version
// that it has read at offset 0, as the server's own do (docs/tree.md, "Reading"): it takes
// the newest when it reads there again, after a change by this mount, and at its end where
// the newest begins with what was read.
func (f *FS) readKey(in keep.Interrupt, o *file, off uint64, size int) ([]byte, error) {
	f.mu.Lock()
	s, again := o.snap, o.edits != o.node.edits
	f.mu.Unlock()
	if s == nil && off > 0 && !again { // too large to be kept: the server's fid has its version
		return f.readFid(in, o, off, size)
	}
	if off > 0 && !again && off < uint64(len(s.data)) {
		return part(s.data, off, size), nil
	}
	newest := f.kept(o.node)
	if newest == nil {
		data, whole, err := f.fetch(in, o, size)
		switch {
		case is(err, errs.Stale) && s != nil: // the key is gone: this is what is open still
			return part(s.data, off, size), nil
		case err != nil:
			return nil, err
		case whole == nil: // it is large, or there is no room
			if off > 0 && !again && !bytes.HasPrefix(data, s.data) {
				return nil, nil
			}
			f.reads(o, nil)
			if off == 0 {
				return part(data, 0, size), nil
			}
			return f.readFid(in, o, off, size)
		}
		newest = whole
	}
	if off > 0 && !again && !bytes.HasPrefix(newest.data, s.data) {
		f.mu.Lock()
		f.release(newest)
		f.mu.Unlock()
		return nil, nil
	}
	f.reads(o, newest)
	return part(newest.data, off, size), nil
}

// part is what data has from off on, as much as is asked for.
func part(data []byte, off uint64, size int) []byte {
	data = data[min(off, uint64(len(data))):]
	return data[:min(size, len(data))]
}

// fetch reads a key from its start, size bytes at least or all of it. whole is all of it,
// if it is not too large.
func (f *FS) fetch(in keep.Interrupt, o *file, size int) (data []byte, whole *snapshot, err error) {
	mark := f.mark()
	want := size
	attr := fuse.Attr{Size: maxKept}
	if f.keptAttr(o.node, &attr); attr.Size <= maxKept {
		want = max(size, int(attr.Size)+1)
	}
	if data, err = f.readFid(in, o, 0, want); err != nil || len(data) == want {
		return data, nil, err
	}
	whole = f.hold(bytes.Clone(data)) // which has not the room of data
	f.keep(o.node, mark, whole)
	return data, whole, nil
}

// readFid reads from the server, until size bytes are there or there are no more.
func (f *FS) readFid(in keep.Interrupt, o *file, off uint64, size int) ([]byte, error) {
	fid, err := f.firm(in, o)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	n, err := f.readInto(in, o, fid, off, buf)
	return buf[:n], err
}

// list answers a ReadDir of a folder from all of its entries, which it keeps; false: they
// are too many, or there is no room.
func (f *FS) list(in keep.Interrupt, o *file, off uint64) (entries []byte, ok bool, err error) {
	f.mu.Lock()
	s := o.snap
	f.mu.Unlock()
	if s == nil && off > 0 {
		return nil, false, nil
	}
	if off == 0 {
		if newest := f.kept(o.node); newest != nil {
			f.reads(o, newest)
			s = newest
		} else if s, err = f.listAll(in, o); s == nil || err != nil {
			return nil, false, err
		}
	}
	if off == 0 {
		return s.data, true, nil
	}
	for b := s.data; len(b) > 0; {
		e, rest, err := wire.DecodeDirent(b)
		if err != nil {
			return nil, false, err
		}
		if b = rest; e.Offset == off {
			return b, true, nil
		}
	}
	return nil, true, nil
}

// listAll reads a whole folder; nil: it is too large.
func (f *FS) listAll(in keep.Interrupt, o *file) (*snapshot, error) {
	mark := f.mark()
	fid, err := f.firm(in, o)
	if err != nil {
		return nil, err
	}
	var all []byte
	for from := uint64(0); ; {
		r, err := f.calls.Call(in, &wire.Msg{Type: wire.Treaddir, Fid: fid, Offset: from, Count: f.chunk()})
		if err != nil {
			return nil, err
		}
		if len(r.Data) == 0 {
			break
		}
		if all = append(all, r.Data...); len(all) > maxKept {
			f.reads(o, nil)
			return nil, nil
		}
		last := from
		for b := r.Data; len(b) > 0; {
			e, rest, err := wire.DecodeDirent(b)
			if err != nil {
				return nil, errs.Protocol
			}
			b, from = rest, e.Offset
		}
		if from == last {
			return nil, errs.Protocol
		}
	}
	s := f.hold(all)
	f.keep(o.node, mark, s)
	f.reads(o, s)
	return s, nil
}
