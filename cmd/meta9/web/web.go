// Package web is what `meta9 web` serves: a page for the browser of whoever runs it,
// over the connection to meta9d that the command has.
//
// The page (the folder page) is in the program, and loads nothing from elsewhere. It asks
// this package for what it shows; each answer is read from meta9d anew, so that nothing
// here can be out of date. What the page changes is a transaction, which it writes itself.
//
// Trust. Every user of the machine, and every page in a browser on it, can connect to the
// loopback, while the connection to meta9d may be the admin's. So only the page's own
// files are given to anybody. Everything else needs a key. The page gets it in exchange
// for a one-time token, which only the command's terminal shows. The key comes in a
// header, not in a cookie, since browsers send a host's cookies to all of its ports.
// Requests with another Host (DNS rebinding), and requests below /api/ from another
// origin, are refused first. Of names and values the page makes text only, and its policy
// (CSP) lets no script in.
//
// Concurrency: a Server may be used by any number of goroutines; mu guards its token and
// its keys, and is not held while anything is waited for.
package web

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"meta9/session/client"
)

//go:embed page
var files embed.FS

// Bounds of what the page may ask for.
const (
	maxPages   = 16       // keys; a new one ends the oldest
	maxStreams = 32       // streams of events at a time
	maxBody    = 2 << 20  // bytes of a request: a transaction has 1 MiB
	maxToken   = 4 << 10  // bytes of a request that anybody may send
	maxHeader  = 16 << 10 // bytes
)

// patience is how long an answer may take, and who asks may take for his part of it.
const patience = 30 * time.Second

// policy is the page's Content-Security-Policy: its own three kinds of files, and
// nothing that text could become.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Options are what a Server may be told.
type Options struct {
	// ReadOnly refuses all changes.
	ReadOnly bool
	// Opened is told when a token was used, with the one that comes next.
	Opened func(next string)
	// Attach gives the lines that attach a VM; nil: the page shows none.
	Attach func(ctx context.Context, uuid string) (string, error)
}

// Server serves the page over one client.
type Server struct {
	files   *client.Client
	opt     Options
	handler http.Handler
	streams chan struct{} // a place for each stream of events
	slow    time.Duration // whoever does not take an answer for so long has gone

	mu    sync.Mutex
	token string
	keys  []string // of the pages that are open, the oldest first
}

// New makes the server of a page for what the client c shows.
func New(c *client.Client, opt Options) *Server {
	s := &Server{files: c, opt: opt, streams: make(chan struct{}, maxStreams), slow: 2 * patience, token: rand.Text()}
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is in the program
	}
	api := http.NewServeMux()
	for pattern, answer := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /api/status":            s.status,
		"GET /api/vms":               s.vms,
		"GET /api/vms/{uuid}":        s.vm,
		"GET /api/vms/{uuid}/value":  s.value,
		"GET /api/vms/{uuid}/attach": s.attach,
		"POST /api/vms/{uuid}/txn":   s.txn,
		"GET /api/events":            s.events,
	} {
		api.Handle(pattern, handler(answer))
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServerFS(page))
	mux.Handle("POST /api/open", handler(s.open))
	mux.Handle("/api/", s.requireKey(api))
	s.handler = mux
	return s
}

// Token is what opens the page, once.
func (s *Server) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// Serve serves connections of l, which is on the loopback, until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.guard(l.Addr().(*net.TCPAddr)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       patience,
		WriteTimeout:      s.slow,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// guard lets through what the page of this address asks for. addr is where it is served.
func (s *Server) guard(addr *net.TCPAddr) http.Handler {
	host, port, _ := net.SplitHostPort(addr.String())
	hosts := map[string]bool{addr.String(): true, net.JoinHostPort("localhost", port): true}
	if port == "80" { // which browsers leave out
		hosts[strings.TrimSuffix(net.JoinHostPort(host, ""), ":")], hosts["localhost"] = true, true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
		switch {
		case !hosts[r.Host]:
			refuse(w, http.StatusMisdirectedRequest, "this is not "+r.Host+": the page is at http://"+addr.String())
		case !strings.HasPrefix(r.URL.Path, "/api/"): // the page, which tells nothing; a link or a file leads to it
			s.handler.ServeHTTP(w, r)
		case origin != "" && origin != "http://"+r.Host, site == "cross-site" || site == "same-site":
			refuse(w, http.StatusForbidden, "this comes from a page of another origin")
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			s.handler.ServeHTTP(w, r)
		}
	})
}

// open gives a key for the token, which is over then.
func (s *Server) open(w http.ResponseWriter, r *http.Request) error {
	var asked struct{ Token string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxToken)).Decode(&asked); err != nil {
		return failed{http.StatusBadRequest, "this is no token: " + err.Error()}
	}
	s.mu.Lock()
	if !equal(asked.Token, s.token) {
		s.mu.Unlock()
		return failed{http.StatusForbidden, "this address was used before, or is not of this 'meta9 web': its terminal shows one that is new"}
	}
	key := rand.Text()
	s.token = rand.Text()
	if s.keys = append(s.keys, key); len(s.keys) > maxPages {
		s.keys = s.keys[1:]
	}
	next := s.token
	s.mu.Unlock()
	if s.opt.Opened != nil {
		s.opt.Opened(next)
	}
	return answer(w, struct {
		Key      string `json:"key"`
		ReadOnly bool   `json:"readOnly"`
	}{key, s.opt.ReadOnly})
}

// requireKey lets through who has a key.
func (s *Server) requireKey(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !s.isOpen(key) {
			refuse(w, http.StatusUnauthorized, "this page is not open any more: the terminal of 'meta9 web' shows an address that opens another")
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) isOpen(key string) (found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		found = equal(key, k) || found
	}
	return found
}

// equal compares secrets in a time that does not tell how much of them is equal.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
