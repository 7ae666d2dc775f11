// Package server serves the files of a VM's nocloud/ by HTTP, on a unix socket of the VM's
// own: the seed that cloud-init's NoCloud data source takes from a URL
// (ds=nocloud;s=http://ADDRESS/), for guests that cannot mount anything. QEMU's user
// networking leads the guest to the socket (guestfwd). The socket says which VM it is, but
// not who in it asks: any process of the guest can, and so can what a process of it may be
// led to ask. So there is nothing to change here, a request must look like one of a program
// that means this address, and a VM has no such socket unless its operator says so.
//
// Each connection is a goroutine of net/http's, which never has more than one request of
// it at work. What a connection and its answer hold is counted for the VM, before it is
// made; an answer is made in the VM's turn at the CPUs, and what net/http does is counted
// there as well.
//
// Server.mu guards the table of connections, and is held over nothing that waits.
package server

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"meta9/fs/budget"
	"meta9/fs/cpu"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/render"
)

// Limits bound what guests cost. Zero fields take DefaultLimits.
type Limits struct {
	Conns   int // connections of all VMs
	VMConns int // connections of one VM
}

// DefaultLimits let a VM have what a boot needs.
var DefaultLimits = Limits{Conns: 20_000, VMConns: 16}

// Config is what New needs.
type Config struct {
	Store  *store.Store
	Budget *budget.Budget // nil: none
	Limits Limits
	Fresh  func() error // why what the store has may be old: then nothing is answered; nil: it never is
}

// The times of a connection. One that waits for a request may stay, also for its first:
// QEMU has one for as long as the VM runs, where its guestfwd leads to a chardev.
const (
	headTime  = 10 * time.Second
	writeTime = time.Minute
	endTime   = 3 * time.Second // for what is being answered at the end
)

const (
	maxHead   = 8 << 10  // bytes of a request
	connBytes = 24 << 10 // about what net/http takes for a connection
	piece     = 64 << 10 // bytes of an answer that are written at a time
)

// What net/http takes of the CPUs, about, without a place: for a connection and for a request.
const (
	connTime    = 100 * time.Microsecond
	requestTime = 40 * time.Microsecond
)

// Server serves any number of connections.
type Server struct {
	cfg  Config
	http http.Server
	feed feed

	mu     sync.Mutex
	conns  map[string]map[*conn]bool // by VM
	count  int
	quiet  map[*conn]bool // those of which nothing has come yet, which net/http does not have
	closed bool
}

// New makes a Server. Close it.
func New(cfg Config) *Server {
	l, d := &cfg.Limits, DefaultLimits
	l.Conns, l.VMConns = cmp.Or(l.Conns, d.Conns), cmp.Or(l.VMConns, d.VMConns)
	s := &Server{cfg: cfg, conns: map[string]map[*conn]bool{}, quiet: map[*conn]bool{}, feed: feed{conns: make(chan net.Conn), ended: make(chan struct{})}}
	s.http = http.Server{
		Handler: s, ReadHeaderTimeout: headTime, WriteTimeout: writeTime, MaxHeaderBytes: maxHead,
		ErrorLog:    log.New(io.Discard, "", 0), // it logs at the guests' pace
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, guest{}, c) },
	}
	go func() { _ = s.http.Serve(&s.feed) }()
	return s
}

// guest is the key of a request's conn.
type guest struct{}

// Close ends the connections: what is being answered has a few seconds.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	quiet := slices.Collect(maps.Keys(s.quiet))
	s.mu.Unlock()
	for _, c := range quiet {
		_ = c.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

// Conns is how many connections are open now.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Serve answers what comes on nc, for the VM, until it ends, and closes it. A connection
// over a limit is closed at once.
func (s *Server) Serve(nc net.Conn, uuid string) {
	c := &conn{Conn: nc, server: s, vm: uuid, gone: make(chan struct{})}
	c.in = cpu.NewReader(nc, c.share)
	if !s.add(c) {
		_ = nc.Close()
		return
	}
	if !c.begins() {
		_ = c.Close()
		return
	}
	select {
	case s.feed.conns <- c:
		<-c.gone
	case <-s.feed.ended:
		_ = c.Close()
	}
}

// add counts a connection; false: there are too many.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.conns[c.vm]
	if s.closed || s.count >= s.cfg.Limits.Conns || len(own) >= s.cfg.Limits.VMConns {
		return false
	}
	if own == nil {
		own = map[*conn]bool{}
		s.conns[c.vm] = own
	}
	own[c], s.quiet[c] = true, true
	s.count++
	c.bytes = s.cfg.Budget.Account(c.vm)
	c.bytes.Force(connBytes)
	return true
}

// remove undoes add.
func (s *Server) remove(c *conn) {
	c.bytes.Release(connBytes)
	c.bytes.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.quiet, c)
	delete(s.conns[c.vm], c)
	if len(s.conns[c.vm]) == 0 {
		delete(s.conns, c.vm)
	}
	s.count--
}

// DropVM closes all connections of a VM, which was deleted.
func (s *Server) DropVM(uuid string) {
	s.mu.Lock()
	var all []*conn
	for c := range s.conns[uuid] {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

// conn is one connection of a VM.
type conn struct {
	net.Conn
	server *Server
	vm     string
	bytes  *budget.Account
	gone   chan struct{} // closed with it
	once   sync.Once
	first  []byte // what came first and was not read yet
	in     *cpu.Reader
}

// begins waits for the first byte, for as long as it takes: net/http gives a new connection
// no longer than a request. false: it has ended, or the server is closing.
func (c *conn) begins() bool {
	first := make([]byte, 1)
	if n, _ := c.Conn.Read(first); n == 0 {
		return false
	}
	c.first = first
	c.in.Pay(connTime)
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	delete(c.server.quiet, c)
	return !c.server.closed
}

// share is the VM's of the CPUs; nil: it is gone.
func (c *conn) share() *cpu.Share {
	if cell := c.server.cfg.Store.Cell(c.vm); cell != nil {
		return cell.CPU()
	}
	return nil
}

func (c *conn) Read(b []byte) (int, error) {
	if len(c.first) > 0 && len(b) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.in.Read(b)
}

func (c *conn) Close() error {
	c.once.Do(func() {
		c.server.remove(c)
		close(c.gone)
	})
	return c.Conn.Close()
}

// feed gives Serve's connections to net/http.
type feed struct {
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.ended:
		return nil, net.ErrClosed
	}
}

func (f *feed) Close() error {
	f.once.Do(func() { close(f.ended) })
	return nil
}

func (f *feed) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// ServeHTTP answers a request for /NAME, where NAME is a file of nocloud/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(guest{}).(*conn)
	c.in.Pay(requestTime)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if code, why := judge(r); why != "" {
		w.Header().Set("Connection", "close") // there may be a body that nobody reads
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, why, code)
		return
	}
	text, done, err := s.file(r.Context(), c, strings.TrimPrefix(r.URL.Path, "/"))
	switch {
	case errors.Is(err, errNone):
		http.Error(w, "no such file; here are /meta-data, /user-data, /vendor-data and, where the VM has NICs, /network-config", http.StatusNotFound)
		return
	case err != nil:
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer done()
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	if r.Method == http.MethodHead {
		return
	}
	for len(text) > 0 {
		n := min(len(text), piece)
		if _, err := io.WriteString(w, text[:n]); err != nil {
			return
		}
		text = text[n:]
	}
}

// judge says why a request is not answered; "": it is. A program of the guest's own asks
// the address; what somebody else has led here says so, or asks for a name.
func judge(r *http.Request) (code int, why string) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return http.StatusMethodNotAllowed, "only GET and HEAD"
	case !ownHost(r.Host):
		return http.StatusForbidden, "Host not allowed: ask for the address itself, not for a name"
	case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
		return http.StatusForbidden, "this is not for browsers"
	case r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" || r.Header.Get("Via") != "":
		return http.StatusForbidden, "this is not for proxies"
	case r.ContentLength != 0:
		return http.StatusBadRequest, "a request has no body"
	}
	return 0, ""
}

// ownHost tells whether a Host header names an address, and no name, for which somebody
// else's DNS could answer.
func ownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || host == "" || strings.EqualFold(host, "localhost")
}

// errNone is that there is no such file, or no VM any more.
var errNone = errors.New("no such file")

// file makes a file in the VM's turn, when its memory is there. The caller calls done when
// it needs the text no more.
func (s *Server) file(ctx context.Context, c *conn, name string) (text string, done func(), err error) {
	if s.cfg.Fresh != nil {
		if err := s.cfg.Fresh(); err != nil {
			return "", nil, err
		}
	}
	cell := s.cfg.Store.Cell(c.vm)
	if cell == nil {
		return "", nil, errNone
	}
	v := cell.VM()
	if v == nil {
		return "", nil, errNone
	}
	n := sizeOf(v, name)
	if err := c.bytes.Await(ctx, n); err != nil {
		return "", nil, err
	}
	var place cpu.Place
	for !place.Take(cell.CPU()) { // it fails only after some seconds, and a turn will come
	}
	text, ok := render.NoCloud(v, name)
	place.Give()
	if !ok {
		c.bytes.Release(n)
		return "", nil, errNone
	}
	return text, func() { c.bytes.Release(n) }, nil
}

// sizeOf is about the memory that a file of nocloud/ takes, or keeps while it is sent.
func sizeOf(v *vm.VM, name string) int64 {
	key := func(s vm.Space, name string) int64 {
		if e := v.Get(s, name); e != nil {
			return int64(len(e.Value))
		}
		return 0
	}
	switch name {
	case "meta-data": // of properties and this key; as YAML, while it is made
		return 4 * (v.Size() - v.Bytes() + key(vm.Keys, "root_authorized_keys"))
	case "network-config":
		return 4*(v.Size()-v.Bytes()) + key(vm.Keys, "cloud-init:network-config")
	}
	n := int64(1 << 10)
	for _, in := range []string{name, "cloud-init:" + name} {
		n += key(vm.Keys, in) + key(vm.Internal, in)
	}
	return n
}
