//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"meta9/backoff"
	"meta9/cmd/meta9/credential"
	"meta9/cmd/systemd"
	"meta9/rarelog"
	"meta9/session/client"
)

// credentialMap is where a package has the map.
const credentialMap = "/etc/meta9/credentials.toml"

// credentialRedials makes the pauses between tries to reach the host.
var credentialRedials = backoff.Backoff{First: 200 * time.Millisecond, Last: 5 * time.Second}

const credentialHelp = `Give systemd keys of this guest's VM as credentials of units, over the socket that
systemd has for this service (meta9-credential.socket). A unit names the socket:

Unit:
  [Service]
  LoadCredential=db.password:/run/meta9-credential.sock
  ExecStart=/usr/bin/app --password-file ${CREDENTIALS_DIRECTORY}/db.password

Which unit may have which key is said by the map; what it does not say is refused:

Map:
  by_name = ["web.service"]         # its credential NAME is the key credential.web.service.NAME

  [unit."app@.service"]             # all instances of a template that have no table of
                                    # their own and are not in by_name, or one unit
  "db.password" = "app-db-password" # a key in keys/; or a path: "internal/x_pw"

A unit whose credential is refused, has no key, or cannot be had within --timeout, does not
start: systemd says "Failed to set up credentials", and the journal of this service why.
systemd 247 and later ask so. Only root, and the user whom the service runs as, are
answered. The map is read for each who asks: one that is wrong refuses all, until it is
mended. It must be root's (or yours), and written by nobody else.

The service ends when nobody has asked for a while (--idle), and systemd starts it again. A
virtio-serial port is for one program at a time: beside 'meta9 agent' or a mount the
address must be another.`

// newCredential is `meta9 credential`.
func newCredential(a *app) *cobra.Command {
	var file string
	var idle time.Duration
	cmd := &cobra.Command{
		Use:               "credential [--map FILE]",
		Short:             "give systemd's units keys as credentials",
		Long:              credentialHelp,
		Example:           "systemctl enable --now meta9-credential.socket\nsystemd-socket-activate -l /run/meta9-credential.sock meta9 credential",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.addr = cmp.Or(a.addr, os.Getenv("META9_ADDR"), defaultPort)
			a.progress.hide()
			return a.credentials(cmd.Context(), file, idle)
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "map", credentialMap, "which unit may have which key is in `FILE`; one that is not there allows nothing")
	f.DurationVar(&idle, "idle", time.Minute, "end when nobody has asked for `TIME`; 0: never")
	_ = cmd.MarkFlagFilename("map", "toml")
	return cmd
}

// credentials answers at the sockets that systemd gives: one that listens, or, with
// Accept=yes, one connection. A map or an address that is wrong refuses those who ask, and
// does not end it: their connections would stay in the queue, and systemd would start it
// again at once, and then give the socket up for good.
func (a *app) credentials(ctx context.Context, file string, idle time.Duration) error {
	fds, err := systemd.Sockets()
	if err != nil {
		return usageError{err}
	}
	if len(fds) != 1 {
		return misused("systemd gave %d sockets, and there must be one; start meta9-credential.socket, or try 'systemd-socket-activate -l PATH meta9 credential'", len(fds))
	}
	host := &lateClient{app: a}
	defer host.close()
	s := &credential.Server{
		Map:  func() (*credential.Map, error) { return credential.Load(file) },
		Read: host.read, Time: a.timeout, Log: rarelog.Log{Log: textLog(a.err)},
	}
	listens, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return fmt.Errorf("what systemd gave is no socket: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "systemd's socket")
	defer f.Close()
	if listens == 0 {
		c, err := net.FileConn(f)
		if err != nil {
			return err
		}
		u, ok := c.(*net.UnixConn)
		if !ok {
			return misused("systemd gave a socket of another kind than AF_UNIX")
		}
		if s.Answer(ctx, u) != nil {
			return saidError{exitFailed}
		}
		return nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return misused("systemd gave a socket of another kind than AF_UNIX")
	}
	return s.Serve(ctx, u, idle)
}

// lateClient connects when something is read, and again where that failed.
type lateClient struct {
	*app
	mu sync.Mutex // held while it connects: others wait for the same connection
	c  *client.Client
}

func (l *lateClient) read(ctx context.Context, path string) ([]byte, error) {
	c, err := l.client(ctx)
	if err != nil {
		return nil, err
	}
	return c.ReadAtMost(ctx, path, credential.MaxSize)
}

// client tries until ctx ends: a host that is being restarted is worth the wait.
func (l *lateClient) client(ctx context.Context) (*client.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.dialable(); err != nil { // no time mends it
		return nil, err
	}
	for tries := 1; l.c == nil; tries++ {
		c, err := l.connect(ctx, client.Options{Patience: -1})
		switch {
		case err == nil:
			l.c = c
		case !credentialRedials.Wait(ctx, tries):
			return nil, err
		}
	}
	return l.c, nil
}

func (l *lateClient) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c != nil {
		l.c.Close()
	}
}
