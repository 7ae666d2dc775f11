// Package fs is the tree of docs/tree.md: every VM a folder, every metadata key a
// file, seen by one Principal through a View. It knows no dialect and no wire.
//
// A View is what one connection (or one bridge's client) sees and has open. The View and
// everything reached from it (Ref, Handle) belong to one goroutine at a time: the caller's
// lock guards them. Only the caller's done and wake functions run elsewhere, in the store's
// committer, and must follow its rules: return soon, write to no peer. They must not touch
// the View; the caller takes its lock again, and calls Settle where that is said.
//
// Node and its capability interfaces are how the tree is made, and how others
// graft files onto it; Ref is how it is used.
//
// Locks, none of which is held while a done function or the store is called:
// openFile.renewing, then length.measuring and openTable.mu, each by itself; length.measuring,
// then lengths.mu; lines.mu, then unended.mu; and, each by itself, opens.mu, later.mu and
// View.mu. A read takes none of them unless a commit has made a value
// that nobody has read yet.
package fs

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
)

// Principal is who a channel proves its peer to be: the admin, one VM, or, as
// the zero Principal, nobody yet.
type Principal struct {
	Admin  bool
	VM     string // UUID; "" for the admin and for nobody
	Bridge string // a protocol that acts with the admin's rights, as "qmp"; "" elsewhere
}

// Nobody tells whether p is nobody.
func (p Principal) Nobody() bool { return p == Principal{} }

// String is "admin", "vm:" and the VM's UUID, the Bridge, or "nobody".
func (p Principal) String() string {
	switch {
	case p.Bridge != "":
		return p.Bridge
	case p.Admin:
		return "admin"
	case p.VM != "":
		return "vm:" + p.VM
	}
	return "nobody"
}

// Author is who makes a change, for muid and events. By is what the channel proved
// (Principal.String). As is the name that the client gives itself, "" for none: it may be
// anything, and must never be shown in place of By.
type Author struct{ By, As string }

// Flags say how a file is opened.
type Flags uint16

// The flags. Read, Write or both.
const (
	Read     Flags = 1 << iota
	Write          // writing is wanted
	Trunc          // truncate to 0, held (docs/tree.md, "Writing")
	AppendTo       // every write appends, at commit time
	NonBlock       // a read never waits: it gets ErrWait
	Excl           // Create: errs.Exists if the name is taken
)

// Stat is what there is to know of a file or folder.
type Stat struct {
	QID    p9.QID // Type is p9.TypeDir or p9.TypeRegular (0)
	Mode   uint16 // permission bits, 07777
	Length uint64 // bytes; 0 for folders, ctl, events and sessions
	Mtime  int64  // Unix nanoseconds
	Name   string // as in a folder: escaped
	Muid   string

	UID, GID uint32 // the owner that a mount shows (Look)
	OwnMode  bool   // Mode is this file's own, whatever a Look says: a key's after chmod
	Gone     bool   // it was removed or replaced: only its open Handles still see it
}

// IsDir tells whether it is a folder.
func (s *Stat) IsDir() bool { return s.QID.Type&p9.TypeDir != 0 }

// Change is what SetStat changes; nil fields stay as they are. All or nothing.
type Change struct {
	Length *uint64
	Mode   *uint16
	Mtime  *int64  // Unix nanoseconds
	Name   *string // rename within the folder, file name form
}

// Empty tells whether nothing is to change.
func (c *Change) Empty() bool {
	return c.Length == nil && c.Mode == nil && c.Mtime == nil && c.Name == nil
}

// Node is a file or folder as one View sees it. What else it can do it says by the
// capability interfaces below; for a capability that it lacks, Ref returns the right
// error.
//
// No method of a Node or a Handle waits. Changes call done at their end. A step that is no
// change and needs an answer from elsewhere returns a *Pending error.
type Node interface {
	QID() p9.QID
	// Stat fills st, and allocates nothing. errs.NotFound: it is gone.
	Stat(st *Stat) error
}

// Folder is a Node with entries.
type Folder interface {
	Node
	// Walk finds an entry by its file name. errs.NotFound: there is none.
	Walk(name string) (Node, error)
	// List calls fn for the entries whose cookie is greater than after, in the
	// order of their cookies (1 to 1<<63-1, kept for as long as the entry lives),
	// until fn returns false. st is only valid during the call.
	List(after uint64, fn func(cookie uint64, st *Stat) bool) error
}

// Opener is a file that can be opened.
type Opener interface {
	Open(f Flags) (Handle, error)
}

// Valuer is a file whose whole value can be had in one step, for macros and small reads.
type Valuer interface {
	// AppendValue appends the value to b; errs.TooBig when it is over max bytes,
	// and b is returned as it was.
	AppendValue(b []byte, max int) ([]byte, error)
}

// ValueFolder is a Folder that finds a file and its whole value in one step. Between
// a Walk and AppendValue the file could be replaced, and would seem to be missing.
type ValueFolder interface {
	// AppendFile is Walk to the name, then AppendValue.
	AppendFile(b []byte, name string, max int) ([]byte, error)
}

// Putter is a folder whose files can be created or replaced whole, by name.
type Putter interface {
	Put(name string, data []byte, by Author, done func(error))
}

// Writer is a file that takes a whole value in one step, for macros.
type Writer interface {
	PutValue(data []byte, by Author, done func(error))
}

// Creator is a folder in which files can be created. The node that done gets is
// the new file's; errs.Exists only with Excl.
type Creator interface {
	Create(name string, f Flags, by Author, done func(Node, error))
}

// Remover is a file that can be removed, also after a rename.
type Remover interface {
	Remove(by Author, done func(error))
}

// Unlinker is a folder that removes an entry by name.
type Unlinker interface {
	Unlink(name string, by Author, done func(error))
}

// Renamer is a folder in which an entry can get another name, replacing what has
// that name; to is the folder it goes to, which may be the same.
type Renamer interface {
	Rename(name string, to Node, newName string, by Author, done func(error))
}

// Setter is a file whose stat can be changed.
type Setter interface {
	SetStat(c Change, by Author, done func(error))
}

// Handle is an open file.
type Handle interface {
	// Read fills p from offset off and tells how many bytes; 0 is the end. It
	// takes no lock and allocates nothing where it need not wait. ErrWait: nothing
	// is there yet, and the Handle is a Waiter.
	Read(p []byte, off uint64) (int, error)
	// Write copies p before it returns. n bytes are durable when done is called
	// with a nil error; it may be called before Write returns.
	Write(p []byte, off uint64, by Author, done func(n int, err error))
	// Stat is the open file's, as this View sees it. errs.Gone: nothing is left of it.
	Stat(st *Stat) error
	// SetStat is Setter's, on the open file: a Length of 0 is held (Trunc).
	SetStat(c Change, by Author, done func(error))
	// Sync ends a held truncation by committing it (Tfsync, a Twstat that touches
	// nothing). Earlier writes of this Handle must have been answered.
	Sync(by Author, done func(error))
	// Clunk ends the Handle: a held truncation is committed, unless a write was
	// refused. Whatever done gets, the Handle is closed.
	Clunk(by Author, done func(error))
	// Drop ends the Handle without a clunk: a held truncation is forgotten.
	Drop()
	// State is what must be kept to Restore the Handle elsewhere.
	State() HandleState
}

// Sized is a Handle of a file with a value.
type Sized interface {
	// Size is how many bytes reads can return at most: the size of the value that is being
	// read, or of the newest one. Stat has only the newest one's.
	Size() uint64
}

// ErrWait is the error of a Read that has to wait: the caller registers with Wait.
const ErrWait = errs.Again

// Waiter is a Handle whose Read may have to wait.
type Waiter interface {
	// Wait calls wake once, from another goroutine, when Read at the same offset
	// would no longer wait. ready: it would not wait now, and wake is not called. After
	// either Read may still return ErrWait (the event is hidden from a guest).
	Wait(wake func()) (cancel func(), ready bool)
}

// NodeState names a place in the tree so that it can be found again: Path from
// the principal's root, in file names; and ID, the qid.path, which decides where
// names have changed meanwhile.
type NodeState struct {
	Path []string `json:"path"`
	ID   uint64   `json:"id"`
	Top  int      `json:"top,omitempty"` // how many names of Path lead to the attach's own place
	As   []byte   `json:"as,omitempty"`  // what the attach called itself: any bytes, as they came
	Look *Look    `json:"look,omitempty"`
}

// HandleState is an open file's state, to be stored.
type HandleState struct {
	Flags   Flags  `json:"flags"`
	Rev     uint64 `json:"rev,omitempty"`     // held truncation: the entry's revision then; Old's; events: the last one given
	Held    bool   `json:"held,omitempty"`    // a truncation is held
	Refused bool   `json:"refused,omitempty"` // a write was refused while it was held
	Offset  uint64 `json:"offset,omitempty"`  // events: the offset of Last
	Last    []byte `json:"last,omitempty"`    // events: the bytes last given; ctl, txn: the unfinished line; answers
	Rest    []byte `json:"rest,omitempty"`    // events: bytes of lines that are begun or made, not given yet
	Skips   bool   `json:"skips,omitempty"`   // ctl, txn: what is left of a line that was refused is skipped
	Old     []byte `json:"old,omitempty"`     // key: the value that is being read, if a newer one is there; at most MaxOld bytes
}

// MaxOld is how many bytes of old values a session's HandleStates have, together: enough for
// who reads a few keys in two or three messages, and little for a file of thousands of sessions.
const MaxOld = 64 << 10
