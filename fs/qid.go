package fs

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/vm"
)

// Where a qid.path comes from, so that every object has one of its own that
// means nothing else, ever:
//
//	1..15                 the admin's root and what stands in it
//	Cell.ID()+slot        a VM's folder and what stands in it (vm.IDsPerVM slots)
//	Entry.ID              a key
//	1<<62 | 62 bits       a derived file: the first bits of a SHA-256 over the
//	                      VM's ID, the folder and the name
//
// A derived file has no record that could keep a number for it, so its path is
// computed: the same after a restart, and another one for a VM that is created
// anew, since that has another ID. With 2^62 values and even a million derived
// files the chance that two meet is below 1 in 9 million.
const (
	pathRoot = 1 + iota
	pathCtl
	pathEvents
	pathVMs
	pathNames
)

// The slots of a VM's block of qid paths. They are in no file, but a client's
// cache may know them: never change one.
const (
	slotDir = iota
	slotKeys
	slotInternal
	slotSdc
	slotNoCloud
	slotQMP
	slotJSON
	slotCtl
	slotEvents
	slotTxn
)

// SlotQMP is the slot of the folder qmp/ in a VM's block of qid paths: its path
// is Cell.ID() plus this.
const SlotQMP = slotQMP

// DerivedPath is the qid.path of a file that is computed, by the ID of its VM (0
// for none), its folder and its name.
func DerivedPath(vmID uint64, folder, name string) uint64 {
	buf := make([]byte, 0, 8+32+vm.MaxName)
	buf = binary.LittleEndian.AppendUint64(buf, vmID)
	buf = append(buf, folder...)
	buf = append(buf, 0)
	buf = append(buf, name...)
	sum := sha256.Sum256(buf)
	return 1<<62 | binary.BigEndian.Uint64(sum[:])>>2
}

// dirQID and fileQID are the qids of what changes with the commits of one VM, or
// of any for the root. Version 0 is kept for files that change without.
func dirQID(path, rev uint64) p9.QID {
	return p9.QID{Type: p9.TypeDir, Version: vm.Version(rev), Path: path}
}

func fileQID(path, rev uint64) p9.QID {
	return p9.QID{Version: vm.Version(rev), Path: path}
}

// streamQID is the qid of a file that changes without commits.
func streamQID(path uint64) p9.QID { return p9.QID{Path: path} }

// KeyQID is the qid of a key.
func KeyQID(e *vm.Entry) p9.QID { return fileQID(e.ID, e.Rev) }
