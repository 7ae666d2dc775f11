// Package client is the 9P client of the meta9 command and of Go programs: files
// by path, over a transport that may go and come back.
//
// A Client speaks 9P2000.e where the server does, and plain 9P2000 elsewhere. A
// read or a write by path is one Tsread or Tswrite; where the server has none, or
// the value does not fit a message, it is walk, open, read or write, and clunk.
//
// When the transport is lost the Client connects again, with backoff, and asks
// for its session by Tsession. Resumed: the fids are as they were. Not resumed:
// it attaches anew, and open Files find their file again by its path or fail with
// errs.Stale. A request that changes nothing is sent again by itself. One that
// changes something and was not answered is never sent again: it fails with
// ErrUnknown, which says that it may or may not have happened.
//
// Concurrency: a Client and its Files may be used by any number of goroutines. A
// Client has two goroutines of its own: one connects and then reads the replies,
// one writes the requests. A request waits for its reply in the caller's
// goroutine, at most 512 at a time. A context that ends flushes the request
// (Tflush); see ErrUnknown for what is then known of a change.
//
// Lock order: File.lock, Client.mu, link.mu, fids.mu; none of the last three is held
// while anything else is waited for.
//
// What a later numbered dialect (9P2000.e.n) needs has two places: greeting.begin
// offers versions, and link.fail decides what becomes of unanswered requests.
package client
