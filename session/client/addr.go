package client

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"meta9/fs/errs"
)

// keepAlive detects in about 20 s a server that is gone without closing the connection. By
// default a server keeps the session parked for longer than that (30 s).
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 8 * time.Second, Interval: 4 * time.Second, Count: 3}

// dialer makes a transport.
type dialer = func(ctx context.Context) (net.Conn, error)

// Dialer returns a function that makes a transport to addr, which may be called any number
// of times. addr is one of
//
//	unix:PATH
//	tcp:HOST:PORT
//	tls:HOST:PORT   with conf
//	vsock:CID:PORT  CID may be host, which is 2
//	virtio:NAME     a virtio-serial port, by its name
//	dev:PATH        a virtio-serial port or a terminal
//	PATH            of a unix socket or a device; a colon in it needs a slash or a
//	                dot in front
//
// A device carries marked packets (session/packet), and can be open once at a time.
// The transport is as Dial of this package and session/keep want it: it has
// deadlines. ctx bounds the dialling. errs.Invalid: addr is none of these.
func Dialer(addr string, conf *tls.Config) (func(ctx context.Context) (net.Conn, error), error) {
	kind, rest := splitAddr(addr)
	switch {
	case rest == "":
	case kind == "unix":
		return dialNet("unix", rest), nil
	case kind == "tcp", kind == "tls":
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return nil, errs.New(errs.Invalid, "%v", err)
		}
		if kind == "tls" {
			return dialTLS(rest, conf), nil
		}
		return dialNet("tcp", rest), nil
	case kind == "vsock":
		cid, port, err := parseVsock(rest)
		return dialVsock(cid, port), err
	case kind == "virtio":
		if strings.ContainsRune(rest, filepath.Separator) || rest == "." || rest == ".." {
			return nil, errs.New(errs.Invalid, "%q is no name of a port", rest)
		}
		return dialPort(rest), nil
	case kind == "dev":
		return dialDevice(rest), nil
	}
	return nil, errs.New(errs.Invalid, "an address is unix:PATH, tcp:HOST:PORT, tls:HOST:PORT, vsock:CID:PORT, virtio:NAME, dev:PATH, or the path of a unix socket or a device")
}

// splitAddr tells what kind of address it is; "": none. A path with no kind is that
// of a unix socket, unless a device is there.
func splitAddr(addr string) (kind, rest string) {
	kind, rest, ok := strings.Cut(addr, ":")
	if ok && !strings.HasPrefix(addr, "/") && !strings.HasPrefix(addr, ".") {
		return kind, rest
	}
	if i, err := os.Stat(addr); err == nil && i.Mode()&os.ModeCharDevice != 0 {
		return "dev", addr
	}
	return "unix", addr
}

// parseVsock reads CID:PORT.
func parseVsock(s string) (cid, port uint32, err error) {
	c, p, _ := strings.Cut(s, ":")
	if c == "host" {
		c = "2"
	}
	n, err1 := strconv.ParseUint(c, 10, 32)
	m, err2 := strconv.ParseUint(p, 10, 32)
	if err1 != nil || err2 != nil {
		return 0, 0, errs.New(errs.Invalid, "%q: vsock:CID:PORT has two numbers, or host in place of the first", "vsock:"+s)
	}
	return uint32(n), uint32(m), nil
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
	d := &net.Dialer{KeepAliveConfig: keepAlive}
	if network == "tcp" {
		d.Control = control
	}
	return d
}
