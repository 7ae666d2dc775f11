package listen

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// rarely is how often a peer may cause a line in the log.
const rarely = time.Minute

// rare logs what peers cause: the first time at once, then once a minute with
// the number of lines held back, so that no peer can choose how much is logged.
type rare struct {
	log zerolog.Logger

	mu   sync.Mutex
	next time.Time // no line before
	held int       // lines held back
}

func (r *rare) warn(via func() string, what string, err error) {
	if held, ok := r.allow(time.Now()); ok {
		r.log.Warn().Str("via", via()).Int("more", held).Err(err).Msg(what)
	}
}

// allow tells whether a line may be written now, and how many were held back.
func (r *rare) allow(now time.Time) (held int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.next) {
		r.held++
		return 0, false
	}
	held, r.held = r.held, 0
	r.next = now.Add(rarely)
	return held, true
}
