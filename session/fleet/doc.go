// Package fleet makes this host one of several hosts over one store.Cluster. Each VM is
// owned by one host, and moves, with its sessions, to the host where its guest runs.
//
// # The lease
//
// A host is alive as long as it has its lease (Member). Whether another host is dead, only
// the cluster decides, in the transaction that takes the VM from it. Whether this host is
// alive (Member.Sure), it decides itself: it counts from the moment when it sent the last
// refresh that was answered, by a clock that goes on while the machine sleeps, and it
// stops being sure one second before the cluster ends the lease. Changes of a VM need no
// lease: the cluster refuses them when another host owns the VM. A host without a lease
// goes on serving reads, which may be old (Fresh), and claims nothing.
//
// # How a VM moves
//
//	the host that wants it (claim.go)      its owner (give.go)
//	asks, if the owner lives               hypervisor says that it runs here: answers no
//	                                       ends its connections, takes its sessions
//	                                       one transaction: new owner, sessions, revision,
//	                                       without the request
//	finds that it is the owner             has it no more, and keeps its sockets
//	reads and adopts it, keeps others out
//	restores the sessions
//	deletes what came, and its request
//	serves it
//
// The sessions that came with the VM are deleted from the cluster, durably, before anybody
// is served. So no session is restored twice, or in an old state. If the host dies before
// that, the next owner finds them, which may be the same host (Restore). If the owner is
// dead, or nobody owns the VM, the first two steps are one: a transaction claims the VM if
// its owner is still the same and not alive.
//
// An owner may also give a VM to a host that has not asked for it (Release). That host claims the VM
// as soon as the cluster tells it (comes), or when it looks for what it owns and does not serve
// (serveOwned).
//
// A request stays until it was done, was refused, or its host is dead. Every step may be
// repeated. Everything that waits checks once a second, and at each hint from the cluster.
//
// # Concurrency
//
// A Fleet has one goroutine that looks for requests, one that looks for VMs that this host owns
// and does not serve, one that watches the cluster for hints, one that watches the lease, one
// for each claim, and one for each VM that is given away; all are bounded, and Stop waits for
// them. It does not wait for those that call Config.Drop, one for each VM that has left. Member
// has one goroutine; its answers are atomic values. Member.mu guards what this host says of itself,
// and is held over nothing.
//
// Fleet.mu guards the tables. While it is held the cluster and the server are not called,
// and of the store only Cell, Count and RefuseNew, which take no lock. Fleet.leaseMu, which is taken
// before it, orders the events of the lease.
package fleet
