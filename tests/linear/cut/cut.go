// Package cut has transports that are lost now and then.
package cut

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
)

// Conn is a transport that is lost now and then: a frame is half sent, or its
// answer is not read.
type Conn struct {
	net.Conn
	mu     sync.Mutex // of chance
	chance *rand.Rand
	drops  *atomic.Int64
}

// New makes a transport of c that chance cuts. drops counts how often it did.
func New(c net.Conn, chance *rand.Rand, drops *atomic.Int64) *Conn {
	return &Conn{Conn: c, chance: chance, drops: drops}
}

// once says yes once in n times, and counts that.
func (c *Conn) once(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chance.IntN(n) != 0 {
		return false
	}
	c.drops.Add(1)
	return true
}

// Write is net.Conn's.
func (c *Conn) Write(b []byte) (int, error) {
	switch {
	case c.once(200): // all is sent, and nobody hears the answer
		n, err := c.Conn.Write(b)
		c.Close()
		return n, err
	case c.once(400):
		n, _ := c.Conn.Write(b[:len(b)/2])
		c.Close()
		return n, net.ErrClosed
	}
	return c.Conn.Write(b)
}

// Read is net.Conn's.
func (c *Conn) Read(b []byte) (int, error) {
	if c.once(300) {
		c.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Read(b)
}
