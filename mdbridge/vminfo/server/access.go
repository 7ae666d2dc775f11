package server

import (
	"net"
	"net/netip"
	"strings"
)

// Access is what a listener lets its clients have.
type Access struct {
	Internal bool     // internal_metadata, too
	Addr     net.Addr // where it listens
}

// admits tells whether a request's Host header may be meant for this listener.
// What a browser sends for a name that somebody else's DNS has led here is
// refused, and what a guest sends that takes QEMU's 10.0.2.2 for the way to a
// service of its own. On a unix socket any name will do.
func (a Access) admits(host string) bool {
	tcp, ok := a.Addr.(*net.TCPAddr)
	if !ok || host == "" {
		return true
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	asked, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	at := tcp.AddrPort().Addr().Unmap()
	asked = asked.Unmap()
	return at.IsUnspecified() || asked == at || at.IsLoopback() && asked.IsLoopback()
}
