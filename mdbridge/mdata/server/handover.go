package server

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"meta9/fs"
)

// Handed is a connection that goes to another process, between two lines.
type Handed struct {
	Conn   net.Conn
	Who    fs.Principal
	Via    string // Serve's
	Input  []byte // what was read of the next lines
	Output []byte // replies that were not sent
}

// late hands over a connection that comes when the others have gone.
func (s *Server) late(h Handed) bool {
	if _, ok := h.Conn.(syscall.Conn); !ok || !s.handing.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		s.handed = append(s.handed, h)
	}
	return s.closing
}

// longAgo is a deadline that ends every read and write.
var longAgo = time.Unix(1, 0)

// HandOver ends the server as Drain does, but keeps the connections that have a file
// descriptor: they are no longer read or written, and not closed. What came in whole is
// answered.
func (s *Server) HandOver(ctx context.Context) ([]Handed, error) {
	s.mu.Lock()
	s.handing.Store(true)
	s.mu.Unlock()
	s.endAll(func(nc net.Conn) {
		if _, ok := nc.(syscall.Conn); !ok {
			finishReading(nc)
			return
		}
		_ = nc.SetDeadline(longAgo)
	})
	err := s.await(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed, err
}

// Adopt goes on with a connection that another process has handed over, as Serve.
func (s *Server) Adopt(h Handed) {
	_ = h.Conn.SetDeadline(time.Time{})
	s.serve(h)
}

// leaves tells whether err is that of a connection which is handed over.
func (c *conn) leaves(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && c.server.handing.Load()
}

// stays hands the connection over, if it can be, now that nothing of it is done any more.
func (c *conn) stays(h Handed) bool {
	s := c.server
	rest, whole := c.lines.Rest()
	if _, ok := c.Conn.(syscall.Conn); !ok || !whole || !s.handing.Load() || c.err != nil && !c.leaves(c.err) || c.ended {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handed = append(s.handed, Handed{h.Conn, h.Who, h.Via, slices.Concat(rest, c.ahead), slices.Clone(c.out)})
	return true
}
