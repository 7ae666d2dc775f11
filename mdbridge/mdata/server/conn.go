package server

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"meta9/fs"
	"meta9/fs/budget"
	"meta9/fs/cpu"
	"meta9/mdbridge/mdata"
)

// narrowSize is how many bytes a line or a reply may have without a wide slot, and how
// many bytes of replies gather before they are written.
const narrowSize = 64 << 10

// idleBuffers is how many bytes of buffers an idle connection may keep.
const idleBuffers = 16 << 10

// conn is one connection.
type conn struct {
	net.Conn
	server *Server
	guest  *guest
	place  cpu.Place // held while a line is answered, but for waits
	bytes  *budget.Account
	paid   int64 // what was taken of bytes
	keys   keys
	lines  *mdata.Lines
	wide   bool            // this connection has one of the VM's wide slots
	out    []byte          // replies to be written
	value  []byte          // of the request at hand
	long   mdata.LongFrame // the line that is being dropped
	full   error           // why it is; nil: it is too long
	err    error           // of the first write that failed; the loop then ends
	ahead  []byte          // what another process has read
	ended  bool            // the peer has
	in     *cpu.Reader
}

// newConn makes a connection with a View of the tree of its own, as each 9P client has
// one. nil: the VM is not there.
func (s *Server) newConn(nc net.Conn, who fs.Principal, g *guest) *conn {
	c := &conn{Conn: nc, server: s, guest: g, bytes: s.budget.Account(who.VM)}
	if !c.keys.open(s.tree, who) {
		c.bytes.Close()
		return nil
	}
	c.in = cpu.NewReader(nc, c.keys.cell.CPU)
	c.lines = mdata.NewLines(c, narrowSize)
	return c
}

// end gives back what the connection holds. The slot is last: it stands for memory that
// is in use until then.
func (c *conn) end() {
	c.place.Give()
	c.keys.view.Close()
	if c.wide {
		<-c.guest.wide
	}
	c.release(c.paid)
	c.bytes.Close()
}

// loop answers one line after the other. Replies gather while whole lines have been
// read already, and are written before it waits for more.
//
// It drops a line up to its LF when the line is too long, and when it is long and no
// more of it comes for WideTime.
func (c *conn) loop() {
	for c.err == nil {
		if c.wide || len(c.out) >= narrowSize || !c.lines.Ready() {
			c.flush()
			c.dropBuffers()
			c.giveWide()
			if !c.wide {
				c.release(c.paid)
			}
		}
		switch line, err := c.lines.Next(); {
		case c.leaves(err):
			return
		case err == nil:
			if !c.place.Held() || c.place.Over() {
				c.place.Give()
				c.takePlace()
			}
			if c.paid == 0 {
				c.bytes.Force(busyBytes)
				c.paid = busyBytes
			}
			c.answer(line)
		case errors.Is(err, mdata.ErrSkipped):
			c.refuseLong()
		case errors.Is(err, mdata.ErrLong) && !c.wide:
			if c.full = c.takeWide(); c.full != nil {
				c.drop(&c.long)
			}
		case errors.Is(err, mdata.ErrLong):
			c.drop(&c.long)
		case c.wide && errors.Is(err, os.ErrDeadlineExceeded):
			c.drop(io.Discard)
		default:
			c.flush()
			c.ended = true
			return
		}
	}
}

// takePlace waits for a place. Take fails only after some seconds, and then it asks
// again: a client of this protocol waits for its reply, and one will come, since no VM
// holds more than its share of places.
func (c *conn) takePlace() {
	for !c.place.Take(c.keys.cell.CPU()) {
	}
}

// drop skips the line that has begun; to takes its bytes.
func (c *conn) drop(to io.Writer) {
	c.server.dropped.Add(1)
	c.long = mdata.LongFrame{}
	c.lines.Skip(to)
}

// Read reads for Lines, which then looks through what came with a place: a line may have no
// end. While the connection is wide, each Read has WideTime: a serial
// line takes minutes for the largest value, but a peer that sends nothing may not keep
// the slot.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	c.place.Give()
	if c.wide {
		c.limit(c.SetReadDeadline, time.Now().Add(c.server.limits.WideTime))
	}
	n, err := c.in.Read(p)
	if n > 0 {
		c.takePlace()
	}
	return n, err
}

// limit sets a deadline, but for a connection that is handed over: that has one.
func (c *conn) limit(set func(time.Time) error, t time.Time) {
	_ = set(t)
	if c.server.handing.Load() {
		_ = c.SetDeadline(longAgo)
	}
}

// What a connection takes of the VM's account: with a line to answer, and more while it
// is wide, which is a line, what is decoded of it, the value and the reply. Where values
// have no limit, wideMost is no bound.
const (
	busyBytes = 2 * narrowSize
	wideMost  = 16 << 20
)

func (s *Server) wideBytes() int64 { return min(4*int64(s.maxLine), wideMost) }

// takeWide waits for a wide slot, which allows long lines and replies, and for what
// those take of the VM's account. It writes the replies that have gathered first: the
// client may be waiting for them, and both may take long. The error is the account's,
// whose wait is bounded.
func (c *conn) takeWide() error {
	if c.wide {
		return nil
	}
	held := c.place.Held()
	c.flush()
	c.place.Give()
	c.guest.wide <- struct{}{}
	n := c.server.wideBytes()
	err := c.bytes.Await(context.Background(), n)
	if held {
		c.takePlace()
	}
	if err != nil {
		<-c.guest.wide
		return err
	}
	c.paid += n
	c.wide = true
	c.lines.Limit(c.server.maxLine)
	return nil
}

// release gives n bytes back to the VM's account.
func (c *conn) release(n int64) {
	c.bytes.Release(n)
	c.paid -= n
}

// giveWide shrinks the buffer and gives the slot back, unless more than narrowSize
// bytes were read and are not answered.
func (c *conn) giveWide() {
	if !c.wide || c.lines.Pending() > narrowSize {
		return
	}
	c.lines.Limit(narrowSize)
	c.limit(c.SetDeadline, time.Time{})
	c.wide = false
	<-c.guest.wide
	c.release(c.server.wideBytes())
}

// dropBuffers frees buffers that have grown and are empty: thousands of connections are
// idle most of their time.
func (c *conn) dropBuffers() {
	if len(c.out) == 0 && cap(c.out)+cap(c.value) > idleBuffers {
		c.out, c.value = nil, nil
	}
}

// flush writes the replies that have gathered. A peer that does not read them stops
// only its own connection; where that has a wide slot, the write has WideTime.
func (c *conn) flush() {
	if len(c.out) == 0 || c.err != nil {
		return
	}
	if c.wide {
		c.limit(c.SetWriteDeadline, time.Now().Add(c.server.limits.WideTime))
	}
	c.place.Give()
	var n int
	if n, c.err = c.Write(c.out); c.leaves(c.err) {
		c.out = c.out[n:]
		return
	}
	c.out = c.out[:0]
}
