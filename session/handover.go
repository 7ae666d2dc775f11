package session

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"net"
	"os"
	"slices"
	"time"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/packet"
	"meta9/session/wire"
)

// A live update (docs/architecture.md) hands connections over to another process: each
// transport as it is, with a Handed, which is all that this process knows of it. The
// client notices only a pause, whatever its dialect, and whether or not its session has a
// key.

// Handed is a connection in a plain form, without its transport.
type Handed struct {
	// The Peer.
	Admin   bool   `json:"admin,omitempty"`
	VM      string `json:"vm,omitempty"`
	Via     string `json:"via"`
	Addr    string `json:"addr,omitempty"`
	Resumes bool   `json:"resumes,omitempty"`

	Msize    uint32 `json:"msize"`
	Seq      uint64 `json:"seq,omitempty"`      // frames that came
	First    uint64 `json:"first,omitempty"`    // the one after Rversion
	Resuming bool   `json:"resuming,omitempty"` // Tresume must come next
	Missed   int    `json:"missed,omitempty"`   // keys and MUMBLE messages that were wrong
	Proved   string `json:"proved,omitempty"`   // the VM that MUMBLE proved here

	Attached bool  `json:"attached,omitempty"` // the session has had an attach
	Session  State `json:"session"`            // also of one without a key

	// Input is what was read and not done yet: first the requests that waited for something
	// (events, a lock), in whole frames, then what follows. Counted are the numbers of the
	// requests that waited, if they have some. The next Skip bytes from the transport belong
	// to a frame that nobody wants.
	Input   []byte   `json:"input,omitempty"`
	Counted []uint64 `json:"counted,omitempty"`
	Skip    int      `json:"skip,omitempty"`
	Output  []byte   `json:"output,omitempty"` // replies, of which nothing was sent

	Link *packet.State `json:"link,omitempty"` // of one that is carried in packets; nil: it is not
}

// backed is a request that will be handled again, by the other process.
type backed struct {
	asked
	msg *wire.Msg
}

// handing is the state of a connection that goes from one process to another, or has come
// from one.
type handing struct {
	back    []backed // leaving: requests that the other process will handle
	counted []uint64 // numbers of the next requests, which were counted before: see Handed.Counted
}

// passes is the connection's handing.
func (c *conn) passes() *handing {
	if c.handing == nil {
		c.handing = new(handing)
	}
	return c.handing
}

func (h *handing) put(a asked, m *wire.Msg) { h.back = append(h.back, backed{a, m}) }

// errHanded is admit's answer for a connection that comes after the others have been
// handed over: it is handed over, too.
var errHanded = errors.New("handed over")

// HandOver stops the server as Freeze does, but keeps the connections that have a file
// descriptor, also under a link of packets: they are no longer read or written, and not
// closed. The others (tls) are closed as by Freeze. Requests that were begun are done, and
// their replies, unsent, are in Output; requests that block are in Input.
func (s *Server) HandOver(ctx context.Context) error {
	err := s.stop(ctx, handOver)
	s.settleParked()
	return err
}

// Handed gives the connections that HandOver has kept, as they were given to Serve.
// Nothing changes any more, because the store was stopped.
func (s *Server) Handed() iter.Seq2[net.Conn, Handed] {
	return func(yield func(net.Conn, Handed) bool) {
		s.mu.Lock()
		all := slices.Clone(s.handed)
		s.mu.Unlock()
		slices.SortFunc(all, func(a, b *conn) int { return cmp.Compare(a.id, b.id) })
		for _, c := range all {
			if c.dead.Load() {
				continue
			}
			if !yield(c.nc, c.state()) {
				return
			}
		}
	}
}

// leave makes the loop, and whoever writes, stop where they are.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	if l := c.link(); l != nil {
		l.Leave()
	} else {
		_ = c.nc.SetDeadline(time.Unix(1, 0))
	}
	c.wake()
	c.moved.Broadcast()
}

// link is the connection's transport, if that is a link of packets; else nil.
func (c *conn) link() *packet.Link {
	l, _ := c.nc.(*packet.Link)
	return l
}

// movable tells whether the transport can go to another process.
func (c *conn) movable() bool { return c.in.raw != nil || c.link() != nil }

// standsStill ends the loop of a connection that is handed over; false: it is not handed
// over. Requests that can be cancelled are put back, and changes are waited for.
func (c *conn) standsStill(err error) bool {
	if !c.srv.handing.Load() || !errors.Is(err, os.ErrDeadlineExceeded) || !c.movable() || c.dead.Load() {
		return false
	}
	c.known()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	c.place.Give()
	for c.writing && !c.closed {
		c.moved.Wait()
	}
	for _, r := range c.waiting {
		if r.cancel != nil {
			c.putBack(r)
		}
	}
	c.settle()
	if c.closed {
		return false
	}
	if c.resuming && c.sess.carried != nil {
		c.sess.carried.settle(c.sess)
	}
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.srv.hand(c)
	return true
}

// hand adds a connection to Server.handed. Server.mu is held.
func (s *Server) hand(c *conn) {
	c.handed = true
	s.handed = append(s.handed, c)
}

// putBack cancels a request that waits, so that the other process handles it again.
func (c *conn) putBack(r *request) {
	r.cancel()
	delete(c.waiting, r.tag)
	m := r.msg
	if m == nil {
		m = &wire.Msg{Type: wire.Tread, Tag: r.tag, Fid: r.fid.num, Offset: r.off, Count: uint32(r.count)}
	}
	c.passes().put(r.asked, m)
}

// state returns what the other process has to know.
func (c *conn) state() Handed {
	back := c.passes().back
	h := Handed{
		Admin: c.peer.Who.Admin, VM: c.peer.Who.VM, Via: c.peer.Via, Addr: c.peer.Addr, Resumes: c.peer.Resumes,
		Msize: c.msize, Seq: c.seq - uint64(len(back)), First: c.first, Resuming: c.resuming, Missed: int(c.missed), Proved: c.proved,
		Attached: c.sess.view != nil, Session: c.sess.state(c.nowWaiting(), fs.MaxOld), Output: slices.Clone(c.out),
	}
	slices.SortFunc(back, func(a, b backed) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.msg.Tag, b.msg.Tag))
	})
	for _, b := range back {
		if c.dialect.Numbered() && b.msg.Type.Counted() {
			h.Counted = append(h.Counted, b.number)
		}
		h.Input, _ = wire.Append(h.Input, b.msg, c.dialect) // it came in a frame
	}
	h.Counted = append(h.Counted, c.passes().counted...) // from a process before this one, and still unread
	unread := c.in.part
	if c.in.sc != nil {
		unread = c.in.sc.in[c.in.sc.start:c.in.sc.end]
	}
	skipped := min(c.in.skip, len(unread))
	h.Input, h.Skip = append(h.Input, unread[skipped:]...), c.in.skip-skipped+c.in.later
	if l := c.link(); l != nil {
		st := l.State()
		h.Link = &st
	}
	return h
}

// Adopt takes over a connection from another process. Where h has a Link, nc is from
// packet.Resume. The caller must call serve, which goes on with the connection as Go does;
// adopt all connections before the first serve, as with Restore. After an error nc is
// closed.
func (s *Server) Adopt(nc net.Conn, h Handed) (serve func(ended func()), err error) {
	_ = nc.SetDeadline(time.Time{})
	c := s.begin(nc, Peer{Who: fs.Principal{Admin: h.Admin, VM: h.VM}, Via: h.Via, Addr: h.Addr, Resumes: h.Resumes})
	if c == nil {
		return nil, errs.New(errs.Quota, "one connection too many")
	}
	if err := c.takeUp(&h); err != nil {
		c.over(err)
		return nil, err
	}
	return func(ended func()) {
		c.maySleep(ended)
		c.over(c.goOn())
	}, nil
}

// takeUp sets the connection's state from h.
func (c *conn) takeUp(h *Handed) error {
	n, err := c.srv.rebuilt(&h.Session, h.Attached)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sess.close()
	c.begins(n)
	c.rebill(n.who)
	n.paysKept()
	c.dialect, c.msize, c.seq, c.first = n.dialect, min(h.Msize, max(firstMsize, c.srv.cfg.Limits.Msize)), h.Seq, h.First
	c.resuming, c.missed, c.proved = h.Resuming, int32(h.Missed), h.Proved
	c.passes().counted, c.in.part, c.in.later = h.Counted, h.Input, h.Skip
	if len(h.Output) > 0 {
		c.out = h.Output
		c.settleOut()
	}
	if !n.who.Nobody() {
		c.known()
		if err := c.srv.countFor(c, n.who.VM); err != nil {
			return err
		}
	}
	if h.Attached {
		c.srv.enroll(c, n)
	}
	return nil
}

// goOn is the loop of a connection that was taken over.
func (c *conn) goOn() (err error) {
	c.mu.Lock()
	c.note(nil)
	c.mu.Unlock()
	if len(c.in.part) > 0 || len(c.out) > 0 {
		c.in.borrow()
		err = c.bursts()
	}
	if sc := c.in.sc; sc == nil || sc.start == sc.end { // all input was handled; if not, the connection is being handed over again
		c.in.skip += c.in.later // the last frame of part may be one of which the rest is to be skipped
		c.in.later = 0
	}
	if err != nil {
		return err
	}
	return c.loop()
}
