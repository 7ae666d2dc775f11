package store

import (
	"slices"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Imported says what Import has made of one VM.
type Imported struct {
	UUID, Alias string
	NewIDs      bool  // its files have other qid paths than they had: another VM of the fleet may have these
	Err         error // Exists: a VM of the fleet has the UUID or the alias, and this one was left out; NoSpace
}

// What one Apply of Import has at most.
const (
	importVMs   = 64
	importBytes = 4 << 20
)

// Import makes the VMs of an engine, which it only reads, VMs of a fleet: those of the
// host whose engine to is. It must not have a store yet. The first import of a fleet
// that has given out no IDs keeps those that the files have; any other gives new ones,
// since each host alone begins to count where the others did. report is told of each VM, in
// the order of their UUIDs. The error is of what keeps all from going on, such as
// damage; what was reported until then is done, and importing once more goes on.
func Import(to Shared, from Engine, report func(Imported)) error {
	var all []*vm.VM
	var next uint64 // past the greatest ID
	var damage []Damage
	l := loader{engine: from, onVM: func(v *vm.VM) { all = append(all, v) }, report: func(d Damage) { damage = append(damage, d) }}
	if err := l.load(); err != nil {
		return errs.New(errs.IO, "loading: %v", err)
	}
	if len(damage) > 0 {
		return errs.New(errs.IO, "damaged data: %s (%d damaged in all), so nothing was imported", damage[0], len(damage))
	}
	for _, v := range all {
		next = max(next, v.ID+vm.IDsPerVM)
		for sp := range vm.NumSpaces {
			for e := range v.Entries(sp) {
				next = max(next, e.ID+1)
			}
		}
	}
	im := importer{to: to, report: report}
	here := loader{engine: to, whole: true, onVM: func(*vm.VM) {}, report: func(Damage) {}}
	if err := here.load(); err != nil {
		return errs.New(errs.IO, "loading what the host has in the fleet: %v", err)
	}
	im.numbers = afterLoad(&here)
	im.numbers.share(to)
	im.numbers.batch = to.Number("")
	keep, err := to.Keep(next)
	if err != nil {
		return err
	}
	im.numbers.next.rev = max(im.numbers.next.rev, l.seen.rev)
	for _, v := range all {
		if !keep {
			if v, err = im.anew(v); err != nil {
				return err
			}
		}
		if err := im.add(v, !keep); err != nil {
			return err
		}
	}
	return im.flush()
}

// importer gathers groups for an Apply.
type importer struct {
	to      Shared
	numbers numbers
	report  func(Imported)
	marked  bool
	groups  []Group
	told    []Imported
	bytes   int64
}

// anew is the VM with IDs of the fleet's.
func (im *importer) anew(v *vm.VM) (*vm.VM, error) {
	if err := im.numbers.stock(uint64(vm.IDsPerVM + v.Count())); err != nil {
		return nil, err
	}
	id := im.numbers.id(vm.IDsPerVM)
	var entries [vm.NumSpaces][]*vm.Entry
	for sp := range vm.NumSpaces {
		for e := range v.Entries(sp) {
			other := *e
			other.ID = im.numbers.id(1)
			entries[sp] = append(entries[sp], &other)
		}
	}
	return vm.Restore(v.UUID, id, v.Rev, v.Mtime, v.AppendRecord(nil), entries)
}

func (im *importer) add(v *vm.VM, newIDs bool) error {
	if len(im.groups) >= importVMs || im.bytes+v.Bytes() > importBytes {
		if err := im.flush(); err != nil {
			return err
		}
	}
	var b batch
	b.appendAll(v)
	im.groups = append(im.groups, Group{VM: v.UUID, New: true, Ops: b.ops, Takes: v.Link()})
	im.told = append(im.told, Imported{UUID: v.UUID, Alias: v.Alias(), NewIDs: newIDs})
	im.bytes += v.Bytes()
	return nil
}

func (im *importer) flush() error {
	if len(im.groups) == 0 {
		return nil
	}
	if !im.marked { // no revision of these VMs comes again here
		if op, is := im.numbers.reserve(); is {
			im.groups = slices.Insert(im.groups, 0, Group{Ops: []Op{op}})
			im.told = slices.Insert(im.told, 0, Imported{})
		}
		im.marked = true
	}
	number := im.numbers.group()
	for i := range im.groups {
		im.groups[i].Number = number
	}
	failed := im.to.Apply(im.groups)
	for i := range im.groups {
		told := im.told[i]
		if failed != nil {
			told.Err = failed[i]
		}
		switch {
		case told.Err != nil && (!bearable(told.Err) || told.UUID == ""):
			return told.Err
		case told.UUID != "":
			im.report(told)
		}
	}
	im.groups, im.told, im.bytes = nil, nil, 0
	return nil
}
