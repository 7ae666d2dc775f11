// Package session serves 9P: one loop for every dialect, its dispatch table,
// fids, tags, flush and limits, session keys, and the parking and resuming of
// sessions.
//
// # Concurrency
//
// A conn is a transport and what travels on it; a session is what its client has
// there: dialect, principal, key, fids and the fs.View they live in; in a numbered
// dialect also how many requests came, and replies that may be lost. A session
// belongs to one conn at a time, or is parked and belongs to the Server's table.
//
// Each conn has one goroutine, the loop, which reads. conn.mu is a monitor: it
// guards the conn's state and its session's. The loop takes it once for each
// burst of input, handles every whole frame there is, and gives it back before
// it reads or writes. So a request that need not wait costs no goroutine, no
// lock of its own and no allocation. A conn on which nothing has come for some seconds
// has no loop: it sleeps, and the Server's poller begins the loop anew (sleep.go).
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
// A session changes hands through the Server's table, which its old conn gives it
// to and its new conn takes it from. Its old conn first cancels what blocks and
// awaits the changes that were begun, so that nothing of it waits. In a numbered
// dialect it does not: what waits goes along with the session, as carried, and the
// next conn adopts it once its client has asked what became of it (Tresume). Until
// then nobody uses the session: what ends meanwhile is only appended to the list
// of done requests, which goes along too and has nobody who looks at it.
//
// # Memory
//
// What connections and sessions hold is taken from their VM's account (fs/budget)
// before it is made: the scratch that is borrowed while there is input, a large frame
// and what its request may keep of it (input), output buffers (output), what waits
// (waits), fids and kept replies (session); each has a bill, with which it is given
// back. Where the account has too little, a large frame waits in awaitRoom, a reply in
// awaitRoomFor, and the loop in awaitRelief until its own replies and changes have gone.
//
// # Lock order
//
// conn.mu, then Server.mu, then the locks of fs and its store, or lockTable.mu; with
// doneList.mu, misses.mu, poller.mu and rarelog's held nothing more is taken. The monitors of
// two connections are never held together. A session that ends with changes under
// way gets a conn of its own to await them, which has no transport and which nobody
// else knows: its monitor may be taken with another's held. sessions/ is read with
// some conn's monitor held, so it shows only what Server.mu guards and what is
// atomic. GiveBack and sweep have Server.mu and only try for a monitor.
package session
