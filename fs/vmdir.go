package fs

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// vmDir is the folder of one VM: vms/UUID, names/ALIAS and a guest's root.
type vmDir struct {
	v      *View
	cell   *store.Cell
	name   string // by which it was reached
	spaces [vm.NumSpaces]spaceDir
}

// newVMDir makes the folder with its two spaces in one piece, so that a walk to a
// key allocates little.
func newVMDir(v *View, c *store.Cell, name string) *vmDir {
	d := &vmDir{v: v, cell: c, name: name}
	for s := range vm.NumSpaces {
		d.spaces[s] = spaceDir{d, s}
	}
	return d
}

// vmEntries are what stands in it beside the grafts; the cookie is the slot.
var vmEntries = [...]struct {
	slot   uint64
	name   string
	admin  bool // not there for a guest
	blocks bool // a read may wait: not listed for a guest, or grep -r would hang
	node   func(d *vmDir) Node
}{
	{slotKeys, "keys", false, false, func(d *vmDir) Node { return &d.spaces[vm.Keys] }},
	{slotInternal, "internal", false, false, func(d *vmDir) Node { return &d.spaces[vm.Internal] }},
	{slotSdc, "sdc", false, false, func(d *vmDir) Node { return &derivedDir{d, sdcFolder} }},
	{slotNoCloud, "nocloud", false, false, func(d *vmDir) Node { return &derivedDir{d, nocloudFolder} }},
	{slotJSON, "vm.json", false, false, func(d *vmDir) Node { return newVMJSON(d) }},
	{slotCtl, "ctl", true, false, func(d *vmDir) Node { return &ctlFile{v: d.v, dir: d} }},
	{slotTxn, "txn", false, false, func(d *vmDir) Node { return &txnFile{d} }},
	{slotEvents, "events", false, true, func(d *vmDir) Node { return &eventsFile{v: d.v, dir: d} }},
}

// vm is the VM as it is now. errs.NotFound: it was deleted.
func (d *vmDir) vm() (*vm.VM, error) {
	if m := d.cell.VM(); m != nil {
		return m, nil
	}
	return nil, errs.New(errs.NotFound, "VM %s was deleted", d.cell.UUID())
}

// rev is the VM's revision, or 0 when it was deleted.
func (d *vmDir) rev() uint64 {
	if m := d.cell.VM(); m != nil {
		return m.Rev
	}
	return 0
}

// QID has the VM's revision for a version, as all folders in it.
func (d *vmDir) QID() p9.QID { return dirQID(d.cell.ID(), d.rev()) }

// streamQID is the qid of a file in the VM's folder that changes without commits, or, where
// d is nil, of the one in the root.
func (d *vmDir) streamQID(slot, root uint64) p9.QID {
	if d == nil {
		return streamQID(root)
	}
	return streamQID(d.cell.ID() + slot)
}

func (d *vmDir) Stat(st *Stat) error {
	m, err := d.vm()
	if err != nil {
		return err
	}
	statVM(st, m, d.name)
	return nil
}

// statVM fills st for the folder of m.
func statVM(st *Stat, m *vm.VM, name string) {
	*st = Stat{QID: dirQID(m.ID, m.Rev), Mode: dirMode, Mtime: m.Mtime, Name: name}
}

// statSlot fills st for a folder in the VM's.
func (d *vmDir) statSlot(st *Stat, slot uint64, name string) error {
	m, err := d.vm()
	if err != nil {
		return err
	}
	*st = Stat{QID: dirQID(d.cell.ID()+slot, m.Rev), Mode: dirMode, Mtime: m.Mtime, Name: name}
	return nil
}

// Walk answers errs.NotFound for what is not a guest's, too.
func (d *vmDir) Walk(name string) (Node, error) {
	if _, err := d.vm(); err != nil {
		return nil, err
	}
	for i := range vmEntries {
		if e := &vmEntries[i]; e.name == name && d.shows(e.admin) {
			return e.node(d), nil
		}
	}
	for _, g := range d.v.tree.vmGrafts {
		if g.name == name && d.shows(g.admin) {
			return found(g.node(d.v, d.cell), name)
		}
	}
	return nil, errs.NotFound
}

// shows tells whether an entry is there for this View.
func (d *vmDir) shows(adminOnly bool) bool { return !adminOnly || d.v.who.Admin }

// List leaves out what a guest may not have, and what would make it hang.
func (d *vmDir) List(after uint64, fn func(uint64, *Stat) bool) error {
	if _, err := d.vm(); err != nil {
		return err
	}
	var l lister
	for i := range vmEntries {
		if e := &vmEntries[i]; d.shows(e.admin || e.blocks) {
			l.add(e.slot, e.name, e.node(d))
		}
	}
	for _, g := range d.v.tree.vmGrafts {
		if d.shows(g.admin) {
			l.addGraft(g.name, g.node(d.v, d.cell))
		}
	}
	return l.list(after, fn)
}
