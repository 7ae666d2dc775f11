// Package server is meta9d's own QMP server: what qemu-storage-daemon has for
// itself, for the metadata of VMs. A connection must be proved to be the admin's
// before it gets here.
//
// One goroutine reads a connection and runs its commands one after the other, as
// a QEMU does; a command that changes something waits for its commit. Once the
// client has negotiated, a second goroutine writes the events to it, from the connection's
// own place in the store's ring: a client that reads slowly holds up no other, and is told
// what it missed. Both write under conn.mu, so that an event is never inside an answer.
//
// Lock order: Server.mu is not held while a conn.mu is taken; under conn.mu the
// socket is written, and the ring's lock is taken.
package server

import (
	"cmp"
	"encoding/json"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/budget"
)

// Config is what New needs. Zero fields take the defaults, or are off.
type Config struct {
	Tree     *fs.Tree
	Budget   *budget.Budget           // of the bytes that commands hold; nil: none
	Version  string                   // of the program, such as "v1.2.3"
	Sessions func() []json.RawMessage // what query-sessions returns: objects
	Trace    func(on bool)            // turns the tracing of 9P messages on and off
	Quit     func()                   // begins the end of the daemon, and does not wait for it
	Limit    int                      // bytes of one command; 32 MiB
	Fresh    func() error             // why what the tree has may be old: then what VMs are is not answered; nil: it never is
	Log      zerolog.Logger
	Now      func() time.Time // time.Now
}

// Server serves QMP on any number of connections. Its methods may be called from
// any goroutine.
type Server struct {
	cfg      Config
	version  version
	commands map[string]*command
	quitting atomic.Bool // by the command quit

	mu      sync.Mutex
	conns   map[*conn]struct{}
	closed  bool
	running sync.WaitGroup // of conns
}

// New makes a Server.
func New(cfg Config) *Server {
	cfg.Limit = cmp.Or(cfg.Limit, 32<<20)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{
		cfg: cfg, version: newVersion(cfg.Version), commands: newCommands(),
		conns: make(map[*conn]struct{}),
	}
}

// Serve serves an admin's connection until it ends, and closes it.
func (s *Server) Serve(nc net.Conn) {
	c := s.newConn(nc)
	if !s.admit(c) {
		_ = nc.Close()
		return
	}
	defer s.running.Done()
	c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

func (s *Server) admit(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	return true
}

// lastWriteTime is how long the last write to a client may take.
const lastWriteTime = time.Second

// Shutdown tells every client SHUTDOWN and ends its connection. It returns when
// every Serve has; a command that was begun is finished.
func (s *Server) Shutdown() {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		go c.shutdown()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// reason is why the daemon ends, in the words of QEMU's ShutdownCause.
func (s *Server) reason() string {
	if s.quitting.Load() {
		return "host-qmp-quit"
	}
	return "host-signal"
}
