//go:build !guest && !plan9

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"meta9/cmd/meta9/web"
	"meta9/session/client"
)

// newWeb is `meta9 web`.
func newWeb(a *app) *cobra.Command {
	var listen string
	var open bool
	var opt web.Options
	cmd := &cobra.Command{
		Use:   "web [--open] [--read-only] [--listen ADDR]",
		Short: "serve a page for your browser: VMs, keys, events, health",
		Long: `Serve a page that shows VMs, their keys, events and the daemon's health, and print its
address. The page is on the loopback and uses this command's connection to meta9d, so
the daemon needs no listener, and the page may do what the command may. It is there
until the command ends (Ctrl-C).

An address opens the page once, in one tab, which may be loaded again; then the next
address is printed. Nobody else on this machine gets in without one.

From another machine, forward the port by ssh, and open the same address there:
  ssh -L 8009:127.0.0.1:8009 HOST meta9 web --listen 127.0.0.1:8009`,
		Example: `meta9 web --open
meta9 web --read-only --listen 127.0.0.1:8009`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := onLoopback(listen)
			if err != nil {
				return err
			}
			defer l.Close()
			ctx, cancel := a.withTimeout(cmd.Context())
			c, err := a.connect(ctx, client.Options{})
			cancel()
			if err != nil {
				return err
			}
			defer c.Close()
			a.progress.hide()
			return a.web(cmd.Context(), c, l, opt, open)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:0", "serve at `ADDR`, HOST:PORT on the loopback; port 0 is any that is free")
	f.BoolVar(&open, "open", false, "open the page in your browser")
	f.BoolVar(&opt.ReadOnly, "read-only", false, "change nothing")
	return cmd
}

// web serves the page until ctx ends.
func (a *app) web(ctx context.Context, c *client.Client, l net.Listener, opt web.Options, open bool) error {
	address := func(token string) string { return "http://" + l.Addr().String() + "/#open/" + token }
	opt.Opened = func(next string) { fmt.Fprintf(a.out, "The page is open. Another opens at\n  %s\n", address(next)) }
	opt.Attach = func(ctx context.Context, uuid string) (string, error) { return a.attachLines(ctx, c, uuid) }
	s := web.New(c, opt)
	fmt.Fprintf(a.out, "The page opens at\n  %s\nCtrl-C ends it.\n", address(s.Token()))
	if open {
		forget, err := browse(address(s.Token()))
		defer forget()
		if err != nil {
			fmt.Fprintf(a.err, "meta9: no browser was started (%v): open the address above\n", err)
		}
	}
	return s.Serve(ctx, l)
}

// onLoopback listens at addr, HOST:PORT, if only this machine can connect there.
func onLoopback(addr string) (net.Listener, error) {
	at, err := net.ResolveTCPAddr("tcp", addr)
	switch {
	case err != nil:
		return nil, misused("--listen %s: %w", addr, err)
	case !at.IP.IsLoopback():
		return nil, misused("--listen %s: the page is for the loopback only (127.0.0.1:PORT): its bytes are not encrypted; 'meta9 help web' shows how ssh brings it to another machine", addr)
	}
	return net.ListenTCP("tcp", at)
}

// browse opens the address in the user's browser. The address goes by a file that only
// the user can read, since all users see the arguments of programs; forget takes it away.
func browse(address string) (forget func(), err error) {
	dir, err := os.MkdirTemp("", "meta9-web-") // 0700
	if err != nil {
		return func() {}, err
	}
	forget = func() { _ = os.RemoveAll(dir) }
	file := filepath.Join(dir, "open.html")
	page := `<!doctype html><meta charset="utf-8"><title>meta9</title><meta http-equiv="refresh" content="0;url=` + address + `"><a href="` + address + `">meta9</a>`
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		return forget, err
	}
	cmd := exec.Command("xdg-open", file)
	if err := cmd.Start(); err != nil {
		return forget, err
	}
	go func() { _ = cmd.Wait() }() // the browser says itself what is wrong
	return forget, nil
}
