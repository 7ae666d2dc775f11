package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta9/backoff"
	"meta9/descriptors"
	"meta9/fs"
	"meta9/fs/cpu"
	"meta9/rarelog"
)

// Bounds for peers that have not proved who they are.
const (
	ProveTime  = 10 * time.Second // to prove who it is, as session.Limits.AuthTime for nobody
	MaxProving = 256              // at once; for the next one, one of them is closed
)

// acceptTime is about the CPU time that the kernel needs for a connection that begins and
// ends, and that is not counted in any place.
const acceptTime = 50 * time.Microsecond

// acceptAgain makes the pauses after an accept that failed, for want of file
// descriptors or memory.
var acceptAgain = backoff.Backoff{First: 5 * time.Millisecond, Last: time.Second}

// prover finds out who is at the other end of c, until ctx ends.
type prover func(ctx context.Context, c net.Conn) (fs.Principal, error)

// always is the prover of a channel that by its place belongs to one principal.
func always(who fs.Principal) prover {
	return func(context.Context, net.Conn) (fs.Principal, error) { return who, nil }
}

// Listener accepts connections from one socket.
type Listener struct {
	nl     net.Listener
	asked  string // as the settings have it
	via    string // in logs and to the Handler
	admins bool   // only the admin can connect, so it may use the last descriptors
	prove  prover
	again  func(net.Conn) (fs.Principal, error) // see Recheck; nil: a proof is for ever
	handle Handler
	cpu    *cpu.Share // whose share of the CPUs an accept uses; nil: accepting does not wait for a turn
	rare   *rarelog.Log

	ctx     context.Context
	cancel  context.CancelFunc
	proving proving
	served  served
	running sync.WaitGroup // the loop, and every connection until it is proved
}

// start accepts from l.nl at once.
func start(l *Listener) *Listener {
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.running.Add(1)
	go l.loop()
	return l
}

// String is the address that is really listened on, in the form of Parse.
func (l *Listener) String() string { return l.via }

// Close ends listening; a unix socket's file is removed. When it returns, nobody
// is being proved any more. Connections that were handed over stay the Handler's.
func (l *Listener) Close() error {
	l.cancel()
	err := l.nl.Close()
	l.running.Wait()
	return err
}

// loop accepts until Close.
func (l *Listener) loop() {
	defer l.running.Done()
	tries := 0 // accepts that have failed in a row
	var place cpu.Place
	for {
		c, err := l.accept()
		if err == nil && l.cpu != nil {
			place.Take(l.cpu) // also without a place
			l.cpu.Spend(acceptTime)
		}
		if err == nil {
			tries = 0
			l.running.Add(1)
			ctx, cancel := context.WithTimeout(l.ctx, ProveTime)
			p := &candidate{from: source(c), stop: cancel}
			l.proving.add(p)
			go l.welcome(ctx, c, p)
			place.Give()
			continue
		}
		if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		l.rare.Warn("").Str("via", l.via).Err(reason(err)).Msg("cannot accept; trying on")
		if tries++; !acceptAgain.Wait(l.ctx, tries) {
			return
		}
	}
}

// accept keeps the last descriptors for the admin: a connection of a guest that gets one
// of them is closed at once, and the loop pauses as if there were none.
func (l *Listener) accept() (net.Conn, error) {
	c, err := l.nl.Accept()
	if err != nil || l.admins {
		return c, err
	}
	if err := descriptors.Check(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// welcome proves who c's peer is, and gives c to the Handler. Before that it frees c's
// place among the candidates: how long the Handler needs is not counted there.
func (l *Listener) welcome(ctx context.Context, c net.Conn, p *candidate) {
	if who, ok := l.admit(ctx, c, p); ok {
		l.handle(c, who, l.via, host(c), func() { l.served.remove(c) })
	}
}

// admit is welcome up to where the Handler has the connection. It is a function of
// its own for the sake of the stack that stays as long as the connection.
//
//go:noinline
func (l *Listener) admit(ctx context.Context, c net.Conn, p *candidate) (who fs.Principal, ok bool) {
	who, err := l.prove(ctx, c)
	l.proving.remove(p)
	p.stop()
	if err == nil {
		if l.again != nil {
			l.served.add(c, &who)
		} else {
			l.served.add(c, nil)
		}
	}
	l.running.Done()
	if err == nil && l.again != nil {
		_, err = l.again(c) // Recheck may have been called in between
	}
	if err != nil {
		l.served.tally.Refuse()
		l.rare.Warn("").Str("via", l.via).Err(err).Msg("connection refused")
		l.served.remove(c)
		c.Close()
	}
	return who, err == nil
}

// Recheck ends the connections whose proof is no longer valid: the certificate is denied
// by now, or the VM has another vsock_cid.
func (l *Listener) Recheck() {
	if l.again == nil {
		return
	}
	for c, who := range l.served.all() {
		now, err := l.again(c)
		if err == nil && now == *who {
			continue
		}
		l.rare.Warn("").Str("via", l.via).Stringer("who", *who).AnErr("error", err).Msg("connection ended: its proof holds no more")
		hangUp(c)
	}
}

// End is Close, and ends the connections that were handed over.
func (l *Listener) End() error {
	err := l.Close()
	for c := range l.served.all() {
		hangUp(c)
	}
	return err
}

// hangUp ends a connection that a Handler has and may be writing to, so it does not let
// TLS wait for the peer. It does not close the descriptor: a goroutine that waits for it
// in an epoll(7) would not notice that.
func hangUp(c net.Conn) {
	if tc, ok := c.(*tls.Conn); ok {
		c = tc.NetConn()
	}
	if fd, ok := c.(syscall.Conn); ok {
		if raw, err := fd.SyscallConn(); err == nil {
			_ = raw.Control(func(n uintptr) { _ = unix.Shutdown(int(n), unix.SHUT_RDWR) })
			return
		}
	}
	_ = c.Close()
}

// served are the connections that a Listener has handed over, until they end.
type served struct {
	tally *Tally // nil: nobody asks for their number

	mu  sync.Mutex
	who map[net.Conn]*fs.Principal // nil: the principal that the Listener always proves
}

func (s *served) add(c net.Conn, who *fs.Principal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.who == nil {
		s.who = make(map[net.Conn]*fs.Principal)
	}
	s.who[c] = who
	s.tally.Begin()
}

func (s *served) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.who[c]; ok {
		delete(s.who, c)
		s.tally.End()
	}
}

// all returns those of this moment.
func (s *served) all() map[net.Conn]*fs.Principal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.who)
}

// host is the peer's address without its port, where it has one.
func host(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}

// reason is the cause of a network error without the address, "address already in use"
// rather than "listen tcp 127.0.0.1:564: bind: address already in use", because our
// messages name the listener themselves.
func reason(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return err
}
