// Package libvirt is a client of libvirtd: it lists domains, asks for their states, and is
// told of events in their lives. It speaks libvirt's RPC (src/rpc/virnetprotocol.x and
// src/remote/remote_protocol.x in libvirt's source; the protocol has one version, and what
// is used of it has not changed since libvirt 1.0.6 of 2013) over a read-only socket. What
// becomes of the domains is the package server's, below, so that this one links no store.
//
// The server is believed no more than a QEMU is: a message has a bound, which is checked
// before there is memory for it, so has each list and text in it, an answer must be the one
// that is waited for, and whatever else comes ends the connection.
//
// A Client may be used by any number of goroutines, whose calls are made one after the
// other. One goroutine of its own reads. Its locks, calling before mu, are never held while
// OnEvent runs.
package libvirt

import (
	"errors"
	"fmt"
	"time"
)

// URI is what is opened: the QEMUs of the system.
const URI = "qemu:///system"

// Sockets are the usual places of the read-only socket: that of virtqemud, which serves
// QEMUs alone, where a host has it; else libvirtd's, or what stands in for it.
var Sockets = []string{"/run/libvirt/virtqemud-sock-ro", "/run/libvirt/libvirt-sock-ro"}

// Bounds of what a server may say.
const (
	// MaxDomains is REMOTE_DOMAIN_LIST_MAX: libvirt lists no more.
	MaxDomains = 16384
	// maxAnswer is for an answer, in bytes: names of 255 bytes, the longest that a file of a
	// domain's allows, for so many domains.
	maxAnswer = 8 << 20
	// maxEvent is for a message that is no answer.
	maxEvent = 64 << 10
	// maxText is for a name or an error's text.
	maxText = 4 << 10
)

// Messages that are no answers: so many at once, then so many a second are read. A server
// that has more to say waits.
const eventRate, eventBurst = 1000, 1 << 15

// Config is what Dial needs. Zero fields take the defaults.
type Config struct {
	// CallTime is how long an answer may take; 10 s.
	CallTime time.Duration
	// OnEvent is called for each event, in the order in which they come, maybe before Dial
	// returns. It must return soon and must not call the Client.
	OnEvent func(Event)
}

// Event is a change in a domain's life. By the time that it is read another may have
// followed: State says how the domain is.
type Event struct {
	UUID string // in its canonical form
	Kind int32  // virDomainEventType, of which this package's users need none
}

// Error is the answer to a call that failed (virErrorPtr).
type Error struct {
	Code int32  // virErrorNumber
	Text string // for people; at most maxText bytes, which may be any
}

// Error is the text, or the code where there is none.
func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("libvirt's error %d", e.Code)
	}
	return e.Text
}

// noDomain is VIR_ERR_NO_DOMAIN.
const noDomain = 42

// IsNoDomain tells whether err says that there is no such domain.
func IsNoDomain(err error) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.Code == noDomain
}

// Version is libvirt's, as 9000000 is 9.0.0.
type Version uint64

// String is the version as libvirt's own programs print it: 9.0.0.
func (v Version) String() string {
	return fmt.Sprintf("%d.%d.%d", v/1000000, v/1000%1000, v%1000)
}
