package session

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/budget"
	"meta9/fs/errs"
	"meta9/rarelog"
	"meta9/session/auth"
)

// Config configures a Server. Zero fields take the defaults.
type Config struct {
	Tree     *fs.Tree
	Limits   Limits            // DefaultLimits
	Budget   *budget.Budget    // of the bytes that requests hold; nil: none
	Lifetime time.Duration     // how long a session stays parked; 30 s
	Auth     *auth.Keyring     // nil: no MUMBLE
	Journal  Journal           // nil: none
	Fresh    func() error      // why the store's data may be old: then no request is answered with data of VMs; nil: it never is
	Trace    func(line string) // nil: off. One line a message, masked (wire.Mask)
	Log      zerolog.Logger
	Now      func() time.Time // time.Now
	Silence  time.Duration    // how long a connection without a frame keeps its goroutine; 5 s
}

// Peer is what a channel says about its other end.
type Peer struct {
	Who fs.Principal // proved by the channel; zero: nobody
	Via string       // the listener's text, for logs and sessions/: "unix:/run/meta9/admin.sock"
	// Addr is the peer's address without its port, on channels where keys can be guessed
	// from anywhere: wrong keys are counted by it. "" on others.
	Addr string
	// Resumes tells that the channel proves its peer. A plain tcp channel does
	// not: there a key finds only sessions that MUMBLE authenticated on such a
	// channel, and the session says who its principal is.
	Resumes bool
}

// Server serves 9P on any number of connections. Its methods may be called at any
// time from any goroutine.
type Server struct {
	cfg     Config
	stats   counters
	indexer *indexer
	misses  misses
	rare    rarelog.Log
	locks   lockTable
	quit    chan struct{}                     // closed by Drain and Freeze
	trace   atomic.Pointer[func(line string)] // nil: off

	mu       sync.Mutex // after any conn.mu
	conns    map[*conn]struct{}
	nobodies int // conns whose peer is not known yet
	from     map[netip.Prefix]crowd
	nextID   uint64
	closing  bool
	frozen   bool           // closing, and sessions are kept
	handing  atomic.Bool    // frozen, and connections are kept too; written with mu held
	handed   []*conn        // connections that were stopped, to be handed over
	running  sync.WaitGroup // of conns
	awake    int            // conns that may sleep and do not
	sweeping bool           // the next sweep has a timer
	sweeper  *time.Timer
	sleepers poller
	table
}

// New makes a Server and grafts sessions/ onto the tree. Call it before the
// tree's first View is made.
func New(cfg Config) *Server {
	cfg.Limits = cfg.Limits.withDefaults()
	cfg.Lifetime = cmp.Or(cfg.Lifetime, 30*time.Second)
	cfg.Silence = cmp.Or(cfg.Silence, 5*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{
		cfg: cfg, indexer: newIndexer(), quit: make(chan struct{}), conns: make(map[*conn]struct{}), from: make(map[netip.Prefix]crowd),
		table: table{byID: make(map[uint64]*session), byKey: make(map[indexID]*session), vms: make(map[string]*vmUse)},
		rare:  rarelog.Log{Log: cfg.Log, Now: cfg.Now},
	}
	s.parkedVMs.limits = &s.cfg.Limits
	s.sleepers.awaken = (*conn).awaken
	s.SetTrace(cfg.Trace)
	cfg.Tree.GraftRoot("sessions", s.folder)
	return s
}

// Serve serves one connection until it ends, and closes it. One too many is
// closed at once.
//
// Half of the memory of a connection that waits, and does not sleep, is the stack of its
// loop. The frames of the loop and its callers are kept small, so that a stack that has
// grown shrinks to 4 KiB again: it does when a quarter of 8 KiB is enough.
func (s *Server) Serve(nc net.Conn, p Peer) { s.Go(nc, p, nil) }

// Go is Serve for a caller that can do without its goroutine: Go may return while nothing
// comes. When the connection has ended, it calls ended, in any goroutine. If ended is nil,
// Go is Serve.
func (s *Server) Go(nc net.Conn, p Peer, ended func()) {
	if c := s.begin(nc, p); c != nil {
		c.maySleep(ended)
		c.place.Take(c.share.Load()) // also if it gets none: each request takes one itself
		c.over(c.loop())
	} else if ended != nil {
		ended()
	}
}

// begin admits a connection; nil: it is not admitted.
//
//go:noinline
func (s *Server) begin(nc net.Conn, p Peer) *conn {
	c := s.welcome(nc, p)
	c.place.Force(c.share.Load())
	if err := s.admit(c); err == errHanded {
		if l := c.link(); l != nil {
			l.Leave()
		}
		c.place.Give()
		return nil
	} else if err != nil {
		s.stats.Refused.Add(1)
		if err != errStopping { // who comes at the end comes again
			s.warn(p, p.Who.String(), "connection refused", err)
		}
		_ = nc.Close()
		c.sess.close()
		c.account.Load().Close()
		c.place.Give()
		return nil
	}
	if p.Who.Nobody() {
		c.expectIdentity()
	}
	c.place.Give()
	return c
}

func (s *Server) welcome(nc net.Conn, p Peer) *conn {
	c := &conn{srv: s, nc: nc, peer: p, msize: firstMsize}
	c.begins(s.newSession(p.Who))
	c.moved.L = &c.mu
	c.done = &doneList{to: c}
	c.in.init(c)
	a := s.account(p.Who)
	c.account.Store(a)
	c.output.bill.account, c.waits.bill.account = a, a
	return c
}

// account returns the account of that principal; Close it.
func (s *Server) account(who fs.Principal) *budget.Account {
	if who.Admin {
		return s.cfg.Budget.Admin()
	}
	return s.cfg.Budget.Account(who.VM)
}

// newSession makes an empty session. It must be closed.
func (s *Server) newSession(who fs.Principal) *session {
	return &session{who: who, bill: bill{account: s.account(who)}}
}

// rebill moves the bytes of the connection and of its session to the account of who.
func (c *conn) rebill(who fs.Principal) {
	old, a := c.account.Load(), c.srv.account(who)
	if a == old {
		a.Close()
		return
	}
	c.account.Store(a) // what the loop has borrowed stays on the old account until it is given back
	c.output.bill.moveTo(a)
	c.waits.bill.moveTo(a)
	old.Close()
}

// rebill moves the bytes of the session to the account of who.
func (s *session) rebill(srv *Server, who fs.Principal) {
	old := s.bill.account
	s.bill.moveTo(srv.account(who))
	old.Close()
}

var errStopping = errs.New(errs.Busy, "the server is stopping")

// admit adds a connection, unless there are too many.
func (s *Server) admit(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.cfg.Limits
	switch {
	case s.handing.Load() && c.movable():
		s.hand(c)
		return errHanded
	case s.closing:
		return errStopping
	case len(s.conns) >= l.Conns:
		return errs.New(errs.Quota, "%d connections, the limit of all", l.Conns)
	case c.peer.Who.Nobody() && s.nobodies >= l.nobodies():
		return errs.New(errs.Quota, "%d connections of nobody, their limit", s.nobodies)
	case s.crowded(c):
		return errs.New(errs.Quota, "%d connections from its address, as many as there are places left", s.from[prefix(c.peer.Addr)].conns)
	}
	if err := s.count(c, c.peer.Who.VM); err != nil {
		return err
	}
	if c.peer.Who.Nobody() {
		c.nobody = true
		s.nobodies++
	}
	s.nextID++
	c.id = s.nextID
	s.conns[c] = struct{}{}
	s.crowd(c, 1)
	s.running.Add(1)
	return nil
}

// crowd counts the connections from one address of a network.
type crowd struct{ conns, nobodies int }

// crowded tells whether c's address has at least as many connections as there are places
// left, of all connections or of those of unknown peers. So one address gets half of the
// places at most, two get two thirds, and however many addresses take all they can, some
// places are left for the next.
func (s *Server) crowded(c *conn) bool {
	if c.peer.Addr == "" {
		return false
	}
	l, has := &s.cfg.Limits, s.from[prefix(c.peer.Addr)]
	return has.conns >= l.Conns-len(s.conns) ||
		c.peer.Who.Nobody() && has.nobodies >= l.nobodies()-s.nobodies
}

// crowd adds n, 1 or -1, to the count of c's address. Server.mu is held.
func (s *Server) crowd(c *conn, n int) {
	if c.peer.Addr == "" {
		return
	}
	p := prefix(c.peer.Addr)
	has := s.from[p]
	has.conns += n
	if c.nobody {
		has.nobodies += n
	}
	if has == (crowd{}) {
		delete(s.from, p)
		return
	}
	s.from[p] = has
}

// countFor is count for a connection whose peer was unknown and has now proved to be the
// VM.
func (s *Server) countFor(c *conn, uuid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.count(c, uuid); err != nil {
		return err
	}
	s.uncountNobody(c)
	return nil
}

// uncountNobody takes c out of the count of connections of unknown peers. Server.mu is
// held.
func (s *Server) uncountNobody(c *conn) {
	if c.nobody {
		s.crowd(c, -1)
		c.nobody = false
		s.nobodies--
		s.crowd(c, 1)
	}
}

// count adds c to the VM's connections, unless the VM has too many or is frozen. Server.mu
// is held.
func (s *Server) count(c *conn, uuid string) error {
	switch {
	case uuid == "" || uuid == c.vm:
		return nil
	case s.isFrozen(uuid):
		return errFrozen
	}
	u := s.use(uuid)
	if u.conns >= s.cfg.Limits.VMConns {
		s.forgetUnused(uuid)
		return errs.New(errs.Quota, "the VM has %d connections already, its limit", s.cfg.Limits.VMConns)
	}
	s.uncount(c)
	u.conns++
	c.vm = uuid
	return nil
}

// uncount undoes count. Server.mu is held.
func (s *Server) uncount(c *conn) {
	if c.vm != "" {
		s.use(c.vm).conns--
		s.forgetUnused(c.vm)
		c.vm = ""
	}
}

// dismiss undoes admit.
func (s *Server) dismiss(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncount(c)
	s.uncountNobody(c)
	s.crowd(c, -1)
	delete(s.conns, c)
	if c.sleeps() {
		s.awake--
	}
}

// DropVM ends the VM's connections and sessions, because the VM was deleted. It does not
// wait.
func (s *Server) DropVM(uuid string) {
	var gone []*session
	s.mu.Lock()
	for _, n := range s.byID {
		if n.who.VM == uuid {
			gone = append(gone, s.release(n)...)
		}
	}
	s.kill(func(c *conn) bool { return c.vm == uuid })
	s.mu.Unlock()
	closeAll(gone)
}

// kill closes the transports of the connections that which chooses. Server.mu is held.
func (s *Server) kill(which func(c *conn) bool) {
	for c := range s.conns {
		if which(c) {
			c.kill()
		}
	}
}

// Drain stops the server: new connections are refused, no more requests are read, requests
// that were begun are answered, then the connections are closed; parked sessions end. If
// ctx ends first, the rest is closed at once, and the error is ctx's. It returns when
// every Serve has returned.
func (s *Server) Drain(ctx context.Context) error {
	return s.stop(ctx, drain)
}

// Freeze stops the server as Drain does, but keeps the sessions that have a key, so that
// another process can restore them: parked ones stay, and those of connections are parked
// when their requests are done. Blocking reads end without a reply; clients ask again.
// After Freeze nothing of what States gives changes.
func (s *Server) Freeze(ctx context.Context) error {
	err := s.stop(ctx, freeze)
	s.settleParked()
	return err
}

// ending is how a server stops.
type ending int

const (
	drain    ending = iota // sessions end
	freeze                 // they are kept
	handOver               // and connections as well
)

// stop refuses new connections, wakes every loop, and waits until all have ended.
func (s *Server) stop(ctx context.Context, how ending) error {
	s.closeToNew(how)
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	defer s.sleepers.close()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.kill(func(c *conn) bool { return !c.handed })
	s.mu.Unlock()
	<-done
	return ctx.Err()
}

// closeToNew refuses new connections, ends the parked sessions unless they are kept, and
// wakes every loop.
func (s *Server) closeToNew(how ending) {
	var gone []*session
	var leave []*conn
	s.mu.Lock()
	s.frozen = how != drain
	s.handing.Store(how == handOver) // before quit: a goroutine that it wakes reads this
	if !s.closing {
		s.closing = true
		close(s.quit)
	}
	for how == drain && s.parked.Len() > 0 {
		gone = append(gone, s.release(s.oldest())...)
	}
	s.arm()
	for c := range s.conns {
		if how == handOver && c.movable() {
			leave = append(leave, c)
		} else {
			_ = c.nc.SetReadDeadline(time.Unix(1, 0))
			c.wake()
		}
	}
	s.mu.Unlock()
	closeAll(gone)
	for _, c := range leave {
		c.leave()
	}
}

// settleParked waits for the changes that parked sessions carry: another process could not
// tell whether they were done.
func (s *Server) settleParked() {
	s.mu.Lock()
	var carry []*session
	for e := s.parked.Front(); e != nil; e = e.Next() {
		if n := e.Value.(*session); n.carried != nil {
			carry = append(carry, n)
		}
	}
	s.mu.Unlock()
	for _, n := range carry {
		n.carried.settle(n)
	}
}
