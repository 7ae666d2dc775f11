package raw

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"meta9/session/wire"
)

// maxReply is the largest frame that Recv takes: over any msize negotiated here.
const maxReply = 2 << 20

// Conn is a connection with 9P frames on it. Its methods give up after Timeout.
type Conn struct {
	Net     net.Conn
	Timeout time.Duration // of one Send or Recv; 0 waits for ever
	r       *bufio.Reader
}

// Dial connects: network is "unix" or "tcp".
func Dial(network, addr string) (*Conn, error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return New(c), nil
}

// New is a Conn over c that waits 20 s for a reply.
func New(c net.Conn) *Conn {
	return &Conn{Net: c, Timeout: 20 * time.Second, r: bufio.NewReader(c)}
}

// Close hangs up, without a word to the server.
func (c *Conn) Close() error { return c.Net.Close() }

// Send writes bytes: frames, or whatever an attacker sends.
func (c *Conn) Send(b []byte) error {
	if c.Timeout > 0 {
		c.Net.SetWriteDeadline(time.Now().Add(c.Timeout))
	}
	_, err := c.Net.Write(b)
	return err
}

// Recv reads the next frame.
func (c *Conn) Recv() (Reply, error) {
	if c.Timeout > 0 {
		c.Net.SetReadDeadline(time.Now().Add(c.Timeout))
	}
	var h [HeaderLen]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return Reply{}, err
	}
	size := binary.LittleEndian.Uint32(h[:])
	if size < HeaderLen || size > maxReply {
		return Reply{}, fmt.Errorf("raw: a frame of %d bytes came", size)
	}
	r := Reply{Type: wire.Type(h[4]), Tag: binary.LittleEndian.Uint16(h[5:]), Body: make([]byte, size-HeaderLen)}
	_, err := io.ReadFull(c.r, r.Body)
	return r, err
}

// RPC sends one request and takes the next frame as its reply, which must be of
// the type that answers t. An error reply is an error of type *Error.
func (c *Conn) RPC(t wire.Type, tag uint16, fields ...any) (Reply, error) {
	if err := c.Send(Frame(t, tag, fields...)); err != nil {
		return Reply{}, err
	}
	r, err := c.Recv()
	if err != nil {
		return r, fmt.Errorf("raw: no answer to %v: %w", t, err)
	}
	if err := r.Err(); err != nil {
		return r, err
	}
	if r.Type != t+1 || r.Tag != tag {
		return r, fmt.Errorf("raw: %v tag %d answered by %v tag %d", t, tag, r.Type, r.Tag)
	}
	return r, nil
}

// Version negotiates and gives the server's answer.
func (c *Conn) Version(msize uint32, version string) (uint32, string, error) {
	r, err := c.RPC(wire.Tversion, NoTag, msize, version)
	if err != nil {
		return 0, "", err
	}
	got, _ := Reply{Body: r.Body[min(4, len(r.Body)):]}.cutString()
	return r.U32(0), got, nil
}

// Attach attaches fid to a sub-tree without authentication, in 9P2000 and .e.
func (c *Conn) Attach(fid uint32, aname string) error {
	_, err := c.RPC(wire.Tattach, 0, fid, NoFid, "nobody", aname)
	return err
}

// Walk makes newfid stand where names lead from fid, all the way.
func (c *Conn) Walk(fid, newfid uint32, names ...string) error {
	r, err := c.RPC(wire.Twalk, 0, fid, newfid, names)
	if err != nil {
		return err
	}
	if n := int(binary.LittleEndian.Uint16(r.Body)); n != len(names) {
		return fmt.Errorf("raw: walked %d of %q", n, names)
	}
	return nil
}

// Open opens fid in mode, as Topen has it.
func (c *Conn) Open(fid uint32, mode uint8) error {
	_, err := c.RPC(wire.Topen, 0, fid, mode)
	return err
}

// Read is one Tread.
func (c *Conn) Read(fid uint32, offset uint64, count uint32) ([]byte, error) {
	r, err := c.RPC(wire.Tread, 0, fid, offset, count)
	return r.Data(), err
}

// Write is one Twrite.
func (c *Conn) Write(fid uint32, offset uint64, data []byte) error {
	r, err := c.RPC(wire.Twrite, 0, fid, offset, Data(data))
	if err == nil && int(r.U32(0)) != len(data) {
		return fmt.Errorf("raw: %d of %d bytes written", r.U32(0), len(data))
	}
	return err
}

// Clunk forgets fid.
func (c *Conn) Clunk(fid uint32) error {
	_, err := c.RPC(wire.Tclunk, 0, fid)
	return err
}

// Sread is one Tsread: a whole file, or a folder's stat records.
func (c *Conn) Sread(fid uint32, names ...string) ([]byte, error) {
	r, err := c.RPC(wire.Tsread, 0, fid, names)
	return r.Data(), err
}

// Swrite is one Tswrite: a whole value.
func (c *Conn) Swrite(fid uint32, data []byte, names ...string) error {
	r, err := c.RPC(wire.Tswrite, 0, fid, names, Data(data))
	if err == nil && int(r.U32(0)) != len(data) {
		return fmt.Errorf("raw: %d of %d bytes written", r.U32(0), len(data))
	}
	return err
}
