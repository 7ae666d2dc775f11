// Package rarelog logs what peers cause at a pace that no peer chooses.
package rarelog

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	rarely = time.Minute // how often one peer may cause a line
	table  = 1024        // peers that are told apart
)

// Log lets each peer cause a line at once, and then one a minute, which says how many
// were held back. Past 1024 peers the others count as one. Any number of goroutines may
// use it; its lock is a leaf.
type Log struct {
	Log zerolog.Logger
	Now func() time.Time // nil: time.Now

	mu   sync.Mutex
	of   map[string]*held
	rest held      // of "", and of those for whom of has no room
	look time.Time // when of may be looked through again
}

type held struct {
	next  time.Time // no line before
	lines int       // held back since the last
}

// Warn begins a line that who causes; nil, which zerolog takes for a line that is not
// wanted: it is held back. "" is for a Log that has but one peer.
func (l *Log) Warn(who string) *zerolog.Event {
	now := time.Now
	if l.Now != nil {
		now = l.Now
	}
	if lines, ok := l.allow(who, now()); ok {
		return l.Log.Warn().Int("more", lines)
	}
	return nil
}

// allow tells whether who may have a line now, and how many were held back.
func (l *Log) allow(who string, now time.Time) (lines int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.find(who, now)
	if now.Before(h.next) {
		h.lines++
		return 0, false
	}
	lines, h.lines = h.lines, 0
	h.next = now.Add(rarely)
	return lines, true
}

// find is what is known of who; mu is held. A full table is looked through once a
// minute for peers that were quiet for so long.
func (l *Log) find(who string, now time.Time) *held {
	if who == "" {
		return &l.rest
	}
	h := l.of[who]
	if h != nil {
		return h
	}
	if len(l.of) >= table && !now.Before(l.look) {
		l.look = now.Add(rarely)
		for who, h := range l.of {
			if !now.Before(h.next) {
				delete(l.of, who)
			}
		}
	}
	if len(l.of) >= table {
		return &l.rest
	}
	if l.of == nil {
		l.of = make(map[string]*held)
	}
	h = new(held)
	l.of[who] = h
	return h
}
