// Package session serves 9P: one loop for every dialect, its dispatch table,
// fids, tags, flush and limits, session keys, and the parking and resuming of
// sessions.
//
// # Concurrency
//
// A conn is a transport and what travels on it; a session is what its client has
// there: dialect, principal, key, fids and the fs.View they live in. A session
// belongs to one conn at a time, or is parked and belongs to the Server's table.
//
// Each conn has one goroutine, the loop, which reads. conn.mu is a monitor: it
// guards the conn's state and its session's. The loop takes it once for each
// burst of input, handles every whole frame there is, and gives it back before
// it reads or writes. So a request that need not wait costs no goroutine, no
// lock of its own and no allocation.
//
// A request that waits is a request in conn.waiting. Whoever ends it (the
// store's committer, a timer) only appends it to conn.done, under a lock that is
// held for a few instructions, and starts a short goroutine if nobody is about
// to look there. That goroutine, or the loop, then takes the monitor, settles
// the View, writes the replies into the output buffer and sends it. One
// goroutine at a time writes to the transport, without the monitor; the others
// leave their replies in the buffer and go on. So the committer never waits for
// a connection, nor a connection for a slow peer of another.
//
// # Lock order
//
// conn.mu, then Server.mu, then the locks of fs and its store; conn.done.mu is
// taken last and alone. No two monitors are ever held together: a session that
// changes hands is quiet (nothing of it waits) and goes through the Server's
// table. sessions/ is read with some conn's monitor held, so it shows only what
// Server.mu guards and what is atomic.
package session
