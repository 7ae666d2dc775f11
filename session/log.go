package session

import (
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	rarely   = time.Minute // how often one principal may cause a line in the log
	logTable = 1024        // principals that are told apart
)

// rareLog logs what peers cause: for each principal the first time at once, then
// once a minute with the number of lines held back, so that no guest chooses how
// much is logged. It has a lock of its own.
type rareLog struct {
	log zerolog.Logger
	now func() time.Time

	mu sync.Mutex
	by map[string]*held
}

type held struct {
	next  time.Time // no line before
	lines int       // held back since the last
}

func (r *rareLog) warn(p Peer, who, what string, err error) {
	if lines, ok := r.allow(who); ok {
		r.log.Warn().Str("who", who).Str("via", p.Via).Str("addr", p.Addr).Int("more", lines).Err(err).Msg(what)
	}
}

// allow tells whether who may have a line now, and how many were held back.
func (r *rareLog) allow(who string) (lines int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.by[who]
	if h == nil {
		if len(r.by) >= logTable {
			clear(r.by)
		}
		h = new(held)
		r.by[who] = h
	}
	now := r.now()
	if now.Before(h.next) {
		h.lines++
		return 0, false
	}
	lines, h.lines = h.lines, 0
	h.next = now.Add(rarely)
	return lines, true
}

// logEnd counts and logs a connection that ended because its peer broke the
// protocol. All other ends are nobody's business.
func (s *Server) logEnd(c *conn, who string, err error) {
	var framing framingError
	if errors.As(err, &framing) || errors.Is(err, errTag) {
		s.stats.Protocol.Add(1)
		s.rare.warn(c.peer, who, "connection closed", err)
	}
}
