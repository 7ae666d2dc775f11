package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// defaultAddrs are where meta9d's admin socket is looked for: where meta9d makes
// it when it is started by hand, and where a packaged one does.
var defaultAddrs = []string{"./meta9-run/admin.sock", "/run/meta9/admin.sock"}

// errNoSocket is why there is no address; the exit code is that of no connection.
var errNoSocket = fmt.Errorf("%w: neither %s nor %s is there; say with --addr or META9_ADDR where meta9d is",
	client.ErrUnavailable, defaultAddrs[0], defaultAddrs[1])

// address is where meta9d is. A socket that is there but dead is not passed over:
// that would be another meta9d's without a word.
func (a *app) address() (string, error) {
	if a.addr != "" {
		return a.addr, nil
	}
	if env := os.Getenv("META9_ADDR"); env != "" {
		return env, nil
	}
	for _, path := range defaultAddrs {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errNoSocket
}

// connect connects to meta9d; notify may be nil.
func (a *app) connect(ctx context.Context, notify func(client.State)) (*client.Client, error) {
	addr, err := a.address()
	if err != nil {
		return nil, err
	}
	opt := client.Options{User: os.Getenv("USER"), Notify: notify}
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

// with runs do on a connection, in the time of --timeout.
func (a *app) with(cmd *cobra.Command, do func(ctx context.Context, c *client.Client) error) error {
	ctx, cancel := a.limited(cmd.Context())
	defer cancel()
	c, err := a.connect(ctx, a.progress.connection)
	if err != nil {
		return err
	}
	defer c.Close()
	a.progress.say("waiting for the server")
	return do(ctx, c)
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
