// Package keep is the keeper behind meta9 mount: it stands between a 9P client
// that cannot lose its transport (Linux's v9fs, which ends a whole mount then) and
// a server whose transport comes and goes (session/redial says how).
//
// The client's end stays open while the server is away; requests wait. Where the server
// resumes the session, each request is executed exactly once (9P2000.L.e, 9P2000.e.n), and
// the client sees only a pause. Where the session is lost (it expired, or meta9d was
// killed), the keeper makes a new one and restores the fids in it: it attaches, walks and
// opens again, without truncation or creation, and only where the file is the same by its
// qid.path. A fid that cannot be restored answers ESTALE from then on, and a change that
// may or may not have happened answers EIO.
//
// The client is at a socket (Serve), as v9fs is, or in this process (Calls), as
// session/keep/fusefs is. To the Keeper both are a client that speaks 9P: what it
// promises, it promises once.
//
// # Concurrency
//
// Serve has three goroutines: one takes requests from the client, and the redial.Conn has
// two. With Calls each request is entered by its caller. Keeper.conn guards all that they
// share: the requests and what is known of fids. It is never held during a wait. Replies
// and the keeper's own answers are written to the client under Keeper.answering, which is
// taken last, but for Calls.mu.
package keep
