// Package server answers the Joyent metadata protocol, versions 1 and 2, for the
// guests of a tree: on unix sockets of their own and on character devices that
// somebody dials. What a guest may see and change is the tree's to say (package
// macro over the guest's own View, fs/vm's rules of names), so that it is the same
// by files and by protocol.
//
// A connection is one goroutine, its caller's, which blocks: in a read, in a
// write, or until a commit is durable. It has little memory until a line or a
// reply is long; then it needs one of the few wide slots that its VM has, and
// gives it back after the reply. So a VM costs a bounded amount whatever its
// guest sends, and only its own connections wait for each other.
//
// Server.mu guards the connections' table and is never held over anything that
// waits.
package server

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs"
	"meta9/mdbridge/mdata"
)

// Limits bound what guests cost. Zero fields take DefaultLimits.
type Limits struct {
	Conns    int           // connections of all VMs
	VMConns  int           // connections of one VM
	VMWide   int           // of these, how many may be at a line or reply over 64 KiB at a time
	WideTime time.Duration // how long such a one may stand still
}

// DefaultLimits are those of 9P's connections (session.DefaultLimits), and for wide
// ones what keeps a VM within some 32 MiB.
var DefaultLimits = Limits{Conns: 20_000, VMConns: 64, VMWide: 4, WideTime: 30 * time.Second}

// Config is what a Server is told.
type Config struct {
	Tree   *fs.Tree
	Limits Limits
}

// Stats count what was there since the start; Conns is what is there now.
type Stats struct {
	Conns    int64  // connections
	Refused  uint64 // connections over a limit
	Requests uint64 // lines that were answered
	Damaged  uint64 // frames that were not, since they were damaged
	Dropped  uint64 // lines that were not, since they were too long or never ended
}

// Server serves any number of connections.
type Server struct {
	tree     *fs.Tree
	limits   Limits
	maxValue int
	maxLine  int

	requests, refused, damaged, dropped atomic.Uint64

	mu      sync.Mutex
	guests  map[string]*guest // VMs that have a connection
	conns   int
	closing bool
	idle    chan struct{} // closed when closing and the last connection has ended
}

// guest is what a VM's connections share.
type guest struct {
	conns map[net.Conn]bool
	wide  chan struct{} // a slot for each wide connection
}

// anyValue stands for the largest value of a store without a limit.
const anyValue = 64 << 20

// New makes a Server of the tree's VMs.
func New(cfg Config) *Server {
	s := &Server{tree: cfg.Tree, limits: cfg.Limits, guests: map[string]*guest{}, idle: make(chan struct{})}
	d := DefaultLimits
	for _, l := range []struct{ is, or *int }{
		{&s.limits.Conns, &d.Conns},
		{&s.limits.VMConns, &d.VMConns},
		{&s.limits.VMWide, &d.VMWide},
	} {
		if *l.is == 0 {
			*l.is = *l.or
		}
	}
	if s.limits.WideTime == 0 {
		s.limits.WideTime = d.WideTime
	}
	if s.maxValue = cfg.Tree.Store().Limits().Value; s.maxValue == 0 {
		s.maxValue = anyValue
	}
	s.maxLine = max(mdata.MaxLine(s.maxValue), narrow)
	return s
}

// Serve answers what the VM who says on nc, until nc ends, and closes it. A
// connection over a limit, and one of nobody's, is closed at once.
func (s *Server) Serve(nc net.Conn, who fs.Principal) {
	defer nc.Close()
	g := s.enter(nc, who)
	if g == nil {
		s.refused.Add(1)
		return
	}
	defer s.leave(nc, who)
	if c := s.newConn(nc, who, g); c != nil {
		c.loop()
		c.end()
	}
}

// enter notes a connection; nil: it is one too many.
func (s *Server) enter(nc net.Conn, who fs.Principal) *guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.guests[who.VM]
	switch {
	case who.VM == "", s.closing, s.conns >= s.limits.Conns:
		return nil
	case g == nil:
		g = &guest{conns: map[net.Conn]bool{}, wide: make(chan struct{}, s.limits.VMWide)}
		s.guests[who.VM] = g
	case len(g.conns) >= s.limits.VMConns:
		return nil
	}
	g.conns[nc] = true
	s.conns++
	return g
}

// leave undoes enter. The guest goes with its last connection, so that the table is
// never larger than what is connected.
func (s *Server) leave(nc net.Conn, who fs.Principal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.guests[who.VM]
	delete(g.conns, nc)
	if len(g.conns) == 0 {
		delete(s.guests, who.VM)
	}
	s.conns--
	if s.closing && s.conns == 0 {
		close(s.idle)
	}
}

// DropVM closes all connections of a VM, which was deleted.
func (s *Server) DropVM(uuid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.guests[uuid]; g != nil {
		g.each(func(nc net.Conn) { nc.Close() })
	}
}

// each does f to every connection of the VM; Server.mu is held, and f must not wait.
func (g *guest) each(f func(net.Conn)) {
	for nc := range g.conns {
		f(nc)
	}
}

// Drain ends all connections, and accepts no more: what came in whole is
// answered, at most until ctx ends; what is left then is closed. The error is
// ctx's, if it came to that.
func (s *Server) Drain(ctx context.Context) error {
	s.end(stopReading)
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.end(func(nc net.Conn) { nc.Close() })
	<-s.idle
	return ctx.Err()
}

// end does f to every connection, and lets no more in.
func (s *Server) end(f func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing && s.conns == 0 {
		close(s.idle)
	}
	s.closing = true
	for _, g := range s.guests {
		g.each(f)
	}
}

// stopReading makes a connection's end seen after all that it has sent: what is in
// the socket already is still read, and replies go out.
func stopReading(nc net.Conn) {
	if half, ok := nc.(interface{ CloseRead() error }); ok && half.CloseRead() == nil {
		return
	}
	nc.Close()
}

// Stats is what was counted.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	conns := s.conns
	s.mu.Unlock()
	return Stats{
		Conns: int64(conns), Refused: s.refused.Load(), Requests: s.requests.Load(),
		Damaged: s.damaged.Load(), Dropped: s.dropped.Load(),
	}
}
