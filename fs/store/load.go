package store

import (
	"errors"
	"fmt"
	"slices"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Damage is one thing that is wrong with what an engine holds.
type Damage struct {
	VM   string // UUID; "" for what belongs to no VM
	Key  string // "keys/NAME" or "internal/NAME"; "" for the VM's own record
	What string
}

// String is the damage as a line for the log: the VM and the key, and what is wrong.
func (d Damage) String() string {
	switch {
	case d.VM == "":
		return d.What
	case d.Key == "":
		return fmt.Sprintf("VM %s: %s", d.VM, d.What)
	}
	return fmt.Sprintf("VM %s, %s: %s", d.VM, d.Key, d.What)
}

// loader makes VMs of the records of an engine, which come in the order of their
// keys: the marks, then of each VM its record and its entries.
type loader struct {
	engine interface {
		Scan(fn func(key, value []byte) error) error
	}
	whole  bool // of a Shared engine: a VM of which anything is damaged is none
	onVM   func(*vm.VM)
	report func(Damage)
	shared func(cid nameKey, one, other string) // whole: two VMs have one CID, as each had it at another host; nil: nobody asks

	seen    marks               // one past the greatest numbers in use
	marks   *marks              // the record of them
	skipped map[string][][]byte // by uuid, the keys of the records that no VM was made of
	texts   map[string]string   // one copy of the strings that many entries share
	names   map[nameKey]string  // the VM that has the name

	raw     string // the uuid of the VM under way, as in its keys
	uuid    string
	vm      *vmRecord
	rev     uint64 // of the newest record
	date    int64
	entries [vm.NumSpaces][]*vm.Entry
	damaged bool // one of its records is
}

// maxTexts bounds what a loader remembers to share.
const maxTexts = 1 << 16

// load runs through the whole engine; after an error, what came before it is made use of.
func (l *loader) load() error {
	l.skipped = make(map[string][][]byte)
	l.texts = make(map[string]string)
	l.names = make(map[nameKey]string)
	err := l.engine.Scan(func(key, value []byte) error {
		l.record(key, value)
		return nil
	})
	l.finish()
	if err == nil && !l.whole {
		l.checkMarks() // a fleet's numbers are other hosts' as well
	}
	return err
}

// maxKey is the longest key that record.go makes.
const maxKey = 1 + uuidSize + 1 + 255

func (l *loader) record(key, value []byte) {
	switch {
	case len(key) > maxKey:
		l.report(Damage{What: fmt.Sprintf("a key of %d bytes, which begins with %q", len(key), key[:maxKey])})
	case string(key) == string(marksKey()):
		l.readMarks(key, value)
	case len(key) >= 1+uuidSize+1 && key[0] == prefixVM:
		if raw := key[1 : 1+uuidSize]; string(raw) != l.raw {
			l.finish()
			l.raw, l.uuid = string(raw), uuidText(raw)
		}
		l.part(key, value)
	default:
		l.report(Damage{What: fmt.Sprintf("the key %q is none of meta9's", key)})
	}
}

func (l *loader) readMarks(key, value []byte) {
	m, err := readMarks(key, value)
	if err != nil {
		l.report(Damage{What: "the high-water marks: " + errs.Detail(err)})
		return
	}
	l.marks = &m
}

// part takes in a record of the VM under way.
func (l *loader) part(key, value []byte) {
	tag, name := key[1+uuidSize], key[1+uuidSize+1:]
	var where string
	var err error
	switch {
	case tag == tagVM && len(name) == 0:
		err = l.takeVM(key, value)
	case tag >= tagSpace && tag < tagSpace+byte(vm.NumSpaces):
		sp := vm.Space(tag - tagSpace)
		where = sp.String() + "/" + string(name)
		err = l.readEntry(sp, key, value)
	default:
		err = errs.New(errs.IO, "the key %q is none of meta9's", key)
	}
	if err != nil {
		l.damaged = true
		l.skip(key)
		l.report(Damage{VM: l.uuid, Key: where, What: errs.Detail(err)})
	}
}

func (l *loader) skip(key []byte) {
	l.skipped[l.uuid] = append(l.skipped[l.uuid], slices.Clone(key))
}

func (l *loader) takeVM(key, value []byte) error {
	r, err := readVM(key, value)
	if err != nil {
		return err
	}
	r.props = slices.Clone(r.props)
	l.vm = &r
	l.stamp(r.rev, r.date)
	l.seen.id = max(l.seen.id, r.id+vm.IDsPerVM)
	return nil
}

func (l *loader) readEntry(sp vm.Space, key, value []byte) error {
	r, err := readEntry(key, value, l.text)
	if err != nil {
		return err
	}
	e := r.entry
	e.Name = l.text(key[1+uuidSize+1:])
	if err := vm.ValidKey(e.Name); err != nil {
		return err
	}
	if len(e.Value) > maxValue {
		return errs.New(errs.TooLarge, "the value has %d bytes", len(e.Value))
	}
	l.entries[sp] = append(l.entries[sp], &e)
	l.stamp(e.Rev, r.date)
	l.seen.id = max(l.seen.id, e.ID+1)
	return nil
}

// stamp finds the newest record of the VM.
func (l *loader) stamp(rev uint64, date int64) {
	if rev >= l.rev {
		l.rev, l.date = rev, date
	}
	l.seen.rev = max(l.seen.rev, rev+1)
}

// text is a string that may be shared with other entries: names and users are
// few, and alike in every VM.
func (l *loader) text(b []byte) string {
	if s, ok := l.texts[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(l.texts) < maxTexts {
		l.texts[s] = s
	}
	return s
}

// finish makes a VM of what has come since the last one.
func (l *loader) finish() {
	if l.raw == "" {
		return
	}
	v, err := l.restore()
	if err == nil {
		err = l.takeNames(v)
	}
	switch {
	case err != nil:
		l.skipVM(err)
	case !l.whole || !l.damaged: // else it is told already
		l.onVM(v)
	}
	l.raw, l.uuid, l.vm, l.rev, l.date, l.damaged = "", "", nil, 0, 0, false
	for sp := range l.entries {
		clear(l.entries[sp])
		l.entries[sp] = l.entries[sp][:0]
	}
}

var errNoVM = errors.New("belongs to no VM")

func (l *loader) restore() (*vm.VM, error) {
	if l.vm == nil {
		return nil, errNoVM
	}
	var entries [vm.NumSpaces][]*vm.Entry
	for sp := range entries {
		entries[sp] = append(make([]*vm.Entry, 0, len(l.entries[sp])), l.entries[sp]...)
	}
	v, err := vm.Restore(l.uuid, l.vm.id, l.rev, l.date, l.vm.props, entries)
	if err == nil && v.Text(vm.PropUUID) != l.uuid {
		return nil, errs.New(errs.IO, "the uuid in the properties is %q", v.Text(vm.PropUUID))
	}
	return v, err
}

// skipVM reports a VM that cannot be made, and each of its entries.
func (l *loader) skipVM(err error) {
	if l.vm != nil {
		l.skip(appendKey(nil, l.uuid, tagVM, ""))
		l.report(Damage{VM: l.uuid, What: errs.Detail(err)})
	}
	for sp := range vm.NumSpaces {
		for _, e := range l.entries[sp] {
			l.skip(appendKey(nil, l.uuid, tagSpace+byte(sp), e.Name))
			l.report(Damage{VM: l.uuid, Key: sp.String() + "/" + e.Name, What: errNoVM.Error()})
		}
	}
}

// takeNames notes the VM's unique names; one that another VM has is an error, but for a CID at a
// fleet's host.
func (l *loader) takeNames(v *vm.VM) error {
	for _, f := range uniqueFields {
		name := f.name(v)
		other, ok := l.names[name]
		switch {
		case !ok:
		case l.whole && name.field == nameCID:
			if l.shared != nil {
				l.shared(name, other, v.UUID)
			}
		default:
			return errs.New(errs.IO, "%s: %q is VM %s's already", f.field, name.text, other)
		}
	}
	for _, f := range uniqueFields {
		if name := f.name(v); name != (nameKey{}) {
			l.names[name] = v.UUID
		}
	}
	return nil
}

// checkMarks reports numbers that were never handed out.
func (l *loader) checkMarks() {
	switch {
	case l.seen == marks{}:
	case l.marks == nil:
		l.report(Damage{What: "the high-water marks are not there"})
	case l.seen.rev > l.marks.rev || l.seen.id > l.marks.id:
		l.report(Damage{What: fmt.Sprintf("revision %d or id %d is past the high-water marks %d and %d",
			l.seen.rev-1, l.seen.id-1, l.marks.rev, l.marks.id)})
	}
}
