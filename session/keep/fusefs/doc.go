// Package fusefs is the other side of meta9 mount, for kernels that have no 9P: a FUSE
// file system whose requests are 9P2000.L's, made in this process and carried by a
// keep.Keeper as it carries v9fs's. So what happens to a request when a transport or a
// session is lost, which files are found again, and what gets ESTALE or EIO, is the
// Keeper's to say, and the same for both.
//
// # Names and files
//
// The kernel knows a file by a node, which is a name that was looked up, and the file
// (qid.path) that it led to. A node has no fid. What is done to a file that is not open
// walks there from the root, does it, and lets the fid go: one round trip more, but
// nothing has to be restored in a new session, and a kernel that remembers every name
// takes no fids. A walk that finds another file than the node's is good for reading,
// which is what 9P says of a fid that is not open (docs/tree.md); what alters a file, and an
// open for writing, gets ESTALE then, and the kernel looks the name up again. An open file is
// a fid of its own. One that was opened to read and is not the node's file (foreign) says
// nothing of the node, and nothing of it is kept.
//
// # What is kept
//
// Values, listings, names and attributes of keys are kept here, as long as the VM's events
// are followed and say nothing else (cache.go). The kernel keeps attributes, the names that a
// VM's folder always has, and for a moment those of keys; it is told to forget attributes,
// which never waits. Values are never in its page cache: there the length and the bytes of a value come by two
// requests, and a change between them would show half of a value; and the pages of a file
// are shared by those who opened it before a change and after. Files are open for direct
// I/O, so that a read is one request to this process, answered from one version.
//
// An answer is kept only if nothing has changed since the question was sent (mark, fresh):
// one that was under way when an event came, or when the events were opened, before which
// nobody tells of changes, is passed on and forgotten. All is dropped when a transport or
// events are lost, or the server is silent (events.go). What reads the mount's events file
// waits until what they tell of was dropped (awaitCache), and to open it drops all (tells). While
// a file is open for writing nothing of it is kept.
//
// Of a node: sure says that its name leads to it still, as far as events tell; known that attr
// is current; given that the kernel may have attributes of it, and is to be told; kept is its
// value or listing. Of the cache: wanted says that there is one, live that it may be used now;
// seq numbers all that makes an answer old; told is the revision up to which events were
// followed; losses counts how often all was dropped, and swept how many of these the kernel has
// been told of; pinned are the bytes that no eviction would free.
//
// A request by a name that the kernel has kept (nameUntil) is answered by where the name leads
// now, or with ESTALE (staleName). One request is not: a GetAttr while a file of the node is open
// or being opened (ambiguous). So an event of such a key is passed on, and a loss ends, only when
// the kernel no longer has the name, unless the server says that it still leads to the file
// (awaitNames, stillLeads, ambiguousUntil).
//
// # Concurrency
//
// The FUSE server calls FS's methods from many goroutines. FS.mu guards the nodes, the open
// files and what is kept, and is never held while anything is waited for; file.mu is taken
// by itself. With a cache there are three goroutines: one follows the events, one tells the
// kernel that all was dropped, one asks a quiet server for a sign of life.
package fusefs
