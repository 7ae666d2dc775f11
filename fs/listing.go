package fs

import (
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// A listing that takes several messages must be of one moment, or it would show a part
// of a transaction. So an open folder of a VM can keep its whole listing, as text that a
// client gets in pieces: made of one row by the first who asks, in the form that its
// session speaks, and shared by all that list the folder at that revision. It is a
// version of a derived file (see pins.go). Its bytes are bounded by the VM's account, and
// the number of listings by maxLists. Parking keeps it: one that went on in another row
// would be of two moments.

// A Form is how the entries of folders are written for some clients. It is made once,
// and any number of goroutines may use it.
type Form struct {
	ID    uint8 // tells Forms apart; never 0
	Owner bool  // Stat's UID, GID and Mode show in it
	Size  func(st *Stat) int
	// Append writes an entry, in Size bytes.
	Append func(b []byte, cookie uint64, st *Stat) []byte
}

// Lister is the Handle of a folder whose entries are all in its VM's row.
type Lister interface {
	// Listing gives the folder as it is now: all entries in the order of their cookies,
	// as f writes them, and the VM's revision. It is kept until the next call, or Unlist,
	// or until memory is short. room is how many bytes the caller has reserved for this in
	// its account; those that are used are subtracted, and are the listing's from then on.
	// *ShortError: there is no memory for it. errs.Again: too many of the VM are open.
	Listing(f *Form, room *int64) (text string, rev uint64, err error)
	// Listed gives the Listing of revision rev again. errs.Again: the VM has changed,
	// and the listing was not kept (a restart, or memory that others needed).
	Listed(f *Form, rev uint64, room *int64) (text string, err error)
	// Unlist lets go of the listing.
	Unlist()
	// Large tells whether to use Listing: it was called on this handle already, or even a
	// low estimate of the entries exceeds room bytes.
	Large(f *Form, room int) bool
}

// ShortError is errs.Again where Need bytes of the account would have been enough.
type ShortError struct {
	Need int64
	err  error
}

// Error is the text of errs.Again, with what is short.
func (e *ShortError) Error() string { return e.err.Error() }

// Unwrap gives the errs.Again.
func (e *ShortError) Unwrap() error { return e.err }

// rowFolder is a folder whose entries are all in its VM's row.
type rowFolder interface {
	Folder
	inVM() (d *vmDir, slot uint64)
	// entries is List without what only this View sees, of whatever row. It keeps
	// nothing of the View, which it may outlive.
	entries() func(m *vm.VM, after uint64, fn func(cookie uint64, st *Stat) bool)
	// atLeast is how many entries there are, as far as that is known at once.
	atLeast(m *vm.VM) int
}

// formKey tells the forms of one folder apart, with what they show of owners.
type formKey struct {
	id       uint8 // Form.ID; 0: no listing
	hasUID   bool
	hasGID   bool
	hasMode  bool
	mode     uint16
	uid, gid uint32
}

func (f *Form) key(l *Look) formKey {
	k := formKey{id: f.ID}
	if l == nil || !f.Owner {
		return k
	}
	if l.UID != nil {
		k.hasUID, k.uid = true, *l.UID
	}
	if l.GID != nil {
		k.hasGID, k.gid = true, *l.GID
	}
	if l.Mode != nil {
		k.hasMode, k.mode = true, *l.Mode&0o777
	}
	return k
}

// listHandle is an open folder of a VM.
type listHandle struct {
	dirHandle
	look   *Look
	reader *reader // nil: nobody has asked for the listing
}

func (h *listHandle) folder() rowFolder { return h.node.(rowFolder) }

// Listing is Lister's.
func (h *listHandle) Listing(f *Form, room *int64) (string, uint64, error) {
	d, slot := h.folder().inVM()
	if _, err := d.vm(); err != nil {
		return "", 0, err
	}
	r := h.reader
	if r == nil {
		r = new(reader)
	}
	if r.file == nil {
		k := fileKey{d.cell.ID() + slot, d.v.guest(), f.key(h.look)}
		file := d.v.tree.opens.open(d.cell, k, 0, packed(h.folder().entries(), f, h.look))
		if file == nil {
			return "", 0, tooMany()
		}
		r.enter(d.v, file)
		h.reader = r
	}
	e := r.retake(room)
	switch {
	case r.err != nil:
		return "", 0, r.err
	case e == nil:
		return "", 0, errs.NotFound
	}
	return e.Value, e.Rev, nil
}

// Listed is Lister's.
func (h *listHandle) Listed(f *Form, rev uint64, room *int64) (string, error) {
	if h.reader != nil {
		if e := h.reader.pin.content(); e != nil && e.Rev == rev {
			return e.Value, nil
		}
	}
	d, _ := h.folder().inVM()
	m, err := d.vm()
	if err != nil {
		return "", err
	}
	if m.Rev == rev {
		text, now, err := h.Listing(f, room)
		if err != nil || now == rev {
			return text, err
		}
		h.Unlist()
	}
	return "", errs.New(errs.Again, "the folder has changed since this listing began, and that is no longer kept: list it anew")
}

// WithListing calls use with the listing of this folder as it is now, and the VM's
// revision. false: it is no folder of a VM, or a small one, or there is no memory for
// it; then List does as well.
func (r *Ref) WithListing(f *Form, use func(text string, rev uint64) error) (used bool, err error) {
	n, ok := r.node.(rowFolder)
	if !ok {
		return false, nil
	}
	d, slot := n.inVM()
	m, err := d.vm()
	if err != nil || n.atLeast(m)*f.Size(new(Stat)) < smallDerived {
		return false, err
	}
	k := fileKey{d.cell.ID() + slot, d.v.guest(), f.key(r.look)}
	return d.v.withDerived(d.cell, k, func() *deriver { return packed(n.entries(), f, r.look) }, func(e *vm.Entry) error {
		return use(e.Value, e.Rev)
	})
}

// Unlist is Lister's.
func (h *listHandle) Unlist() {
	if h.reader != nil && h.reader.file != nil {
		h.reader.unpin()
	}
}

// Large is Lister's.
func (h *listHandle) Large(f *Form, room int) bool {
	if h.reader != nil {
		return true
	}
	d, _ := h.folder().inVM()
	m, err := d.vm()
	return err == nil && h.folder().atLeast(m)*f.Size(new(Stat)) > room
}

// Clunk lets the listing go.
func (h *listHandle) Clunk(_ Author, done func(error)) {
	h.Drop()
	done(nil)
}

// Drop is Clunk with nobody waiting.
func (h *listHandle) Drop() {
	if h.reader != nil {
		h.reader.close()
	}
}

// Holds is what it takes beside the listing, which is shared.
func (h *listHandle) Holds() int64 {
	if h.reader == nil {
		return 0
	}
	return sizeOf(h.reader)
}

// packed derives a folder's listing in a form.
func packed(entries func(m *vm.VM, after uint64, fn func(uint64, *Stat) bool), f *Form, l *Look) *deriver {
	each := func(m *vm.VM, fn func(cookie uint64, st *Stat)) {
		owner := l.over(m.Perm())
		entries(m, 0, func(cookie uint64, st *Stat) bool {
			show(st, owner)
			fn(cookie, st)
			return true
		})
	}
	return &deriver{
		size: func(m *vm.VM) (size int) {
			each(m, func(_ uint64, st *Stat) { size += f.Size(st) })
			return size
		},
		text: func(m *vm.VM, size int) (string, bool) {
			var text strings.Builder
			text.Grow(size)
			var b []byte
			each(m, func(cookie uint64, st *Stat) {
				b = f.Append(b[:0], cookie, st)
				text.Write(b)
			})
			return text.String(), true
		},
	}
}
