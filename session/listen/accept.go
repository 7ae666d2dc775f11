package listen

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"meta9/fs"
)

// Bounds of what an unproved peer may take from a Listener.
const (
	ProveTime  = 10 * time.Second // to prove who it is, as session.Limits.AuthTime for nobody
	MaxProving = 256              // at once; for the next one, one of them is closed
)

// Pauses after an accept that failed, for want of file descriptors or memory:
// the first, doubled up to the last.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// prover finds out who is at the other end of c, until ctx ends.
type prover func(ctx context.Context, c net.Conn) (fs.Principal, error)

// always is the prover of a channel that by its place belongs to one principal.
func always(who fs.Principal) prover {
	return func(context.Context, net.Conn) (fs.Principal, error) { return who, nil }
}

// Listener accepts connections from one socket.
type Listener struct {
	nl     net.Listener
	via    string
	prove  prover
	handle Handler
	rare   *rare

	ctx     context.Context
	cancel  context.CancelFunc
	proving proving
	running sync.WaitGroup // the loop, and every connection until it is proved
}

// start accepts from nl at once; via names it in logs and to the Handler.
func start(nl net.Listener, via string, prove prover, handle Handler, r *rare) *Listener {
	l := &Listener{nl: nl, via: via, prove: prove, handle: handle, rare: r}
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
	pause := firstPause
	for {
		c, err := l.nl.Accept()
		if err == nil {
			pause = firstPause
			l.running.Add(1)
			ctx, cancel := context.WithTimeout(l.ctx, ProveTime)
			p := &candidate{from: source(c), stop: cancel}
			l.proving.add(p)
			go l.welcome(ctx, c, p)
			continue
		}
		if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		l.rare.warn(l.String, "cannot accept; trying on", reason(err))
		if !sleep(l.ctx, pause) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// welcome proves who c is and hands it over. Its place among those that are being
// proved is free again before that: what a proved peer may take is the Handler's
// business.
func (l *Listener) welcome(ctx context.Context, c net.Conn, p *candidate) {
	who, err := l.prove(ctx, c)
	l.proving.remove(p)
	p.stop()
	l.running.Done()
	if err != nil {
		l.rare.warn(l.String, "connection refused", err)
		c.Close()
		return
	}
	l.handle(c, who, l.via, host(c))
}

// host is the peer's address without its port, where it has one.
func host(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}

// sleep waits for d; false: ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reason is the bare cause of a network error: "address already in use" rather
// than "listen tcp 127.0.0.1:564: bind: address already in use", since all our
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
