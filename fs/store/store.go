// Package store keeps the VMs: one Cell a VM (an atomic pointer to its immutable
// row), an index of their names (go-memdb and B-trees, which share what is the same),
// the revisions, the event rings, and the committer, one goroutine that makes engine
// transactions of waiting intents.
//
// Order of a commit: durable in the engine, index and cells, event rings and
// recorders, acknowledge (Intent.Done), wake (observers, then ring waiters). Reads
// take no lock: Cell.VM is one atomic load.
//
// Intents wait in lines: a VM has one for its guest and one for the host, in a fleet a
// third one (lineOf). VMs take turns (turns): a batch has a share of each line that
// waits, so that a VM that submits more than its share waits longer itself and nobody
// else does.
//
// Lock order: the queue, then Store.publish, then a Cell's holds, then a Ring. Done, recorders,
// observers and wake functions run in the committer's goroutine with no lock held;
// they must return soon, must not write to a peer, and may call Submit.
package store

import (
	"slices"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs/vm"
)

// Op is one change of an engine's transaction: the key gets Value followed by
// Tail, or is deleted where Value is nil. Tail is the text that the store keeps
// anyhow, so that a large value is not copied to become an Op.
type Op struct {
	Key   []byte
	Value []byte
	Tail  string
}

// Group is what a batch changes of one VM, or of the store's own records.
type Group struct {
	VM     string // UUID; "": the store's own, which is the first group if there is one
	New    bool   // the VM is not there before
	Gone   bool   // nor after: Ops delete all of it
	Gift   *Gift  // of a Shared: the VM is given away with it; nil: it stays
	Takes  string // of a Shared: an alias that no VM of the fleet has, and that the VM has from then on
	Frees  string // of a Shared: the alias that the VM has no longer
	Number uint64 // of the batch; greater than that of any Apply before, also of one that failed
	Ops    []Op

	// Rewrote is set by Apply of a Shared: so many bytes it has written beside those of Ops.
	Rewrote int
}

// Engine keeps keys and values durably, in the order of the keys' bytes. The
// store calls Scan before the first Apply, and Apply from one goroutine.
type Engine interface {
	// Scan calls fn for every key in order; the slices live as long as the call.
	// An error of fn ends it and is returned.
	Scan(fn func(key, value []byte) error) error
	// Apply makes the ops of each group durable, one after the other, or none of
	// them, and the group's Number with them. nil: all groups are durable. Else there
	// is an error for each, in their order, which is nil for one that is durable; no
	// VM's group is durable unless the store's own group is, where there is one.
	// errs.NoSpace: there was no room, and nothing of the group changed, as with an error
	// that Unchanged marks; any other is final, since what is on the disk is no longer
	// known. An engine that has one transaction for all groups has one error for all.
	// Groups and ops are the engine's until it returns, and no longer; the bytes of a Tail
	// never change.
	Apply(groups []Group) []error
	// Number is the Number of the newest group of that VM that is durable, 0 if none
	// is. An engine that has one transaction for all groups has one number for all.
	Number(vm string) uint64
	Close() error
}

// Looker is an Engine that can lose what it writes to without a failed write. The
// store calls Look from the goroutine of Apply, every Config.LookEvery, so that the
// loss shows also while nothing is written; Apply looks for itself. An error is
// final.
type Looker interface {
	Look() error
}

// AllFailed is what an Apply returns that has one error for all groups.
func AllFailed(groups []Group, err error) []error {
	return slices.Repeat([]error{err}, len(groups))
}

// Config is what a Store is told. Zero fields take the defaults.
type Config struct {
	Limits     vm.Limits        // of each VM; vm.DefaultLimits
	TotalBytes int64            // names and values of all VMs together; 0: no limit
	Reserve    Reserve          // what only intents that are no guest's may take beyond these; nothing
	BatchBytes int64            // of one VM in one batch; 1 MiB
	VMEvents   int              // events that a VM's ring keeps; 256
	RootEvents int              // events that the root's ring keeps; 8192
	FirstRev   uint64           // revisions handed out are no less, so that those of stores that are gone never come again
	Salvage    bool             // skip damaged records instead of failing
	LookEvery  time.Duration    // how often a Looker looks; 2 s
	Patience   time.Duration    // of a Shared: how long an intent waits for a cluster that does not answer; 10 s
	WriteRate  int64            // of a Shared: bytes a second that one VM's guest writes in the long run; 1 MiB; below 0: no bound
	ReadOnly   string           // why only intents of the mirror change VMs; "": all may
	Now        func() time.Time // time.Now
	Log        zerolog.Logger
	Journal    Journal // nil: none
}

// Journal is told of each batch before it is made durable, so that who starts after a
// kill knows what was under way. The committer calls it.
type Journal interface {
	// Begun: a batch with these events is about to be made durable, under that number; 0:
	// it only tells events. The one before it is published, or has failed.
	Begun(number uint64, events []Event)
	// Failed: nothing of the batch is durable, or with vms nothing that it changes of
	// these, and nobody was told so yet.
	Failed(number uint64, vms []string)
}

// Reserve is what a guest cannot take from those who run the host, so that a VM that
// is full of its guest's keys can still be told something.
type Reserve struct {
	Keys  int   // of each VM
	Bytes int64 // of each VM
	Total int64 // bytes of all VMs together
}

// OpKind says what an Intent asks for.
type OpKind uint8

// The kinds of intents. "The key" is the entry that ID names where ID is not 0,
// else the one that Name names. An ID whose entry is no longer there gives
// errs.Gone; a Name, errs.NotFound.
const (
	Splice    OpKind = iota // Data at Off of the key; a gap is filled with zeros
	Append                  // Data at the key's end
	Put                     // create or replace the key Name with Data
	Create                  // create the key Name, empty; errs.Exists if Exclusive, else the entry that is there
	Set                     // Length, Mode, Mtime and NewName of the key, those that are given; all or nothing
	Remove                  // the key
	FlushHold               // apply Hold if it still holds; no change otherwise
	CreateVM                // Data is the payload (payload.Create, or Keep: Exact)
	UpdateVM                // Data is the patch (payload.Update)
	DeleteVM                //
	ReplaceVM               // Data is the whole VM (payload.Replace)
	Txn                     // what the Transaction asks for, or nothing of it
	Adopt                   // Arrival, of a Shared engine, becomes a VM of this store
	Yield                   // Gift: the VM is another host's from now on
	Note                    // only an event: Event's Type, Key

	dropHold  // Hold.Drop
	look      // Looker.Look
	elsewhere // the VM is another host's already
)

// Intent is one change that somebody wants. A guest's Intents of one Cell are computed in
// the order of Submit, and so are the host's; each on the value that the batch has so far. The store owns an
// Intent from Submit to Done.
type Intent struct {
	Kind      OpKind
	Space     vm.Space
	Exclusive bool
	Guest     bool  // check vm.GuestMayWrite of every name at commit time
	Mirror    bool  // of the mirror, which alone changes a store that is ReadOnly
	Exact     bool  // CreateVM: the VM is Data as it is (payload.Keep), as a Mirror's always is
	Cell      *Cell // the VM; nil for CreateVM and for a Note of the root's
	ID        uint64
	Name      string
	NewName   string // Set: rename, replacing what is there
	Off       uint64
	Data      string
	Length    *uint64
	Mode      *uint16
	Mtime     *int64     // Unix nanoseconds
	About     []vm.About // CreateVM, ReplaceVM: what the keys are beside their values
	By        string     // the principal: muid and the event's "by"
	As        string     // the event's "as"
	Hold      *Hold      // FlushHold
	Event     EventType
	Txn       *Transaction
	Arrival   *Arrival // Adopt
	Gift      *Gift    // Yield

	// Receipt, where there is a Journal, is called from the committer before the batch of
	// that number is made durable, if the intent is not refused: so that, if the batch is
	// found to be durable after a kill, the Result can be told. nil: nobody asks.
	Receipt func(number uint64, r Result)

	// Done is called once, from the committer, or in its place while it waits for a fleet's
	// cluster, or, for an intent that is refused at once (the store is closed or failed), from
	// Submit. nil: nobody asks.
	Done func(Result)

	seq  uint64  // its place in the order of Submit; orders it against the Holds
	next *Intent // the one that waits behind it
}

// Result is what became of an Intent.
type Result struct {
	Err   error     // nil: durable
	Entry *vm.Entry // the key as it is now (nil after Remove)
	Cell  *Cell     // CreateVM, Adopt: the new VM's
	N     int       // Splice, Append: bytes written
}

// Committed tells recorders and observers of one VM's change, in commit order: that
// of the last of its Changes, whose Rev is greater than all that was told before.
type Committed struct {
	Cell    *Cell
	Before  *vm.VM // nil: created, or arrived
	After   *vm.VM // nil: deleted, or left
	Changes []vm.Change
	By      string
}
