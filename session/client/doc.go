// Package client is the 9P client of the meta9 command and of Go programs: files
// by path, over a transport that may go and come back.
//
// A Client speaks 9P2000.e.n, meta9d's own, or what the server has of 9P2000.e and
// plain 9P2000. A read by path is one Tsread; a write is one Tswrite where the server
// is known to replace the whole value by it, that is in 9P2000.e.n. Elsewhere, or where
// the value does not fit a message, it is walk, open (or create), read or write, and
// clunk.
//
// When the transport is lost the Client connects again, with backoff, and greets the
// server anew (session/greet), asking for its session by Tsession.
//
//   - In 9P2000.e.n, where both sides number the requests of a session, the server
//     says what became of those without an answer (Tresume). What it never saw is
//     sent again, what it has answered or is about to answer is answered on the new
//     transport, and so each is executed exactly once: who waits sees a pause, and
//     a reader of events neither loses nor repeats one.
//   - In 9P2000.e the fids are as they were. A request that changes nothing is sent
//     again by itself. One that changes something and was not answered is never
//     sent again: it fails with ErrUnknown, which says that it may or may not have
//     happened.
//   - Where the session is gone (it expired, meta9d was killed, plain 9P2000) the
//     Client attaches anew, requests end as in 9P2000.e, and open Files find their
//     file again by its path or fail with errs.Stale.
//
// A change also ends with ErrUnknown when its context ends, or Options.Patience, and
// the server has it and has not said what became of it. It is flushed then (Tflush),
// and if it turns out that the server never saw it, it is not sent any more.
//
// Concurrency: a Client and its Files may be used by any number of goroutines. A
// Client has two goroutines of its own: one connects and then reads the replies,
// one writes the requests. A request waits for its reply in the caller's
// goroutine, at most 256 at a time; others wait for one of these to end.
//
// Lock order: File.lock, Client.mu, link.mu, fids.mu; none of the last three is held
// while anything else is waited for. While a transport is greeted nobody else uses
// it, nor changes which requests were sent.
package client
