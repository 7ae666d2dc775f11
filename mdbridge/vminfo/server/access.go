package server

import (
	"net"
	"net/http"
	"net/netip"
	"os"
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
	at := tcp.AddrPort().Addr().Unmap()
	asked, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, "localhost") || !at.IsLoopback() && isOwnName(host)
	}
	asked = asked.Unmap()
	return at.IsUnspecified() || asked == at || at.IsLoopback() && asked.IsLoopback()
}

// foreign tells whether a browser makes the request for a page of another origin: it
// says so by Sec-Fetch-Site (W3C, Fetch Metadata), and by Origin (RFC 6454) where the
// page could read the answer. A page that somebody opens by its address is no such
// page, and other clients send neither.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return true
	}
	origin := r.Header.Get("Origin")
	return origin != "" && origin != "http://"+r.Host
}

// isOwnName tells whether the name is this machine's, with its domain or without.
func isOwnName(host string) bool {
	own, err := os.Hostname()
	short, _, _ := strings.Cut(own, ".")
	return err == nil && (strings.EqualFold(host, own) || strings.EqualFold(host, short))
}
