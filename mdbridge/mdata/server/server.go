// Package server answers the Joyent metadata protocol, versions 1 and 2, for the
// guests of a tree: on a unix socket for each VM, and on character devices that the
// caller has dialled. The tree decides what a guest may see and change (package macro
// over the guest's own View, fs/vm's rules of names), so that files and this protocol
// allow the same.
//
// A connection runs in its caller's goroutine, which blocks: in a read, in a write, or
// until a commit is durable. Its buffers are small until a line or a reply is long;
// then it needs one of its VM's few wide slots, and gives it back after the reply. So
// a VM's memory is bounded whatever its guest sends, and only connections of the same
// VM wait for each other.
//
// Server.mu guards the connections' table and is never held over anything that
// waits.
package server

import (
	"cmp"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs"
	"meta9/fs/budget"
	"meta9/mdbridge/mdata"
)

// Limits bound what guests cost. Zero fields take DefaultLimits.
type Limits struct {
	Conns    int           // connections of all VMs
	VMConns  int           // connections of one VM
	VMWide   int           // connections of one VM with a line or reply over 64 KiB at a time
	WideTime time.Duration // how long such a connection may read or write nothing
}

// DefaultLimits are those of 9P's connections (session.DefaultLimits). VMWide keeps a
// VM within about 32 MiB.
var DefaultLimits = Limits{Conns: 20_000, VMConns: 64, VMWide: 4, WideTime: 30 * time.Second}

// Config is what New needs.
type Config struct {
	Tree   *fs.Tree
	Limits Limits
	Budget *budget.Budget // of the bytes that lines and replies hold; nil: none
	Fresh  func() error   // why what the tree has may be old: then no read is answered; nil: it never is
}

// Stats count from the start on, but for Conns, the connections that are open now.
type Stats struct {
	Conns    int64  // connections
	Refused  uint64 // connections over a limit
	Requests uint64 // lines that were answered
	Damaged  uint64 // frames without an answer, since they were damaged
	Dropped  uint64 // lines without an answer, since they were too long or never ended
}

// Server serves any number of connections.
type Server struct {
	tree     *fs.Tree
	budget   *budget.Budget
	fresh    func() error // Config.Fresh; never nil
	limits   Limits
	maxValue int
	maxLine  int

	requests, refused, damaged, dropped atomic.Uint64

	handing atomic.Bool // closing, and connections are kept

	mu      sync.Mutex
	guests  map[string]*guest // VMs that have a connection
	quiet   map[string]int    // VMs that are not served now, and how often that was asked for
	conns   int
	closing bool
	handed  []Handed
	idle    chan struct{} // closed when closing and the last connection has ended
}

// guest is what the connections of one VM share.
type guest struct {
	conns map[net.Conn]bool
	wide  chan struct{} // a slot for each wide connection
	gone  chan struct{} // closed when it has no connection any more
}

// unlimitedValue is the largest value, in bytes, where the store has no limit.
const unlimitedValue = 64 << 20

// New makes a Server of the tree's VMs.
func New(cfg Config) *Server {
	l, d := &cfg.Limits, DefaultLimits
	l.Conns, l.VMConns = cmp.Or(l.Conns, d.Conns), cmp.Or(l.VMConns, d.VMConns)
	l.VMWide, l.WideTime = cmp.Or(l.VMWide, d.VMWide), cmp.Or(l.WideTime, d.WideTime)
	if cfg.Fresh == nil {
		cfg.Fresh = func() error { return nil }
	}
	maxValue := cmp.Or(cfg.Tree.Store().Limits().Value, unlimitedValue)
	return &Server{
		tree: cfg.Tree, budget: cfg.Budget, fresh: cfg.Fresh, limits: *l,
		maxValue: maxValue, maxLine: max(mdata.MaxLine(maxValue), narrowSize),
		guests: map[string]*guest{}, quiet: map[string]int{}, idle: make(chan struct{}),
	}
}

// Serve answers the requests that come on nc, as the VM who, until nc ends, and closes
// nc. A connection over a limit, or without a VM, is closed at once. via is how it came, which
// HandOver says again.
func (s *Server) Serve(nc net.Conn, who fs.Principal, via string) {
	s.serve(Handed{Conn: nc, Who: who, Via: via})
}

// serve serves a connection that may have been another process's.
func (s *Server) serve(h Handed) {
	if !s.late(h) && !s.work(h) {
		_ = h.Conn.Close()
	}
}

// work serves h until it ends; true: it is handed over.
func (s *Server) work(h Handed) bool {
	nc, who := h.Conn, h.Who
	g := s.addConn(nc, who)
	if g == nil {
		s.refused.Add(1)
		return false
	}
	defer s.removeConn(nc, who)
	c := s.newConn(nc, who, g)
	if c == nil {
		return false
	}
	c.ahead, c.out = h.Input, h.Output
	c.loop()
	c.end()
	return c.stays(h)
}

// addConn counts a connection; nil: there are too many, or it has no VM.
func (s *Server) addConn(nc net.Conn, who fs.Principal) *guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.guests[who.VM]
	switch {
	case who.VM == "", s.closing, s.conns >= s.limits.Conns, s.quiet[who.VM] > 0:
		return nil
	case g == nil:
		g = &guest{conns: map[net.Conn]bool{}, wide: make(chan struct{}, s.limits.VMWide), gone: make(chan struct{})}
		s.guests[who.VM] = g
	case len(g.conns) >= s.limits.VMConns:
		return nil
	}
	g.conns[nc] = true
	s.conns++
	return g
}

// removeConn undoes addConn. A guest is removed with its last connection, so that the
// table has no VM without one.
func (s *Server) removeConn(nc net.Conn, who fs.Principal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.guests[who.VM]
	delete(g.conns, nc)
	if len(g.conns) == 0 {
		delete(s.guests, who.VM)
		close(g.gone)
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
		for nc := range g.conns {
			nc.Close()
		}
	}
}

// Quiet ends all connections of a VM, and closes new ones until again is called: whole
// requests that have come are answered first. When ctx ends before that, it closes the rest.
func (s *Server) Quiet(ctx context.Context, uuid string) (again func()) {
	s.mu.Lock()
	s.quiet[uuid]++
	g := s.guests[uuid]
	if g != nil {
		for nc := range g.conns {
			finishReading(nc)
		}
	}
	s.mu.Unlock()
	if g != nil {
		select {
		case <-g.gone:
		case <-ctx.Done():
			s.DropVM(uuid)
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.quiet[uuid]--; s.quiet[uuid] == 0 {
			delete(s.quiet, uuid)
		}
	}
}

// Drain accepts no more connections and ends those that are open: whole requests that
// have come are answered first. When ctx ends before that, it closes the rest and
// returns ctx's error.
func (s *Server) Drain(ctx context.Context) error {
	s.endAll(finishReading)
	return s.await(ctx)
}

// await waits until all connections have ended, or closes them.
func (s *Server) await(ctx context.Context) error {
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.endAll(func(nc net.Conn) { nc.Close() })
	<-s.idle
	return ctx.Err()
}

// endAll accepts no more connections, and calls f, which must not wait, with each one.
func (s *Server) endAll(f func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing && s.conns == 0 {
		close(s.idle)
	}
	s.closing = true
	for _, g := range s.guests {
		for nc := range g.conns {
			f(nc)
		}
	}
}

// finishReading takes nothing new from the peer: what is in the socket already is still read
// and answered, and then the connection ends. One that has no CloseRead is closed at once.
func finishReading(nc net.Conn) {
	if half, ok := nc.(interface{ CloseRead() error }); ok && half.CloseRead() == nil {
		return
	}
	nc.Close()
}

// Stats are the counts as of now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	conns := s.conns
	s.mu.Unlock()
	return Stats{
		Conns: int64(conns), Refused: s.refused.Load(), Requests: s.requests.Load(),
		Damaged: s.damaged.Load(), Dropped: s.dropped.Load(),
	}
}
