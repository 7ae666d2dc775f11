// Package qmp is the QEMU Machine Protocol (QEMU's docs/interop/qmp-spec.txt):
// its codec, which reads a stream of JSON values and writes strict ASCII, and a
// client for the monitors of QEMUs and for meta9d's own. The server is in the
// package server below, and what becomes of the QEMUs that are found in hosts; so
// a client links no store.
//
// A Decoder belongs to one goroutine. A Client may be used by any number: one
// goroutine of its own reads what comes in and hands each answer to the call that
// waits for it. Its locks, sending before mu, are never held while a caller's
// function runs.
package qmp

import "encoding/json"

// MaxDepth is how deep arrays and objects may be nested, as in QEMU
// (qobject/json-streamer.c, MAX_NESTING).
const MaxDepth = 1024

// The classes of errors that this package's users make or look for. QEMU has
// more of them, for commands of its own.
const (
	GenericError    = "GenericError"
	CommandNotFound = "CommandNotFound"
)

// Capabilities is the command that ends the negotiation.
const Capabilities = "qmp_capabilities"

// OOB is the capability by which commands may be executed out of band: exec-oob
// in place of execute, and answers in another order than that of the commands.
const OOB = "oob"

// Error is the answer to a command that failed.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"` // for people
}

// Error is the class, a colon and the description.
func (e *Error) Error() string { return e.Class + ": " + e.Desc }

// Greeting is what a server says first.
type Greeting struct {
	Version      json.RawMessage `json:"version"` // as query-version returns it
	Capabilities []string        `json:"capabilities"`
}

// Stamp is the time of an event, since the Unix epoch; -1 and -1: unknown.
type Stamp struct {
	Seconds      int64 `json:"seconds"`
	Microseconds int64 `json:"microseconds"`
}

// Event is what a server tells unasked.
type Event struct {
	Name      string          `json:"event"`
	Data      json.RawMessage `json:"data,omitempty"` // an object; nil: there is none
	Timestamp Stamp           `json:"timestamp"`
}

// Command asks a server for something.
type Command struct {
	Name      string
	Arguments any // what json.Marshal makes an object of; nil: none
}
