// Package redial is the client's half of a 9P connection that outlives its transport:
// it dials, greets the server, sends requests and takes replies, notices that a server
// is lost, and comes back. session/client and session/keep stand on it. They are its
// Owner, and say what a request is, what a reply means, and how a lost session is made
// anew.
//
// # The life of a transport
//
// New and Conn.Dial make the first transport, Conn.Run carries one after the other. A
// transport begins with a greeting (Talk), in which each message waits for its answer:
// Tversion; Tsession, which asks for the session; then
//
//   - where the server has the session, and both sides number its requests
//     (9P2000.L.e, 9P2000.e.n), Tresume asks what became of those without an answer.
//     What the server never saw is sent again under the same numbers, what it has
//     answered or will answer is answered on this transport (Window.Resumed). So each
//     request is executed exactly once, and who waits for it sees a pause;
//   - where it has the session and nobody counts, the fids are as they were, and what
//     had no answer is the Owner's to judge (Owner.Lost);
//   - elsewhere the session is lost. The Owner judges the requests (Owner.Lost), then
//     attaches, and restores its files (Owner.Begin, File).
//
// Then one goroutine writes what is queued and one reads replies, until the transport
// ends: the peer closed it, broke the protocol, left a frame half sent, took nothing, or
// did not answer for too long, not even a probe. Between two tries to connect is
// a pause that grows.
//
// # Concurrency
//
// A Conn has two goroutines while a transport is up: Run's, which connects and reads
// (the runner), and one that writes. Conn is a lock, which guards its Window and all
// that the Owner shares with the Owner's methods that are called with it held. It is
// never held while anything is waited for. While a transport is greeted nobody else
// uses it, and which requests were sent does not change. A Talk belongs to one
// goroutine.
package redial
