// Package client is the 9P client of the meta9 command and of Go programs: files
// by path, over a transport that may go and come back.
//
// A Client speaks 9P2000.e.n, meta9d's own dialect, or else 9P2000.e or plain 9P2000. A
// read by path is one Tsread. A write is one Tswrite in 9P2000.e.n, where that replaces the
// whole value. Elsewhere, or for a value that does not fit a message, it is walk, open (or
// create), read or write, and clunk.
//
// When the transport is lost (session/redial says when, and how it comes back) the
// Client asks for its session again.
//
//   - In 9P2000.e.n each request is executed exactly once: its caller sees only a pause,
//     and a reader of events neither loses nor repeats one.
//   - In 9P2000.e the fids are as they were. A request that changes nothing is sent
//     again by itself. One that changes something and was not answered is never
//     sent again: it fails with ErrUnknown, which says that it may or may not have
//     happened.
//   - Where the session is gone (it expired, meta9d was killed, plain 9P2000) the
//     Client attaches again, requests end as in 9P2000.e, and open Files are opened again
//     by their paths or fail with errs.Stale.
//
// A change also ends with ErrUnknown when its context or Options.Patience ends before the
// server has answered. It is flushed then (Tflush); if the server never got it, it is not
// sent again.
//
// Concurrency: a Client and its Files may be used by any number of goroutines. A
// Client has the two goroutines of its redial.Conn. A request waits for its reply in
// the caller's goroutine, at most 255 at a time; others wait for one of these to end.
//
// Lock order: File.lock, Client.conn (which guards the Client, its session and the
// calls), fids.mu; none of the last two is held while anything else is waited for.
package client
