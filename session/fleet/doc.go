// Package fleet has this host be one of several over one store.Cluster: each VM has one
// owner among them, and moves, with its sessions, to where its guest is.
//
// # The lease
//
// A host lives as long as its lease (Member). Who asks whether a host is dead asks the
// cluster, in the transaction that takes its VM away. Who asks himself whether he lives
// (Member.Sure) counts from when he sent the last refresh that was answered, by a clock that
// goes on while the machine sleeps, and is sure for one second less than the cluster. What
// a host does to a VM needs no lease: the cluster refuses the changes of who is no longer
// the owner. Without one its answers may be old, it claims nothing, and says so.
//
// # How a VM moves
//
//	the host that wants it (claim.go)      its owner (give.go)
//	asks, if the owner lives               hypervisor says that it runs here: answers no
//	                                       ends its connections, takes its sessions
//	                                       one transaction: new owner, sessions, revision
//	finds that it is the owner             has it no more, and keeps its sockets
//	reads and adopts it, keeps others out
//	restores the sessions
//	deletes what came, and its request
//	serves it
//
// What came with the VM is deleted, durably, before anybody is served: so no session is
// restored twice, or as it was before. A host that dies before leaves it to who
// comes next, also to itself (Start). Where the owner is dead, or it is nobody's, the first
// two steps are one: the VM is claimed, if its owner is still the same and does not live.
//
// A request stays until it was done, was refused, or its host is dead. Every step may be
// repeated, and what waits looks once a second by itself, beside the cluster's hints.
//
// # Concurrency
//
// A Fleet has one goroutine that looks at requests, one for each claim, and one for each
// VM that is given away; all are bounded, and Stop awaits them. Fleet.mu guards the tables and
// is never held over a call of the cluster's, the store's or the server's. Member has one
// goroutine; what it tells is atomic.
package fleet
