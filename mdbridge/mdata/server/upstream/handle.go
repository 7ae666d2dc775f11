package upstream

import (
	"bytes"
	"sync"

	"meta9/fs"
	"meta9/fs/errs"
)

// handle is an open key. A truncation to 0 is held back until the first write, as for
// keys of the store, so that no reader sees an empty value in between.
type handle struct {
	file  *file
	node  fs.Node
	flags fs.Flags
	jobs  queue

	mu        sync.Mutex
	value     []byte // for reads
	begun     bool   // a read at offset 0 has used value
	changes   int    // how many were made
	fetchedAt int    // value of changes when value was fetched
	truncated bool   // a truncation to 0 waits for the next change
	refused   bool   // a write was refused
}

// fetch asks for the value. If a change was made meanwhile, the value is outdated at
// once.
func (h *handle) fetch() error {
	type taken struct {
		value   []byte
		changes int
	}
	got, err := fs.Ask(h.file.dir.view, h.file, func() (t taken, err error) {
		h.mu.Lock()
		t.changes = h.changes
		h.mu.Unlock()
		t.value, err = h.file.dir.service.get(h.file.key)
		return t, err
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.setValue(got.value); err != nil {
		return err
	}
	h.begun, h.fetchedAt = false, got.changes
	return nil
}

// setValue replaces h.value; nil frees it. errs.NoSpace: the open keys of the service
// would hold more than maxOpenBytes. mu is held.
func (h *handle) setValue(value []byte) error {
	more := int64(len(value) - len(h.value))
	if n := h.file.dir.service.openBytes.Add(more); more > 0 && n > maxOpenBytes {
		h.file.dir.service.openBytes.Add(-more)
		return errs.New(errs.NoSpace, "the open keys of %s have %d bytes, %d are the limit", h.file.dir.service.path, n-more, maxOpenBytes)
	}
	h.value = value
	return nil
}

// dropValue frees the value.
func (h *handle) dropValue() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.setValue(nil) // less never fails
}

// outdated tells whether the key was changed by this handle after value was fetched;
// mu is held.
func (h *handle) outdated() bool { return h.changes != h.fetchedAt }

// Read returns the value as of the last read at offset 0, or no bytes while a
// truncation is held.
func (h *handle) Read(p []byte, off uint64) (int, error) {
	if h.flags&fs.Read == 0 {
		return 0, errs.BadUse
	}
	h.mu.Lock()
	held, old := h.truncated, h.outdated() || off == 0 && h.begun
	h.mu.Unlock()
	if held {
		return 0, nil
	}
	if old {
		if err := h.fetch(); err != nil {
			return 0, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begun = h.begun || off == 0
	if off >= uint64(len(h.value)) {
		return 0, nil
	}
	return copy(p, h.value[off:]), nil
}

// Write gets the value, splices or appends, and puts it. The protocol cannot prevent
// that another client of the service writes between our GET and our PUT: that write is
// lost.
func (h *handle) Write(p []byte, off uint64, _ fs.Author, done func(int, error)) {
	if h.flags&fs.Write == 0 {
		done(0, errs.BadUse)
		return
	}
	p = bytes.Clone(p)
	h.change(func(old []byte) ([]byte, error) {
		if h.flags&fs.AppendTo != 0 {
			off = uint64(len(old))
		}
		return spliced(old, off, p)
	}, func(err error) {
		if err != nil {
			done(0, err)
			return
		}
		done(len(p), nil)
	})
}

// spliced is old with p at off, and zeros in a gap.
func spliced(old []byte, off uint64, p []byte) ([]byte, error) {
	if off > maxValue {
		off = maxValue // so that off+len(p) cannot overflow; it is too large with any p
	}
	value, err := resized(old, max(uint64(len(old)), off+uint64(len(p))))
	if err == nil {
		copy(value[off:], p)
	}
	return value, err
}

// change makes all writes, one after the other, since the service takes whole values
// only. The new value is f of the service's value, or of no bytes while a truncation is
// held.
func (h *handle) change(f func(old []byte) ([]byte, error), done func(error)) {
	h.jobs.add(func() {
		h.mu.Lock()
		held := h.truncated
		h.mu.Unlock()
		var err error
		if s := h.file.dir.service; held {
			var value []byte
			if value, err = f(nil); err == nil {
				err = s.put(h.file.key, value)
			}
		} else {
			err = s.change(h.file.key, f)
		}
		h.mu.Lock()
		h.changes++
		h.truncated = h.truncated && err != nil
		h.refused = h.refused || err != nil
		h.mu.Unlock()
		done(err)
	})
}

// Stat gives the length of what Read would return.
func (h *handle) Stat(st *fs.Stat) error {
	if err := h.node.Stat(st); err != nil {
		return err
	}
	h.mu.Lock()
	held, old := h.truncated, h.outdated() || h.flags&fs.Read == 0
	h.mu.Unlock()
	if held {
		st.Length = 0
		return nil
	}
	if old {
		if err := h.fetch(); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	st.Length = uint64(len(h.value))
	return nil
}

// SetStat holds a truncation to 0; any other length is a change like a write.
func (h *handle) SetStat(c fs.Change, by fs.Author, done func(error)) {
	n, ok := h.node.(fs.Setter)
	switch {
	case c.Empty():
		done(nil)
	case !ok:
		done(fs.Missing(h.node, fs.OpSetStat))
	case c.Length == nil || c.Mode != nil || c.Name != nil || h.flags&fs.Write == 0:
		n.SetStat(c, by, done)
	case *c.Length > 0:
		size := *c.Length
		h.change(func(old []byte) ([]byte, error) { return resized(old, size) }, done)
	default:
		h.mu.Lock()
		h.truncated, h.refused = true, false
		h.mu.Unlock()
		done(nil)
	}
}

// Sync puts an empty value, if a truncation is held.
func (h *handle) Sync(_ fs.Author, done func(error)) {
	h.mu.Lock()
	held := h.truncated
	h.mu.Unlock()
	if !held {
		done(nil)
		return
	}
	h.change(func(old []byte) ([]byte, error) { return old, nil }, done)
}

// Holds is the memory of the value.
func (h *handle) Holds() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fs.Block(int64(cap(h.value)))
}

// Clunk is Sync, unless a write was refused: an empty value would then replace an old
// one that nothing has replaced.
func (h *handle) Clunk(by fs.Author, done func(error)) {
	h.dropValue()
	h.mu.Lock()
	refused := h.refused
	h.mu.Unlock()
	if refused {
		done(nil)
		return
	}
	h.Sync(by, done)
}

// Drop forgets a held truncation. Writes that were queued still go to the service.
func (h *handle) Drop() { h.dropValue() }

// State has only the flags: a held truncation ends with the process.
func (h *handle) State() fs.HandleState {
	return fs.HandleState{Flags: h.flags &^ (fs.Trunc | fs.Excl)}
}
