package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"meta9/mdbridge/vminfo"
	"meta9/session/client"
)

// Where meta9d's admin socket is looked for without --addr and META9_ADDR: where a
// packaged meta9d makes it, and where one that was started by hand does.
const (
	systemSocket = "/run/meta9/admin.sock"
	localSocket  = "./meta9-run/admin.sock"
)

// defaultPort is the virtio-serial port that is looked for in a guest, by the commands that
// only a guest runs.
const defaultPort = "virtio:meta9"

// errNoSocket is why there is no address; the exit code is that of no connection.
var errNoSocket = fmt.Errorf("%w: neither %s nor %s is there; say with --addr or META9_ADDR where meta9d is",
	client.ErrUnavailable, systemSocket, localSocket)

// errNoEntry is the error where the user may not see whether there is a socket.
var errNoEntry = fmt.Errorf("%w: you may not enter the folder of", client.ErrUnavailable)

// address is where meta9d is. If the first socket is there but does not answer, address
// does not try the next one: that could be another meta9d's, and the user would not know.
//
// A socket in the current folder that the user has not named may belong to any user:
// then address sets a.checkServer, for all connections to sockets of that folder.
func (a *app) address() (string, error) {
	if a.addr != "" {
		return a.addr, nil
	}
	if env := os.Getenv("META9_ADDR"); env != "" {
		return env, nil
	}
	_, system := os.Stat(systemSocket)
	_, local := os.Stat(localSocket)
	switch {
	case system == nil:
		return systemSocket, nil // only root makes folders in /run
	case local == nil:
		a.checkServer = true
		return localSocket, nil
	case errors.Is(system, os.ErrPermission):
		return "", fmt.Errorf("%w %s", errNoEntry, systemSocket)
	case errors.Is(local, os.ErrPermission):
		return "", fmt.Errorf("%w %s", errNoEntry, localSocket)
	}
	return "", errNoSocket
}

// dialChecked returns a function that connects to the unix socket at path, if root or the
// caller serves it. It checks every connection and not the path: the owner of the folder
// may put another socket there at any time.
func dialChecked(path string) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		if err := checkServer(c.(*net.UnixConn)); err != nil {
			c.Close()
			return nil, fmt.Errorf("%w: %v; --addr unix:%s uses it all the same", client.ErrUnavailable, err, path)
		}
		return c, nil
	}
}

// checkServer fails where the process behind the socket is neither root's nor the
// caller's.
func checkServer(c *net.UnixConn) error {
	_, uid, err := serverOf(c)
	if err != nil {
		return fmt.Errorf("who serves this socket is not known: %w", err)
	}
	if uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("user %d serves this socket, who is neither root nor you (user %d) and could read and change all that passes", uid, os.Geteuid())
	}
	return nil
}

// connect connects to meta9d, as opt and the flags say.
func (a *app) connect(ctx context.Context, opt client.Options) (*client.Client, error) {
	addr, err := a.address()
	if err != nil {
		return nil, err
	}
	if a.checkServer {
		opt.Dial = dialChecked(addr)
	}
	return a.connectTo(ctx, addr, opt)
}

// connectTo connects to the meta9d at addr.
func (a *app) connectTo(ctx context.Context, addr string, opt client.Options) (_ *client.Client, err error) {
	opt.User = os.Getenv("USER")
	if opt.Mumble, err = a.message(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(addr, "tls:") {
		if opt.TLS, err = a.tlsConfig(); err != nil {
			return nil, err
		}
	}
	a.progress.say("connecting to " + addr)
	return client.Dial(ctx, addr, opt)
}

// vminfo makes a client of the vminfod at addr; name is who asks.
func (a *app) vminfo(addr, name string) (*vminfo.Client, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok && a.checkServer {
		return vminfo.Over(dialChecked(path), name), nil
	}
	return vminfo.New(addr, name)
}

// with runs do on a connection, in the time of --timeout.
func (a *app) with(cmd *cobra.Command, do func(ctx context.Context, c *client.Client) error) error {
	ctx, cancel := a.withTimeout(cmd.Context())
	defer cancel()
	opt := client.Options{Notify: a.progress.connection}
	c, err := a.connect(ctx, opt)
	if err == nil && a.follow != nil {
		c, err = a.follow(ctx, cmd, c, opt)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	a.progress.say("waiting for the server")
	if a.elsewhere != nil {
		explain := func(err error) error { return a.elsewhere(ctx, c, err) }
		a.explain.Store(&explain)
		defer a.explain.Store(nil)
	}
	return a.explained(do(ctx, c))
}

// elsewhereOf adds to err which host has the VM, as explained does, for commands that do not run in
// with. It makes a connection of its own.
func (a *app) elsewhereOf(ctx context.Context, err error) error {
	if a.elsewhere == nil || err == nil {
		return err
	}
	ctx, cancel := a.withTimeout(ctx)
	defer cancel()
	c, none := a.connect(ctx, client.Options{})
	if none != nil {
		return err
	}
	defer c.Close()
	return a.elsewhere(ctx, c, err)
}

// explained adds to an error what a.explain knows of it.
func (a *app) explained(err error) error {
	if explain := a.explain.Load(); explain != nil && err != nil {
		return (*explain)(err)
	}
	return err
}

// message is the MUMBLE message to authenticate with, or "".
func (a *app) message() (string, error) {
	if a.mumble == "" {
		return os.Getenv("META9_MUMBLE"), nil
	}
	b, err := os.ReadFile(a.mumble)
	return strings.TrimSpace(string(b)), err
}

// tlsConfig is what the certificate flags say.
func (a *app) tlsConfig() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if a.cert != "" {
		key := a.key
		if key == "" {
			key = a.cert
		}
		pair, err := tls.LoadX509KeyPair(a.cert, key)
		if err != nil {
			return nil, fmt.Errorf("--cert: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	if a.ca != "" {
		pem, err := os.ReadFile(a.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca: %s: %w", a.ca, errors.New("no certificate in it"))
		}
	}
	return conf, nil
}
