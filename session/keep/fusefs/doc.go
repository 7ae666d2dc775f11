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
// which is what 9P says of a fid that is not open (docs/tree.md); what alters a file
// gets ESTALE then, and the kernel looks the name up again. An open file is a fid of its
// own.
//
// # What the kernel may keep
//
// Nothing: each stat, open and read asks the server. Files are opened for direct I/O, so
// that a read or write is one message as long as it fits.
//
// # Concurrency
//
// The FUSE server calls FS's methods from many goroutines. FS.mu guards the nodes and
// the open files, and is never held while anything is waited for.
package fusefs
