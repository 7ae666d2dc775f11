package store

import (
	"cmp"

	"meta9/fs/vm"
)

// Cell is the VM with that uuid (lower case), or nil.
func (s *Store) Cell(uuid string) *Cell { return s.named(nameKey{nameUUID, uuid}) }

// Alias is the VM that is found by that alias, or nil: the one that has the link, else
// one that has the alias without it.
func (s *Store) Alias(alias string) *Cell {
	x := s.index.Load()
	if c := x.lookup(nameKey{nameAlias, alias}); c != nil {
		return c
	}
	return x.lookup(nameKey{nameHint, alias})
}

// ByCID is the VM with that vsock_cid, or nil.
func (s *Store) ByCID(cid uint32) *Cell { return s.named(cidKey(cid)) }

func (s *Store) named(key nameKey) *Cell { return s.index.Load().lookup(key) }

// Cells calls fn for the VMs with an ID greater than after, in the order of their
// IDs, which is that of creation, until fn returns false. The set is that of one
// moment; a Cell in it may have been deleted since.
func (s *Store) Cells(after uint64, fn func(*Cell) bool) {
	if after+1 != 0 {
		s.index.Load().cells(after+1, fn)
	}
}

// Snapshot calls fn with all VMs as they are after one commit, by ID, and the
// revision of it: the events up to rev are in the rows, those after are not. A VM that is
// being given away is among them until the event that says so.
func (s *Store) Snapshot(fn func(rows []*vm.VM, rev uint64)) {
	all := make([]*vm.VM, 0, s.Count())
	s.publish.RLock()
	s.index.Load().cells(0, func(c *Cell) bool {
		if v := cmp.Or(c.VM(), c.given); v != nil {
			all = append(all, v)
		}
		return true
	})
	rev := s.Rev()
	s.publish.RUnlock()
	fn(all, rev)
}

// Count is how many VMs there are.
func (s *Store) Count() int { return int(s.count.Load()) }

// Bytes is the size of all names and values of all VMs, which Config.TotalBytes
// bounds.
func (s *Store) Bytes() int64 { return s.bytes.Load() }

// Rev is the revision of the newest event that was told, or a greater one that
// was skipped by a restart.
func (s *Store) Rev() uint64 { return s.rev.Load() }

// Limits are those of each VM.
func (s *Store) Limits() vm.Limits { return s.cfg.Limits }

// Ring is the root's: the events of all VMs.
func (s *Store) Ring() *Ring { return s.ring }
