// Package listen makes the channels on which 9P comes in, and proves who is at
// the other end of each: unix sockets (the admin's; one a VM), tcp, tls, vsock,
// and unix sockets of a hypervisor that are dialled. Every connection is handed
// over with its fs.Principal; what is said on it is not this package's business.
//
// A Listener has one goroutine that accepts, one that looks after the file of a unix
// socket (heal.go), and one for each connection: first it proves the peer, then it is the
// Handler's. VMs has one goroutine that makes and removes sockets and looks after the
// devices, and one for each device that is connected. What waits for a peer is bounded in
// time (ProveTime) and in number (MaxProving).
//
// Locks: VMs.mu guards what is to be looked at, proving.mu who is being proved, served.mu
// what was handed over, socket.mu what it listens on, rarelog a time; none is held while
// another is taken, nor over a system call.
package listen

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/vm"
	"meta9/rarelog"
)

// Handler serves one connection and closes it. who is the principal that the channel
// proves. via is the listener's text ("tcp:127.0.0.1:5640"). addr is the peer's address
// without its port on tcp and tls, "" elsewhere. The Handler runs in a goroutine of its
// own, and calls ended when the connection has ended; it may return before that. To end a
// connection that has a descriptor the Listener calls shutdown(2), so that only the
// Handler closes it; bytes that the peer has sent before that may still be read.
type Handler func(c net.Conn, who fs.Principal, via, addr string, ended func())

// Config configures listeners.
type Config struct {
	Handle   Handler
	Insecure bool        // tcp may be bound to a principal (Addr.As)
	VMPerm   Perm        // of a unix socket that is bound to a VM
	Admins   int         // the group whose members are the admin on unix sockets, too; 0: none
	TLS      *tls.Config // for tls:, as LoadTLS makes it; nil: none is configured
	Admin    string      // the name in the admin's certificate; "": no certificate is the admin's
	Denied   *Denied     // certificates that prove nobody; nil: none
	VM       func(uuid string) *vm.VM
	ByCID    func(cid uint32) *vm.VM
	Log      zerolog.Logger

	Inherited *Inherited // sockets that are open already; nil: none
	Tally     *Tally     // of its connections; nil: none
}

// Listen opens the channel that a names and accepts from it until Close. The
// error names the listener and what is wrong.
func (cfg Config) Listen(a Addr) (*Listener, error) {
	nl, err := cfg.open(a)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", a, err)
	}
	return cfg.Serve(nl, a), nil
}

// open makes the socket of a, or says why it may not be.
func (cfg Config) open(a Addr) (net.Listener, error) {
	switch a.Net {
	case Unix:
		s, err := cfg.Inherited.unix(place{path: a.Path}, a.String(), cfg.perm(a))
		if err != nil {
			return nil, err // a nil *socket would be a listener
		}
		return s, nil
	case TLS:
		if cfg.TLS == nil {
			return nil, fmt.Errorf("no certificate is configured; tls needs cert, key and ca")
		}
		nl, err := cfg.tcp(a)
		if err != nil {
			return nil, err
		}
		return tlsListener{tls.NewListener(nl, cfg.TLS), nl}, nil
	case Vsock:
		if nl, _ := cfg.Inherited.take(a); nl != nil {
			return nl, nil
		}
		return listenVsock(a.Port)
	}
	if err := a.Usable(cfg.Insecure); err != nil {
		return nil, err
	}
	return cfg.tcp(a)
}

// Usable says, before anything is opened, why an address cannot be listened on: tcp that is
// bound to a principal where that is not said to be meant, or a path that is too long.
func (a Addr) Usable(insecure bool) error {
	switch {
	case a.Net == TCP && !a.As.Nobody() && !insecure:
		return fmt.Errorf("tcp proves nobody, and QEMU's user networking lets guests reach the host's loopback: whoever connects would be %s; if that is meant, say --insecure", a.As)
	case a.Net == Unix:
		return shortEnough(a.Path)
	}
	return nil
}

// tcp is the listener of a tcp or tls address.
func (cfg Config) tcp(a Addr) (net.Listener, error) {
	if nl, _ := cfg.Inherited.take(a); nl != nil {
		return nl, nil
	}
	nl, err := net.Listen("tcp", a.Host)
	return nl, reason(err)
}

// tlsListener is a listener, and the one that has the descriptor.
type tlsListener struct {
	net.Listener
	under net.Listener
}

// Serve accepts from nl, which is what open would have made of a: the way in for
// tests and for sockets that somebody else has opened. Closing the Listener
// closes nl.
func (cfg Config) Serve(nl net.Listener, a Addr) *Listener {
	asked := a.String()
	if a.Net == TCP || a.Net == TLS {
		a.Host = nl.Addr().String() // port 0 has become a real one
	}
	l := start(&Listener{
		nl: nl, asked: asked, via: a.String(), admins: a.Net == Unix && a.As.VM == "" || a.As.Admin,
		prove: cfg.prover(a), again: cfg.again(a), handle: cfg.Handle, rare: &rarelog.Log{Log: cfg.Log}, served: served{tally: cfg.Tally},
	})
	l.adopt(cfg.Inherited)
	if s, ok := nl.(*socket); ok && !s.foreign {
		l.running.Add(1)
		go l.watch(s, cfg.Log)
	}
	return l
}

// again returns how the listener a checks once more who a connected peer is; nil: its
// proof stays valid.
func (cfg Config) again(a Addr) func(c net.Conn) (fs.Principal, error) {
	switch a.Net {
	case TLS:
		return func(c net.Conn) (fs.Principal, error) { return cfg.identify(c.(*tls.Conn)) }
	case Vsock:
		return func(c net.Conn) (fs.Principal, error) { return cfg.proveVsock(context.Background(), c) }
	}
	return nil
}

// prover returns how the listener a finds out who a peer is.
func (cfg Config) prover(a Addr) prover {
	switch a.Net {
	case Unix:
		if a.As.VM == "" {
			return cfg.proveAdmin
		}
	case TLS:
		return cfg.proveTLS
	case Vsock:
		return cfg.proveVsock
	}
	return always(a.As)
}

// perm says who may open the file of the unix listener a. For a listener that is bound to
// a VM that is the only proof.
func (cfg Config) perm(a Addr) Perm {
	switch {
	case a.As.VM != "":
		return cfg.VMPerm
	case cfg.Admins > 0:
		return Perm{Mode: adminsMode, UID: -1, GID: cfg.Admins}
	}
	return adminPerm
}
