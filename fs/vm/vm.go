// Package vm is a VM as data: its properties in the order and the number text
// that they came with, its two spaces of metadata, who sees what of them, the
// edits that make a new VM of an old one, and the JSON of all of it. Beside it are
// rooms of their own: ordjson, the ordered JSON; payload, what a payload of vmadm's
// becomes; render, what is derived for guests (sdc: and nocloud).
//
// A *VM and all that hangs from it is immutable once Edit.VM has returned it:
// any number of goroutines may read it without a lock. An Edit belongs to one
// goroutine.
package vm

import "meta9/fs/vm/ordjson"

// Space is one of the two spaces of metadata.
type Space uint8

// The spaces, by the folder that shows them.
const (
	Keys     Space = iota // customer_metadata
	Internal              // internal_metadata
	NumSpaces
)

// Member is the name of the property that holds the space in a VM's JSON.
func (s Space) Member() string {
	if s == Internal {
		return "internal_metadata"
	}
	return "customer_metadata"
}

// String is the folder's name: "keys" or "internal".
func (s Space) String() string {
	if s == Internal {
		return "internal"
	}
	return "keys"
}

// Kind is the JSON kind of a metadata value. A write by file or protocol makes
// it Text again.
type Kind uint8

// The kinds of a value; a number keeps its text.
const (
	Text Kind = iota
	Number
	Bool
)

// Entry is one metadata key. It is never changed: a write makes a new Entry with
// the same ID.
type Entry struct {
	ID    uint64 // qid.path; grows with creation, never reused
	Rev   uint64 // the revision of the commit that made this Entry; never 0
	Mtime int64  // Unix nanoseconds
	Mode  uint16 // permission bits, 0600 at first
	Kind  Kind
	Name  string // the key, decoded
	Value string // the bytes, or the JSON text of a number or boolean
	Muid  string // the principal that wrote it last; from an older meta9d: what it called itself
}

// Version is the qid.version of a revision: its low 32 bits, but never 0, which
// stands for a file that changes without commits.
func Version(rev uint64) uint32 {
	if v := uint32(rev); v != 0 {
		return v
	}
	return 1
}

// VM is one VM at one revision.
type VM struct {
	UUID  string // lower case, 36 characters
	ID    uint64 // the first of the IDsPerVM qid paths that belong to it
	Rev   uint64 // the revision of the last commit that changed anything in it
	Mtime int64  // of that commit, Unix nanoseconds

	// Props are the members of the payload in their order. The members
	// customer_metadata and internal_metadata stand there with a null value, as
	// placeholders: their entries are in the spaces.
	Props ordjson.Members

	spaces [NumSpaces]space
	bytes  int64
}

// IDsPerVM is how many qid paths a VM takes for its fixed files and folders.
const IDsPerVM = 16

// space holds the entries of one space twice: sorted by name to find one, and
// by ID, which is the order of creation and of listing.
type space struct {
	names, ids pieces
	count      int
}

// Stamp is the time, the author and the source of new numbers for one commit. NextID(n)
// reserves n IDs in a row and returns the first; NextRev returns a revision. Neither gives a
// number twice.
type Stamp struct {
	Now     int64  // Unix nanoseconds
	By      string // the principal: goes into muid
	NextID  func(n uint64) uint64
	NextRev func() uint64
}

// Limits bound one VM. Zero means no limit.
type Limits struct {
	Value int   // bytes of one value
	Keys  int   // entries of both spaces together
	Bytes int64 // names and values of both spaces together
}

// DefaultLimits are those of docs/tree.md: 1 MiB a value, 4,096 keys and 16 MiB a VM.
var DefaultLimits = Limits{Value: 1 << 20, Keys: 4096, Bytes: 16 << 20}

// Change is one thing that an edit did; the store makes an event of each.
type Change struct {
	Type  ChangeType
	Rev   uint64
	Space Space  // KeySet, KeyRemoved
	Key   string // KeySet, KeyRemoved
}

// ChangeType is the type of an event that a commit makes.
type ChangeType uint8

// The changes, by the name of their event.
const (
	Created    ChangeType = iota // vm-created
	Changed                      // vm-changed: properties, not metadata
	Deleted                      // vm-deleted
	KeySet                       // key-set
	KeyRemoved                   // key-removed
	Arrived                      // vm-arrived: from another host
	Left                         // vm-left: for another host
)
