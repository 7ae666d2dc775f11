package server

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"meta9/fs"
	"meta9/fs/cpu"
	"meta9/mdbridge/mdata"
)

// narrow is how long a line or a reply may be without a wide slot, and how much
// of replies gathers before it is written.
const narrow = 64 << 10

// keep is how large the buffers of an idle connection may be.
const keep = 16 << 10

// conn is one connection.
type conn struct {
	net.Conn
	server *Server
	guest  *guest
	place  cpu.Place // held while a line is answered, but for waits
	keys   keys
	lines  *mdata.Lines
	wide   bool            // it has one of the VM's wide slots
	out    []byte          // replies to be written
	value  []byte          // of the request at hand
	long   mdata.LongFrame // the line that is dropped
	err    error           // of the first write that failed; then it only ends
}

// newConn makes the VM's own View of the tree, which belongs to this connection as
// one does to each 9P client, and begins with a connection; nil: its VM is not there.
func (s *Server) newConn(nc net.Conn, who fs.Principal, g *guest) *conn {
	c := &conn{Conn: nc, server: s, guest: g}
	if !c.keys.open(s.tree, who) {
		return nil
	}
	c.lines = mdata.NewLines(c, narrow)
	return c
}

// end gives back what the connection holds. The slot goes last: until then the
// memory that it stands for may be in use.
func (c *conn) end() {
	c.keys.view.Close()
	if c.wide {
		<-c.guest.wide
	}
}

// loop answers one line after the other. Replies gather while whole lines are
// there already, and are written before it waits for more.
//
// A line that is too long, and a long one of which nothing more comes, is dropped
// up to its LF.
func (c *conn) loop() {
	for c.err == nil {
		if c.wide || len(c.out) >= narrow || !c.lines.Ready() {
			c.flush()
			c.slim()
			c.narrow()
		}
		switch line, err := c.lines.Next(); {
		case err == nil:
			if !c.place.Held() || c.place.Over() {
				c.place.Give()
				c.turn()
			}
			c.answer(line)
		case errors.Is(err, mdata.ErrSkipped):
			c.refuseLong()
		case errors.Is(err, mdata.ErrLong) && !c.wide:
			c.widen()
		case errors.Is(err, mdata.ErrLong):
			c.drop(&c.long)
		case c.wide && errors.Is(err, os.ErrDeadlineExceeded):
			c.drop(io.Discard)
		default:
			c.flush()
			return
		}
	}
}

// turn waits for a place. There is always one in the end, since no VM has more than its
// share of them, and whoever asks waits for his answer.
func (c *conn) turn() {
	for !c.place.Take(c.keys.cell.CPU()) {
	}
}

// drop skips the line that has begun; to gets its bytes.
func (c *conn) drop(to io.Writer) {
	c.server.dropped.Add(1)
	c.long = mdata.LongFrame{}
	c.lines.Skip(to)
}

// Read reads for Lines. A wide connection that stands still is not waited for; one
// that is slow is, since a serial line takes minutes for the largest value.
func (c *conn) Read(p []byte) (int, error) {
	c.place.Give()
	if c.wide {
		c.SetReadDeadline(time.Now().Add(c.server.limits.WideTime))
	}
	return c.Conn.Read(p)
}

// widen waits for a wide slot, with which long lines and replies are allowed. What
// has been answered goes out first: its sender may be waiting for it, and the slot
// may take a while.
func (c *conn) widen() {
	if c.wide {
		return
	}
	held := c.place.Held()
	c.flush()
	c.place.Give()
	c.guest.wide <- struct{}{}
	if held {
		c.turn()
	}
	c.wide = true
	c.lines.Limit(c.server.maxLine)
}

// narrow gives the slot back, and the memory before it; but not while much is
// there to be answered.
func (c *conn) narrow() {
	if !c.wide || c.lines.Pending() > narrow {
		return
	}
	c.lines.Limit(narrow)
	c.SetDeadline(time.Time{})
	c.wide = false
	<-c.guest.wide
}

// slim gives up buffers that have grown, once there is nothing in them: thousands
// of connections are idle most of their time.
func (c *conn) slim() {
	if cap(c.out)+cap(c.value) > keep {
		c.out, c.value = nil, nil
	}
}

// flush writes the replies that have gathered. A peer that does not take them stops
// its own connection only; where it has a slot, not for long.
func (c *conn) flush() {
	if len(c.out) == 0 || c.err != nil {
		return
	}
	if c.wide {
		c.SetWriteDeadline(time.Now().Add(c.server.limits.WideTime))
	}
	c.place.Give()
	_, c.err = c.Write(c.out)
	c.out = c.out[:0]
}
