package guest

import (
	"errors"
	"io"
	"net"
	"sync"
)

// Port is the host's end of the port out of a guest that migrates: it stays while the guest goes
// from one QEMU to another. Join uses it. Nothing is asked of the guest while it moves.
type Port struct {
	read *io.PipeReader
	fill *io.PipeWriter

	mu sync.Mutex
	to net.Conn
}

// NewPort makes a Port that no QEMU has yet.
func NewPort() *Port {
	p := new(Port)
	p.read, p.fill = io.Pipe()
	return p
}

// From passes on what comes of a QEMU, which has the other end of c.
func (p *Port) From(c net.Conn) { go func() { _, _ = io.Copy(p.fill, c) }() }

// At says in which QEMU the guest is.
func (p *Port) At(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = c
}

func (p *Port) Read(b []byte) (int, error) { return p.read.Read(b) }

func (p *Port) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to == nil {
		return 0, errors.New("the guest is nowhere")
	}
	return p.to.Write(b)
}

// Close ends what is read of it.
func (p *Port) Close() error { return p.fill.Close() }
