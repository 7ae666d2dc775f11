package store

import (
	"context"
	"time"
)

// Cluster is what the hosts of a fleet know of each other and of the owners of VMs, and
// the requests that they send each other. It stands beside Shared, which a Store uses: a
// host's engine is both.
//
// Any goroutine may call its methods. Each ends with its context. After an error of the
// kind IO or Busy, the call may or may not have been done; after any other error it was
// not done.
type Cluster interface {
	// Join makes this host alive for the time of ttl (rounded up to seconds), which Refresh
	// extends. It replaces an earlier record of the same Instance. Errors: Exists: another
	// Instance is this host, and alive; Moved: this Boot is fenced.
	Join(ctx context.Context, h HostInfo, ttl time.Duration) error
	// Refresh makes the host alive for the time of ttl from now on. NotFound: it is no
	// longer alive, and its requests are gone: Join again.
	Refresh(ctx context.Context) (ttl time.Duration, err error)
	// Tell replaces what this host has said of itself since Join. NotFound: it is not alive.
	Tell(ctx context.Context, h HostInfo) error
	// Leave ends what Join began.
	Leave(ctx context.Context) error
	// Hosts lists the hosts that are alive or fenced, by name.
	Hosts(ctx context.Context) ([]HostInfo, error)
	// Fence makes a host dead now, until another process is that host. NotFound: it is not
	// alive.
	Fence(ctx context.Context, host string) error

	// Owner returns the VM's owner. NotFound: no host has the VM.
	Owner(ctx context.Context, uuid string) (Owner, error)
	// Named returns the VM that has the alias, of any owner. NotFound: none has it.
	Named(ctx context.Context, alias string) (uuid string, err error)
	// Claim makes the VM this host's, if its owner is still from, and that host is not
	// alive; from then on that host's writes are refused. Then the VM must be fetched and
	// adopted. Busy: it has another owner, or the owner is alive.
	Claim(ctx context.Context, uuid string, from Owner) error

	// Started notes that this process serves its host's VMs from now on. What the processes
	// before it have kept of sessions is old then.
	Started(ctx context.Context) error

	// Mine lists the VMs of this host. A VM is true if no other host has had it since this engine
	// has given its records to a store, or has made it.
	Mine(ctx context.Context) (map[string]bool, error)

	// Ask sends the host of a request for a VM, unless there is one already; the request is
	// deleted when this host dies. answer is why the other host does not give the VM; "": it
	// has not answered.
	Ask(ctx context.Context, of, uuid string) (answer string, err error)
	// Unask deletes this host's request.
	Unask(ctx context.Context, of, uuid string) error
	// Asks lists the other hosts' requests to this one that it has not answered. A VM that is
	// given away takes the request for it along.
	Asks(ctx context.Context) ([]Ask, error)
	// Answer refuses a request, if it is still there.
	Answer(ctx context.Context, a Ask, text string) error

	// Residence returns what came with a VM of this host's (Gift.With), or nothing, and the
	// revision at which it came.
	Residence(ctx context.Context, uuid string) (with string, rev int64, err error)
	// Forget deletes that, if it still has this revision. Moved: the VM is another host's by
	// now, which restores it.
	Forget(ctx context.Context, uuid string, rev int64) error
	// Came lists the VMs of this host for which Residence has something.
	Came(ctx context.Context) ([]string, error)
	// Peek gives the records of a VM of any owner, as Shared.Fetch does. NotFound: no host
	// has it.
	Peek(ctx context.Context, uuid string, fn func(key, value []byte) error) error

	// Watch calls hint when a request to this host, one of this host's VMs, or any host
	// appears or disappears. Calls come from several goroutines. A hint can be late or
	// missing, so who waits for one must look by itself, too. came is called with each VM that
	// becomes this host's, unless this engine is making it: another host has given it, or this one
	// has claimed it. It must return soon; a call can be late or missing, as a hint. Watch returns
	// when ctx ends.
	Watch(ctx context.Context, hint func(), came func(uuid string))
}

// HostInfo is what a host says of itself.
type HostInfo struct {
	Host      string   `json:"-"`
	Addresses []string `json:"addresses,omitempty"` // of its admin's listeners
	Version   string   `json:"version,omitempty"`
	Instance  string   `json:"instance"` // stays the same over a restart; no two running processes have the same
	Boot      string   `json:"boot"`     // each process has its own
	Draining  bool     `json:"draining,omitempty"`
	Fenced    bool     `json:"-"` // it is dead, and this Boot may not join again
}

// Owner is a VM's owner, as it was at one moment.
type Owner struct {
	Host  string // "": nobody's
	Epoch uint64 // grows with every new owner, and every new process of an owner
	Mark  uint64 // Gift.Mark of the last hand-over
	Rev   int64  // the cluster's revision when that was written
}

// Ask is a request for a VM.
type Ask struct {
	UUID string
	By   string // the host
	Rev  int64  // the cluster's revision when it was made
}
