// Package redial is the client's half of a 9P connection that outlives its transport:
// it dials, greets the server, sends requests and reads replies, notices that the server
// is lost, and connects again. session/client and session/keep use it. They are its Owner,
// and decide what a reply means and how a lost session is made again.
//
// # The life of a transport
//
// New and Conn.Dial make the first transport, Conn.Run serves one after the other. A
// transport begins with a greeting (Talk), in which each message waits for its answer:
// Tversion; Tsession, which asks for the session; then
//
//   - where the server has the session, and both sides number its requests
//     (9P2000.L.e, 9P2000.e.n), Tresume asks what became of those without an answer.
//     What the server never saw is sent again under the same numbers, what it has
//     answered or will answer is answered on this transport (Window.applyStates). So
//     each request is executed exactly once, and its caller sees only a pause;
//   - where it has the session without numbers, the fids are as they were, and the Owner
//     decides about requests without an answer (Owner.Lost);
//   - elsewhere the session is lost. The Owner decides about the requests (Owner.Lost),
//     then attaches and restores its files (Owner.Begin, File).
//
// Then one goroutine writes what is queued and one reads replies, until the transport
// ends: the peer closed it, broke the protocol, left a frame half sent, read nothing, or
// did not answer for too long, not even a probe. The pause between two attempts to
// connect grows.
//
// # Concurrency
//
// A Conn has two goroutines while a transport is up: Run's, which connects and reads
// (the runner), and one that writes. Conn is a lock, which guards its Window and all
// that the Owner shares with the Owner's methods that are called with it held. It is
// never held during a wait. During the greeting only the runner uses the transport, and
// no request moves from Queued to Sent. A Talk belongs to one goroutine.
package redial
