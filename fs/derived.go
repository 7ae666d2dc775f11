package fs

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/render"
)

// At one revision of its VM a derived file has the same content for all guests, and the
// same for all admins. The first reader computes it, and it is shared while it is open.
// Once the VM has changed it counts as a pinned old value.

// derivation is a folder of derived files.
type derivation struct {
	folder string
	slot   uint64
	names  func(m *vm.VM) []string // by which value finds something
	value  func(m *vm.VM, name string) (string, bool)
}

var (
	sdcFolder     = &derivation{"sdc", slotSdc, render.SdcNames, render.Sdc}
	nocloudFolder = &derivation{"nocloud", slotNoCloud, render.NoCloudNames, render.NoCloud}
)

// derivedDir is sdc/ or nocloud/ of a VM.
type derivedDir struct {
	dir *vmDir
	of  *derivation
}

func (d *derivedDir) readOnly() {}

func (d *derivedDir) QID() p9.QID { return dirQID(d.dir.cell.ID()+d.of.slot, d.dir.rev()) }

func (d *derivedDir) Stat(st *Stat) error {
	return d.dir.statSlot(st, d.of.slot, d.of.folder)
}

// find computes the file of that name from the VM as it is now.
func (d *derivedDir) find(name string) (m *vm.VM, key, text string, err error) {
	if m, err = d.dir.vm(); err != nil {
		return nil, "", "", err
	}
	key, err = vm.KeyName(name)
	text, ok := "", false
	if err == nil {
		text, ok = d.of.value(m, key)
	}
	if !ok {
		return nil, "", "", errs.NotFound
	}
	return m, key, text, nil
}

// Walk computes the file to see whether it is there, and keeps the length for the
// stat that follows in most clients.
func (d *derivedDir) Walk(name string) (Node, error) {
	m, key, text, err := d.find(name)
	if err != nil {
		return nil, err
	}
	value := d.of.value // the deriver may outlive the View, so it must not have d
	return &derivedFile{
		dir: d.dir, path: DerivedPath(d.dir.cell.ID(), d.of.folder, key), name: name, mode: 0o444,
		derive: &deriver{text: func(m *vm.VM, _ int) (string, bool) { return value(m, key) }},
		rev:    m.Rev, bytes: len(text),
	}, nil
}

// AppendFile does not keep the file.
func (d *derivedDir) AppendFile(b []byte, name string, max int) ([]byte, error) {
	_, _, text, err := d.find(name)
	if err != nil {
		return b, err
	}
	return appendWhole(b, text, max)
}

// List uses the qid paths as cookies: a name keeps its cookie when others come and go.
func (d *derivedDir) List(after uint64, fn func(uint64, *Stat) bool) error {
	m, err := d.dir.vm()
	if err == nil {
		d.of.list(m, after, fn)
	}
	return err
}

func (d *derivedDir) inVM() (*vmDir, uint64) { return d.dir, d.of.slot }

func (d *derivedDir) atLeast(*vm.VM) int { return 0 }

func (d *derivedDir) entries() func(m *vm.VM, after uint64, fn func(uint64, *Stat) bool) {
	return d.of.list
}

// list is List of the VM m.
func (d *derivation) list(m *vm.VM, after uint64, fn func(uint64, *Stat) bool) {
	type entry struct {
		path uint64
		key  string
	}
	var entries []entry
	for _, key := range d.names(m) {
		if path := DerivedPath(m.ID, d.folder, key); path > after {
			entries = append(entries, entry{path, key})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.path, b.path) })
	for _, e := range entries {
		value, ok := d.value(m, e.key)
		if !ok {
			continue
		}
		st := Stat{
			QID: fileQID(e.path, m.Rev), Mode: 0o444, Length: uint64(len(value)),
			Mtime: m.Mtime, Name: vm.FileName(e.key),
		}
		if !fn(e.path, &st) {
			break
		}
	}
}

// derivedFile is a file whose content is computed from the VM. Its qid.version is
// the VM's, since it may change with any commit of it.
type derivedFile struct {
	dir    *vmDir
	path   uint64
	name   string
	mode   uint16
	derive *deriver
	append func(b []byte, m *vm.VM) []byte // appends the content, where derive.size tells how much that is

	rev   uint64 // the VM's revision that bytes is true for
	bytes int    // how long the content was then
}

// newVMJSON is vm.json.
func newVMJSON(d *vmDir) *derivedFile {
	k, lengths := lengthKey{d.cell, d.v.guest()}, &d.v.tree.lengths
	size := func(m *vm.VM) int {
		return lengths.get(k, m.Rev, func() int { return m.JSONSize(k.guest) })
	}
	add := func(b []byte, m *vm.VM) []byte { return m.AppendJSON(b, k.guest) }
	text := func(m *vm.VM, size int) (string, bool) {
		var b strings.Builder
		b.Grow(size)
		p := ordjson.NewPieces(nil, smallDerived, func(piece []byte) error {
			b.Write(piece)
			return nil
		})
		m.WriteJSON(p, k.guest)
		b.Write(p.Text)
		return b.String(), true
	}
	return &derivedFile{
		dir: d, path: d.cell.ID() + slotJSON, name: "vm.json", mode: 0o400,
		derive: &deriver{text: text, size: size}, append: add,
	}
}

func (n *derivedFile) QID() p9.QID { return fileQID(n.path, n.dir.rev()) }

// Stat computes the content only when the VM has changed since the last time:
// Linux, for one, does not read past the length that it is told.
func (n *derivedFile) Stat(st *Stat) error {
	m, err := n.dir.vm()
	if err != nil {
		return err
	}
	if n.rev != m.Rev {
		bytes, ok := n.length(m)
		if !ok {
			return errs.NotFound
		}
		n.rev, n.bytes = m.Rev, bytes
	}
	*st = Stat{
		QID: fileQID(n.path, m.Rev), Mode: n.mode, Length: uint64(n.bytes),
		Mtime: m.Mtime, Name: n.name,
	}
	return nil
}

// length is how long the file is; ok is false when it is not there any more.
func (n *derivedFile) length(m *vm.VM) (bytes int, ok bool) {
	if n.derive.size != nil {
		return n.derive.size(m), true
	}
	text, ok := n.derive.text(m, 0)
	return len(text), ok
}

// AppendValue computes the content and does not keep it, unless it is large: then it is
// kept for the next reader until the VM changes.
func (n *derivedFile) AppendValue(b []byte, max int) ([]byte, error) {
	m, err := n.dir.vm()
	if err != nil {
		return b, err
	}
	if n.derive.size != nil {
		size := n.derive.size(m)
		if size > max {
			return b, errs.Big(size, max)
		}
		if size > smallDerived {
			used, err := n.dir.v.withDerived(n.dir.cell, fileKey{path: n.path, guest: n.dir.v.guest()}, func() *deriver { return n.derive }, func(e *vm.Entry) (err error) {
				b, err = appendWhole(b, e.Value, max)
				return err
			})
			if used {
				return b, err
			}
		}
		return n.append(b, m), nil
	}
	text, ok := n.derive.text(m, 0)
	if !ok {
		return b, errs.NotFound
	}
	return appendWhole(b, text, max)
}

// Open pins the content, which all Handles of the file share.
func (n *derivedFile) Open(f Flags) (Handle, error) {
	if err := refuseWrite(n, f); err != nil {
		return nil, err
	}
	h := &derivedHandle{plain: plain{node: n, flags: f}}
	v := n.dir.v
	file := v.tree.opens.open(n.dir.cell, fileKey{path: n.path, guest: v.guest()}, 0, n.derive)
	if h.reader.open(v, file) == nil {
		err := h.reader.err
		h.reader.close()
		if err == nil {
			err = errs.NotFound
		}
		return nil, err
	}
	return h, nil
}

// derivedHandle is an open derived file.
type derivedHandle struct {
	plain
	reader reader
}

// Read returns the content as of the last read at offset 0. errs.Gone: the file is not
// there any more.
func (h *derivedHandle) Read(p []byte, off uint64) (int, error) {
	if !h.readable() || h.reader.file == nil {
		return 0, errs.BadUse
	}
	e := h.reader.value(off)
	switch {
	case e == nil && h.reader.err != nil:
		return 0, h.reader.err
	case e == nil:
		return 0, errs.Gone
	}
	return copyAt(p, e.Value, off), nil
}

// Size is that of the content that is read, or of the newest.
func (h *derivedHandle) Size() uint64 {
	n := uint64(h.reader.pinned())
	var st Stat
	if h.node.Stat(&st) == nil {
		n = max(n, st.Length)
	}
	return n
}

// Clunk unpins the content.
func (h *derivedHandle) Clunk(_ Author, done func(error)) {
	h.reader.close()
	done(nil)
}

// Drop is Clunk without an answer.
func (h *derivedHandle) Drop() { h.reader.close() }
