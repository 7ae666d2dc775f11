// Package mdata speaks the Joyent metadata protocol, versions 1 and 2: the codec
// that both ends use (Lines, Frame, the version 1 forms), and the Client for a guest,
// over a unix socket or a serial line. The server is in the folder below, so that a
// program with a Client links no store.
//
// The protocol is a stream of lines. A version 1 request is a command and an
// argument; a version 2 frame is a line "V2 LENGTH CRC BODY" with a request id,
// a code and a base64 payload in its body. Neither side keeps state between requests.
//
// Nothing here starts a goroutine or takes a lock: a Lines and a Client belong to
// one goroutine at a time.
package mdata

import "encoding/base64"

// The commands, which in version 2 are codes of requests.
const (
	Negotiate = "NEGOTIATE" // version 1 only, with the argument V2
	V2        = "V2"        // version 1's view of a frame
	Get       = "GET"
	Keys      = "KEYS"
	Put       = "PUT"
	Delete    = "DELETE"
)

// The codes of replies. In version 1 each is a whole line, and there are two more.
const (
	Success  = "SUCCESS"
	NotFound = "NOTFOUND"
	Failure  = "FAILURE"

	V2OK    = "V2_OK"           // to NEGOTIATE V2
	Invalid = "invalid command" // to an empty line: the answer that resynchronises a serial line
)

// maxKey is the longest key that meta9 has, in bytes (fs/vm.MaxName).
const maxKey = 255

// frameOverhead is what a line has beside its payload: the header, a request id,
// a code and CR. A request id has 8 digits; this leaves room for odd ones.
const frameOverhead = 256

// MaxLine is the length in bytes of the longest request when values have at most value
// bytes: a PUT, whose value is base64 in base64.
func MaxLine(value int) int {
	enc := base64.StdEncoding.EncodedLen
	return enc(enc(maxKey)+1+enc(value)) + frameOverhead
}
