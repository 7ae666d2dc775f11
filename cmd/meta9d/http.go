package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meta9/descriptors"
	"meta9/fs"
	vminfo "meta9/mdbridge/vminfo/server"
	"meta9/session/listen"
)

// web is where vminfod's HTTP API is served, and what it shows there.
type web struct {
	Listen   []string `toml:"listen"`   // HOST:PORT or unix:PATH
	Internal bool     `toml:"internal"` // internal_metadata, too
	Metrics  []string `toml:"metrics"`  // HOST:PORT or unix:PATH: figures alone
}

// The times of HTTP connections; those of event streams are the vminfo server's.
const (
	httpHeadTime  = 10 * time.Second
	httpWriteTime = time.Minute
	httpIdleTime  = 2 * time.Minute
	httpEndTime   = 3 * time.Second        // for what is being answered at the end
	httpPause     = 100 * time.Millisecond // after a connection for which there was no descriptor
)

// newVminfo makes the server of the API, which follows the store from now on.
func (d *daemon) newVminfo() {
	cfg := vminfo.Config{
		Store: d.store, Budget: d.budget, Limits: vminfo.Limits{Events: int(d.cfg.Limits.Events)},
		Metrics: promhttp.HandlerFor(d.metrics(), promhttp.HandlerOpts{}),
	}
	if d.mirror != nil {
		cfg.Mirror = d.mirror.State
	}
	d.vminfo = vminfo.New(cfg)
	d.atEnd(d.vminfo.Close)
}

// serveHTTP opens the API's listeners: the admin's own socket, which shows all, and
// those that are configured.
func (d *daemon) serveHTTP() error {
	if err := d.openHTTP(d.adminHTTP(), true, d.withBackup); err != nil {
		return usageError{err}
	}
	for _, text := range d.cfg.HTTP.Listen {
		if err := d.openHTTP(text, d.cfg.HTTP.Internal, nil); err != nil {
			return usageError{err}
		}
	}
	for _, text := range d.cfg.HTTP.Metrics {
		if err := d.openHTTP(text, false, figuresOnly); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// adminHTTP is the admin's own socket.
func (d *daemon) adminHTTP() string { return "unix:" + filepath.Join(d.cfg.Run, "vminfo.sock") }

// figuresOnly shows of the API what has nothing of any VM.
func figuresOnly(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metrics", "/healthz", "/readyz":
			api.ServeHTTP(w, r)
		default:
			http.Error(w, "here are /metrics, /healthz and /readyz", http.StatusNotFound)
		}
	})
}

// openHTTP serves the API, or what change makes of it, on one listener until the end.
func (d *daemon) openHTTP(text string, internal bool, change func(http.Handler) http.Handler) error {
	l, err := d.listenHTTP(text)
	if err != nil {
		return fmt.Errorf("http listener %q: %w", text, err)
	}
	tally := new(listen.Tally)
	d.tallies.name("http:"+l.Addr().String(), tally)
	l = &bounded{Listener: l, tally: tally, admins: strings.HasPrefix(text, "unix:"), free: make(chan struct{}, int(d.cfg.Limits.Conns)), waitOpen: d.waitOpen}
	handler := d.vminfo.Handler(vminfo.Access{Internal: internal, Addr: l.Addr()})
	head := 16 << 10
	if change != nil {
		handler = change(handler)
		head = 1 << 20 // the admin names VMs that are to be exported
	}
	handler = d.freshHTTP(handler)
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: httpHeadTime, WriteTimeout: httpWriteTime, IdleTimeout: httpIdleTime,
		MaxHeaderBytes: head, ErrorLog: log.New(io.Discard, "", 0), // it logs at the peers' pace
	}
	go func() { _ = srv.Serve(l) }()
	d.atEnd(func() { endHTTP(srv, d.vminfo) })
	d.log.Info().Str("via", "http:"+l.Addr().String()).Bool("internal_metadata", internal).Msg("listening")
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && change == nil {
		d.log.Warn().Str("via", "http:"+l.Addr().String()).Msg("whoever reaches this address can read the metadata of all VMs")
	}
	return nil
}

// endHTTP ends the event streams, and lets the rest be answered for a while.
func endHTTP(srv *http.Server, v *vminfo.Server) {
	v.Close()
	ctx, cancel := context.WithTimeout(context.Background(), httpEndTime)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		srv.Close()
	}
}

// listenHTTP opens HOST:PORT, on the loopback where no host is said, or unix:PATH,
// whose peers are proved to be the admin.
func (d *daemon) listenHTTP(text string) (net.Listener, error) {
	if !strings.HasPrefix(text, "unix:") {
		if strings.HasPrefix(text, ":") {
			text = "127.0.0.1" + text
		}
		return d.listenTCP(text)
	}
	a, err := adminOnly(text)
	if err != nil {
		return nil, err
	}
	h := &acceptedListener{conns: make(chan net.Conn), ended: make(chan struct{}), addr: &net.UnixAddr{Name: a.Path, Net: "unix"}}
	cfg := listen.Config{Handle: h.take, Admins: d.admins, Log: d.log, Inherited: d.inherited}
	l, err := cfg.Listen(a)
	h.close = func() { d.closeListener(l) }
	return h, err
}

// listenTCP opens HOST:PORT, unless it is inherited.
func (d *daemon) listenTCP(text string) (net.Listener, error) {
	addr, err := net.ResolveTCPAddr("tcp", text)
	if err != nil {
		return nil, err
	}
	l := &tcpListener{d: d, asked: "http:" + text}
	if l.Listener, _ = d.inherited.Take(l.asked, addr); l.Listener == nil {
		l.Listener, err = net.Listen("tcp", text)
	}
	return l, err
}

// tcpListener is handed over at a live update.
type tcpListener struct {
	net.Listener
	d     *daemon
	asked string // by the settings
	once  sync.Once
}

// Close may be called again.
func (l *tcpListener) Close() (err error) {
	l.once.Do(func() {
		if l.d.leaves() {
			p, err := listen.Pass(l.asked, l.Listener)
			l.d.pass(err, p)
		}
		err = l.Listener.Close()
	})
	return err
}

// acceptedListener is a net.Listener of the connections that a listen.Listener has accepted
// and authenticated.
type acceptedListener struct {
	close func()
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
	addr  net.Addr
}

func (l *acceptedListener) take(c net.Conn, _ fs.Principal, _, _ string, ended func()) {
	defer ended() // for the listener: net/http has it now
	select {
	case l.conns <- c:
	case <-l.ended:
		c.Close()
	}
}

func (l *acceptedListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

func (l *acceptedListener) Close() error {
	l.once.Do(func() {
		close(l.ended)
		l.close()
	})
	return nil
}

func (l *acceptedListener) Addr() net.Addr { return l.addr }

// bounded closes a connection at once when there are too many.
type bounded struct {
	net.Listener
	admins   bool          // it may use the last descriptors
	free     chan struct{} // holds one for each connection
	tally    *listen.Tally
	waitOpen func() bool // nothing is accepted before
}

func (b *bounded) Accept() (net.Conn, error) {
	if !b.waitOpen() {
		return nil, net.ErrClosed
	}
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !b.admins && descriptors.Check(c) != nil {
			c.Close()
			time.Sleep(httpPause)
			continue
		}
		select {
		case b.free <- struct{}{}:
			b.tally.Begin()
			return &countedConn{Conn: c, of: b}, nil
		default:
			b.tally.Refuse()
			c.Close()
		}
	}
}

// countedConn counts as one connection until it is closed.
type countedConn struct {
	net.Conn
	of   *bounded
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.of.tally.End()
		<-c.of.free
	})
	return c.Conn.Close()
}

// checkHTTP refuses what cannot be a listener.
func checkHTTP(c *config) error {
	for _, text := range c.HTTP.Listen {
		if err := checkHTTPAddr(text); err != nil {
			return fmt.Errorf("http.listen: %w", err)
		}
	}
	for _, text := range c.HTTP.Metrics {
		if err := checkHTTPAddr(text); err != nil {
			return fmt.Errorf("http.metrics: %w", err)
		}
	}
	return nil
}

func checkHTTPAddr(text string) error {
	if strings.HasPrefix(text, "unix:") {
		_, err := adminOnly(text)
		return err
	}
	if _, err := net.ResolveTCPAddr("tcp", text); err != nil {
		return fmt.Errorf("%q is not HOST:PORT or unix:PATH", text)
	}
	return nil
}
