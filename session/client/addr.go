package client

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"time"

	"meta9/fs/errs"
)

// keepAlive notices a peer that is gone without a word in about 20 s, while its
// session is still parked.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 8 * time.Second, Interval: 4 * time.Second, Count: 3}

// dialer makes a transport.
type dialer func(ctx context.Context) (net.Conn, error)

// parseAddr makes a dialer of an address: unix:PATH, tcp:HOST:PORT, tls:HOST:PORT,
// or the PATH of a unix socket, in which a colon needs a slash or a dot in front.
// Another kind of channel is another case here.
func parseAddr(addr string, conf *tls.Config) (dialer, error) {
	kind, rest, ok := strings.Cut(addr, ":")
	switch {
	case strings.HasPrefix(addr, "/"), strings.HasPrefix(addr, "."), !ok && addr != "":
		kind, rest = "unix", addr
	case !ok, rest == "":
		kind = ""
	}
	switch kind {
	case "unix":
		return dialNet("unix", rest), nil
	case "tcp", "tls":
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return nil, errs.New(errs.Invalid, "%v", err)
		}
		if kind == "tls" {
			return dialTLS(rest, conf), nil
		}
		return dialNet("tcp", rest), nil
	}
	return nil, errs.New(errs.Invalid, "an address is unix:PATH, tcp:HOST:PORT, tls:HOST:PORT or the path of a unix socket")
}

func dialNet(network, addr string) dialer {
	d := netDialer(network)
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, network, addr) }
}

func dialTLS(addr string, conf *tls.Config) dialer {
	d := tls.Dialer{NetDialer: netDialer("tcp"), Config: conf}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
}

func netDialer(network string) *net.Dialer {
	d := &net.Dialer{Timeout: greetTime, KeepAliveConfig: keepAlive}
	if network == "tcp" {
		d.Control = control
	}
	return d
}
