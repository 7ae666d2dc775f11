package listen

import (
	"net"
	"os"
)

// NewVsockConn is FromDescriptor's for vsock, which this machine need not have.
func NewVsockConn(f *os.File) (net.Conn, error) { return newVsockConn(f) }
