// Package server answers vminfod's HTTP API over the VMs of a store: /ping,
// /status, /vms, /vms/ZONENAME and /events, in the shapes, the order of members
// and the texts of the real service (docs/vminfo.md), and beside it what that
// lacks: filters, ETags, a stream that goes on where it was cut off, health.
//
// Each request is a goroutine of net/http's. The store's committer adds one line
// to the feed for each VM that a commit changed, before the commit is
// acknowledged, and makes no text of it: the first listener to need a line renders
// it, and all share the bytes; a large one is rendered for each, a piece at a time. A
// VM that changes faster than its share of the feed has several changes told as one
// (feed). One goroutine of the Server's own tells what has waited, and wakes the
// listeners. What a listener costs is bounded: a place in the feed, and the one
// line that it is reading. A listener that falls behind the feed gets an event that says
// so, and its stream ends; one that reads nothing for Patience is cut off.
//
// Locks, each by itself: feed.mu, bodies.mu (held while a list is rendered).
package server

import (
	"cmp"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs/budget"
	"meta9/fs/store"
)

// Limits bound what clients cost. Zero fields take DefaultLimits.
type Limits struct {
	Listeners int           // of /events at a time
	Events    int           // kept for listeners that are slow or come back
	Bytes     int64         // of those events, roughly; and of lines that slow listeners still hold
	Patience  time.Duration // how long a client may read nothing
}

// DefaultLimits let a thousand listeners and more watch a host of many VMs.
var DefaultLimits = Limits{Listeners: 4096, Events: 8192, Bytes: 64 << 20, Patience: time.Minute}

// Config is what New needs. Zero fields take the defaults, or are off.
type Config struct {
	Store   *store.Store
	Budget  *budget.Budget // of the bytes that answers hold; nil: none
	Limits  Limits
	Mirror  func() Mirror    // of a store that mirrors another vminfod; nil: it is its own
	Metrics http.Handler     // answers /metrics
	Now     func() time.Time // time.Now
}

// Mirror is how a mirror stands to its upstream.
type Mirror struct {
	From      string    // its address
	Stale     bool      // the VMs may be old: no stream of events, or the upstream does not answer
	Why       string    // why it is stale
	Refreshed time.Time // when it last had all VMs; zero: never
	Errors    []MirrorError
}

// MirrorError is something that went wrong.
type MirrorError struct {
	Text string
	Time time.Time
}

// Stats count from the start on, but for Listeners, those that are connected now.
type Stats struct {
	Listeners int
	Dropped   uint64 // listeners that were too slow
	Events    uint64 // changes of VMs
	Requests  uint64
	Refused   uint64 // for their Host or origin, for want of room, or for being one listener too many
}

// Server answers any number of requests, of any number of listeners' Handlers.
type Server struct {
	cfg     Config
	started time.Time
	nonce   string // tells the tags of this process from those of others
	feed    *feed
	lists   [2]bodies // by Access.Internal
	closing chan struct{}
	closed  sync.Once
	done    chan struct{} // the goroutine that wakes has ended

	requests, refused atomic.Uint64
}

// New makes a Server that records what changes in the store: call it before the
// store's first Submit. Close it.
func New(cfg Config) *Server {
	l, d := &cfg.Limits, DefaultLimits
	l.Listeners, l.Events = cmp.Or(l.Listeners, d.Listeners), cmp.Or(l.Events, d.Events)
	l.Bytes, l.Patience = cmp.Or(l.Bytes, d.Bytes), cmp.Or(l.Patience, d.Patience)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{
		cfg: cfg, started: cfg.Now(), feed: newFeed(*l, cfg.Store.Rev()),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	s.nonce = strconv.FormatInt(s.started.UnixNano(), 36)
	cfg.Store.Record(func(c store.Committed) {
		s.feed.add(newLine(c.Rev(), cfg.Now(), c.Before, c.After))
	})
	go func() {
		defer close(s.done)
		s.feed.wakeAll(s.closing)
	}()
	return s
}

// Close ends every stream of events; what else is being answered goes on.
func (s *Server) Close() {
	s.closed.Do(func() { close(s.closing) })
	<-s.done
}

// Stats are the counters.
func (s *Server) Stats() Stats {
	st := s.feed.stats()
	st.Requests, st.Refused = s.requests.Load(), s.refused.Load()
	return st
}

// Handler answers the requests that come in by one listener.
func (s *Server) Handler(access Access) http.Handler {
	a := newEndpoint(access, s.cfg.Budget)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case !a.admits(r.Host):
			s.refused.Add(1)
			fail(w, http.StatusForbidden, "Host not allowed: "+r.Host+"; name an address of this listener")
		case foreign(r):
			s.refused.Add(1)
			fail(w, http.StatusForbidden, "this API is not for pages of another origin")
		case r.Method != http.MethodGet:
			w.WriteHeader(http.StatusBadRequest)
		default:
			s.get(w, r, a)
		}
	})
}

// get answers by the first name of the path, as vminfod does: it ignores what follows,
// except for a VM's name.
func (s *Server) get(w http.ResponseWriter, r *http.Request, a *endpoint) {
	names := strings.SplitN(path.Clean("/" + r.URL.EscapedPath())[1:], "/", 3)
	switch names[0] {
	case "ping":
		reply(w, []byte(`{"ping":"pong"}`))
	case "status":
		s.serveStatus(w, r)
	case "vms":
		if len(names) > 1 {
			s.serveVM(w, r, a, names[1])
			return
		}
		s.serveVMs(w, r, a)
	case "events":
		s.serveEvents(w, r, a)
	default:
		s.getOurs(w, r, names[0])
	}
}

// getOurs answers the paths that vminfod does not have.
func (s *Server) getOurs(w http.ResponseWriter, r *http.Request, name string) {
	switch {
	case name == "metrics" && s.cfg.Metrics != nil:
		w.Header().Del("Content-Type")
		s.cfg.Metrics.ServeHTTP(w, r)
	case name == "healthz":
		health(w, s.cfg.Store.Err())
	case name == "readyz":
		health(w, s.ready())
	default:
		fail(w, http.StatusNotFound, "Unsupported URL Path")
	}
}

// reply sends a whole body.
func reply(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client has gone
}

// fail sends an error's text.
func fail(w http.ResponseWriter, code int, text string) {
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}
