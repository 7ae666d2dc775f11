package store

import (
	"context"
	"time"
)

// Cluster is what the hosts of a fleet know of each other and of their VMs' owners, and the
// requests that they leave for each other. It is beside Shared, which a Store uses: a
// host's engine is both.
//
// Any goroutine may call its methods. Each ends with its context. After an error of the
// kind IO or Busy, what was asked for may or may not have been done; after any other it was
// not.
type Cluster interface {
	// Join makes this host one that lives, for that long (rounded up to seconds), unless
	// Refresh makes it longer. An earlier record of the same Instance is replaced. Errors:
	// Exists: another instance is this host, and lives; Moved: this Boot is fenced.
	Join(ctx context.Context, h HostInfo, ttl time.Duration) error
	// Refresh makes the host live for so long from now on. NotFound: it no longer does,
	// and what it has asked for is gone: Join again.
	Refresh(ctx context.Context) (ttl time.Duration, err error)
	// Leave ends what Join began.
	Leave(ctx context.Context) error
	// Hosts are those that live or are fenced, by name.
	Hosts(ctx context.Context) ([]HostInfo, error)
	// Fence ends a host's life now, until another process is that host. NotFound: it does
	// not live.
	Fence(ctx context.Context, host string) error

	// Owner says whose the VM is. NotFound: no host has it.
	Owner(ctx context.Context, uuid string) (Owner, error)
	// Claim makes the VM this host's, if its owner is still from, and that host does not
	// live; what that one still writes is refused from then on. The VM is to be fetched and
	// adopted then. Busy: it has another owner, or the owner lives.
	Claim(ctx context.Context, uuid string, from Owner) error

	// Mine are the VMs of this host.
	Mine(ctx context.Context) ([]string, error)

	// Ask asks a host for a VM, unless somebody has; the request lives as long as this
	// host does. answer is what the other said, if it does not give the VM away.
	Ask(ctx context.Context, of, uuid string) (answer string, err error)
	// Unask takes this host's request back.
	Unask(ctx context.Context, of, uuid string) error
	// Asks are what other hosts ask of this one, without those that were answered.
	Asks(ctx context.Context) ([]Ask, error)
	// Answer refuses a request that is still there.
	Answer(ctx context.Context, a Ask, text string) error

	// Residence is what came with a VM of this host's (Gift.With), or nothing, and when.
	Residence(ctx context.Context, uuid string) (with string, rev int64, err error)
	// Forget deletes it, if it is of that time still.
	Forget(ctx context.Context, uuid string, rev int64) error
	// Came are the VMs of this host that have something that came with them.
	Came(ctx context.Context) ([]string, error)
	// Peek gives the records of a VM, whosever it is, as Shared.Fetch does. NotFound: no
	// host has it.
	Peek(ctx context.Context, uuid string, fn func(key, value []byte) error) error

	// Watch calls hint when a request to this host, one of this host's VMs, or any host
	// appears or disappears. Calls come from several goroutines. A hint can be late or
	// missing, so who waits for one must look by itself, too. Watch returns when ctx ends.
	Watch(ctx context.Context, hint func())
}

// HostInfo is what a host says of itself.
type HostInfo struct {
	Host      string   `json:"-"`
	Addresses []string `json:"addresses,omitempty"` // of its admin's listeners
	Version   string   `json:"version,omitempty"`
	Instance  string   `json:"instance"` // no two processes that run at one time have one; a restart keeps it
	Boot      string   `json:"boot"`     // each process has its own
	Fenced    bool     `json:"-"`        // it does not live, and this Boot may not
}

// Owner says whose a VM is, as it was at one moment.
type Owner struct {
	Host  string // "": nobody's
	Epoch uint64 // grows with every owner, and every process of one
	Mark  uint64 // Gift.Mark of the last hand-over
	Rev   int64  // of the cluster, when that was written
}

// Ask is a request for a VM.
type Ask struct {
	UUID string
	By   string // the host
	Rev  int64  // of the cluster, when it was made
}
