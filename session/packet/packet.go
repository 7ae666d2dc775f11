package packet

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"
)

// Serve is the host's end of nc: it hands links to serve, one after the other,
// until nc ends, and closes nc. serve must close its link. The first Read of a
// link waits until a guest asks for it. A link that serve closes of its own accord
// takes nc with it; one that the guest has ended, or that was damaged, does not. After
// Link.Leave it returns without closing anything, once serve has returned. from reads
// nc, and has its time paid for; nil: nc is read itself.
func Serve(nc net.Conn, from Reader, serve func(link net.Conn)) {
	s := newStream(nc)
	s.from = from
	s.serve(nil, serve)
}

// serve does what Serve says. l is the first link; nil: a new one.
func (s *stream) serve(l *Link, serve func(link net.Conn)) {
	for s.alive() {
		if l == nil {
			l = &Link{stream: s, host: true}
		}
		serve(l)
		if l.left() {
			return
		}
		_ = l.Close()
		s.settle()
		l = nil
	}
}

// askAgain is how long a guest waits for the answer before it asks again.
const askAgain = time.Second

// Guest is a guest's program over all links that it has, one after the other. It tells
// the host with each Ask which one it had last, and how many packets it had sent there:
// where the host has come further with the same program, the guest went back in time.
type Guest struct {
	program uint64 // the upper half of its nonces: random
	last    *Link  // nil: it has had none
}

// Dial is Guest.Dial for a program that has one link.
func Dial(ctx context.Context, nc net.Conn) (net.Conn, error) { return new(Guest).Dial(ctx, nc) }

// Dial is the guest's end of nc: it asks the host for a link and waits for it,
// until ctx ends. Closing the link closes nc; so does an error. nc must have
// deadlines. The link before must have been closed.
func (g *Guest) Dial(ctx context.Context, nc net.Conn) (net.Conn, error) {
	l := &Link{stream: newStream(nc)}
	stop := context.AfterFunc(ctx, func() { _ = l.kill() })
	err := g.dial(l)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = l.kill()
		return nil, err
	}
	g.last = l
	return l, nil
}

// dial does the guest's part of the handshake.
func (g *Guest) dial(l *Link) (err error) {
	if l.nonce, err = random(); err != nil {
		return err
	}
	if g.program == 0 {
		g.program = l.nonce >> 32
	}
	l.nonce = g.program<<32 | l.nonce&(1<<32-1)
	where := control{nonce: l.nonce}
	if g.last != nil {
		where.link, where.seq = g.last.position()
	}
	for {
		if err := l.signal(ask, where); err != nil {
			return err
		}
		c, err := l.hear()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return err
		case c.nonce == l.nonce && c.link != 0:
			l.start(c.link)
			return l.nc.SetReadDeadline(time.Time{})
		}
		// Another's link, or a host that has just come and heard nothing yet.
	}
}

// hear waits a while for a Hello.
func (l *Link) hear() (control, error) {
	if err := l.nc.SetReadDeadline(time.Now().Add(askAgain)); err != nil {
		return control{}, err
	}
	return find(l.in, hello, l.pays)
}

// random is a number that no earlier link had, not 0.
func random() (uint64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return max(1, binary.LittleEndian.Uint64(b[:])), err
}
