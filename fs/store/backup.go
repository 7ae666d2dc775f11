package store

import (
	"errors"
	"io"
	"slices"
	"strings"

	"meta9/fs/backup"
	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Backup writes all VMs, as they are after one commit, as a backup: its records are those
// of engines. What was acknowledged before the call is in it. Commits go on meanwhile; the
// rows that it has still to write stay in memory until then.
func (s *Store) Backup(w io.Writer) error {
	var rows []*vm.VM
	var rev uint64
	s.Snapshot(func(all []*vm.VM, at uint64) { rows, rev = all, at })
	slices.SortFunc(rows, func(a, b *vm.VM) int { return strings.Compare(a.UUID, b.UUID) })
	out := backup.NewWriter(w)
	high := marks{rev: rev, id: FirstID}
	for _, v := range rows {
		high.rev, high.id = max(high.rev, v.Rev+1), max(high.id, v.ID+vm.IDsPerVM)
		for sp := range vm.NumSpaces {
			for e := range v.Entries(vm.Space(sp)) {
				high.rev, high.id = max(high.rev, e.Rev+1), max(high.id, e.ID+1)
			}
		}
	}
	// An object that is gone may have had any id: none of them comes again.
	high.id += lostMarks
	out.Record(marksKey(), high.value(), "")
	for _, v := range rows {
		writeVM(out, v)
		if err := out.Err(); err != nil {
			return err
		}
	}
	return out.Close()
}

// writeVM writes the records of one VM, in the order of their keys.
func writeVM(out *backup.Writer, v *vm.VM) {
	b := new(batch)
	b.putVM(v)
	for sp := range vm.NumSpaces {
		entries := slices.Collect(v.Entries(vm.Space(sp)))
		slices.SortFunc(entries, func(x, y *vm.Entry) int { return strings.Compare(x.Name, y.Name) })
		for _, e := range entries {
			b.putEntry(v.UUID, e.Mtime, vm.Space(sp), e)
		}
	}
	for _, op := range b.ops {
		out.Record(op.Key, op.Value, op.Tail)
	}
}

// fileEngine is a backup as an engine that is read alone.
type fileEngine struct {
	memory
	file io.ReadSeeker
}

// Scan gives the records of the backup; it is read from its beginning.
func (f fileEngine) Scan(fn func(key, value []byte) error) error {
	if _, err := f.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := backup.Read(f.file, fn)
	return err
}

// CheckBackup reads a backup twice, first for whether it is whole and unaltered, then as
// Check does. An error says why it is of no use.
func CheckBackup(file io.ReadSeeker) (Stats, error) {
	e := fileEngine{file: file}
	if err := e.Scan(nil); err != nil {
		return Stats{}, err
	}
	var first string
	st, err := Check(e, func(d Damage) {
		if first == "" {
			first = d.String()
		}
	})
	if err == nil && st.Damaged > 0 {
		err = errs.New(errs.IO, "%d damaged: %s", st.Damaged, first)
	}
	return st, err
}

// restoreBytes is how much of a backup becomes one transaction.
const restoreBytes = 4 << 20

// Restore writes the records of a backup that CheckBackup has found good into an engine
// that has none.
func Restore(e Engine, file io.ReadSeeker) error {
	empty := true
	if err := e.Scan(func(_, _ []byte) error { empty = false; return nil }); err != nil {
		return err
	}
	if !empty {
		return errs.New(errs.Exists, "there is data already")
	}
	number := e.Number("")
	var ops []Op
	size := 0
	apply := func() error {
		if len(ops) == 0 {
			return nil
		}
		number++
		err := errors.Join(e.Apply([]Group{{Number: number, Ops: ops}})...)
		ops, size = nil, 0
		return err
	}
	err := fileEngine{file: file}.Scan(func(key, value []byte) error {
		ops = append(ops, Op{Key: slices.Clone(key), Value: slices.Clone(value)})
		if size += len(key) + len(value); size < restoreBytes {
			return nil
		}
		return apply()
	})
	if err != nil {
		return err
	}
	return apply()
}
