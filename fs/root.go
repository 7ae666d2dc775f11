package fs

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// dirMode is the permission bits of every folder.
const dirMode = 0o755

// rootDir is the admin's root.
type rootDir struct {
	v     *View
	vms   vmsDir
	names namesDir
}

// newRootDir makes the root with its two folders in one piece, so that a walk
// through them allocates nothing.
func newRootDir(v *View) *rootDir {
	return &rootDir{v, vmsDir{rootFolder{v, pathVMs, "vms"}}, namesDir{rootFolder{v, pathNames, "names"}}}
}

// rootEntries are what stands in it beside the grafts; the cookie is the path.
var rootEntries = [...]struct {
	path uint64
	name string
	node func(d *rootDir) Node
}{
	{pathCtl, "ctl", func(d *rootDir) Node { return &ctlFile{v: d.v} }},
	{pathEvents, "events", func(d *rootDir) Node { return &eventsFile{v: d.v} }},
	{pathVMs, "vms", func(d *rootDir) Node { return &d.vms }},
	{pathNames, "names", func(d *rootDir) Node { return &d.names }},
}

// QID changes with every commit, since it is not worth knowing which of them
// changed the root's own entries.
func (d *rootDir) QID() p9.QID { return dirQID(pathRoot, d.v.tree.store.Rev()) }

func (d *rootDir) Stat(st *Stat) error {
	d.v.tree.statRoot(st, pathRoot, "/")
	return nil
}

func (d *rootDir) Walk(name string) (Node, error) {
	for _, e := range rootEntries {
		if e.name == name {
			return e.node(d), nil
		}
	}
	for _, g := range d.v.tree.rootGrafts {
		if g.name == name {
			return found(g.node(d.v.who, d.v), name)
		}
	}
	return nil, errs.NotFound
}

func (d *rootDir) List(after uint64, fn func(uint64, *Stat) bool) error {
	var l lister
	for _, e := range rootEntries {
		l.add(e.path, e.name, e.node(d))
	}
	for _, g := range d.v.tree.rootGrafts {
		l.addGraft(g.name, g.node(d.v.who, d.v))
	}
	return l.list(after, fn)
}

// statRoot fills st for a folder that changes with the commits of any VM.
func (t *Tree) statRoot(st *Stat, path uint64, name string) {
	*st = Stat{QID: dirQID(path, t.store.Rev()), Mode: dirMode, Mtime: t.mtime.Load(), Name: name}
}

// rootFolder is what vms/ and names/ have in common.
type rootFolder struct {
	v    *View
	path uint64
	name string
}

func (d *rootFolder) QID() p9.QID { return dirQID(d.path, d.v.tree.store.Rev()) }

func (d *rootFolder) Stat(st *Stat) error {
	d.v.tree.statRoot(st, d.path, d.name)
	return nil
}

// list lists the VMs that have a name here, by their IDs.
func (d *rootFolder) list(after uint64, fn func(uint64, *Stat) bool, name func(*vm.VM) string) {
	var st Stat
	d.v.tree.store.Cells(after, func(c *store.Cell) bool {
		m := c.VM()
		if m == nil || name(m) == "" {
			return true // deleted since, or not listed here
		}
		statVM(&st, m, name(m))
		show(&st, m.Perm())
		return fn(c.ID(), &st)
	})
}

// vmsDir is vms/.
type vmsDir struct{ rootFolder }

// Walk takes the UUID in lower case only: one file has one name.
func (d *vmsDir) Walk(name string) (Node, error) {
	if vm.ValidUUID(name) != nil {
		return nil, errs.NotFound // not the canonical spelling
	}
	cell := d.v.tree.store.Cell(name)
	if cell == nil {
		return nil, errs.NotFound
	}
	return newVMDir(d.v, cell, cell.UUID()), nil
}

func (d *vmsDir) List(after uint64, fn func(uint64, *Stat) bool) error {
	d.list(after, fn, func(m *vm.VM) string { return m.UUID })
	return nil
}

// namesDir is names/: the same folders as in vms/, by alias. An alias may be
// whatever a key may be called (package vm), and is spelled as one.
type namesDir struct{ rootFolder }

// Walk leads to the very folder that vms/ has: qids and all, but for its name.
func (d *namesDir) Walk(name string) (Node, error) {
	alias, err := vm.KeyName(name)
	if err != nil {
		return nil, errs.NotFound
	}
	cell := d.v.tree.store.Alias(alias)
	if cell == nil {
		return nil, errs.NotFound
	}
	return newVMDir(d.v, cell, name), nil
}

func (d *namesDir) List(after uint64, fn func(uint64, *Stat) bool) error {
	d.list(after, fn, func(m *vm.VM) string {
		alias := m.Alias()
		if alias != "" && m.Link() == "" { // it leads here while it leads nowhere else
			if c := d.v.tree.store.Alias(alias); c == nil || c.ID() != m.ID {
				return ""
			}
		}
		return vm.FileName(alias)
	})
	return nil
}
