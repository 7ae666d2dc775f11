// Package stale tells, by the events of a host of a fleet (fleet/events), when what that host
// answered may have been old: what a recorder of operations leaves out.
package stale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"meta9/session/client"
	"meta9/session/client/eventtest"
)

// Log is what one process of a host has told.
type Log struct {
	mu    sync.Mutex
	spans []span
	begun bool // the last span has no end yet
	err   error
}

// span is a time in which answers may have been old.
type span struct{ from, to time.Time }

// Follow reads the events of the host whose admin c is, until ctx ends or the host does. It
// returns when the file is open: what happens from then on is noted.
func Follow(ctx context.Context, c *client.Client) (*Log, error) {
	f, err := c.Open(ctx, "/fleet/events")
	if err != nil {
		return nil, err
	}
	l := new(Log)
	go func() {
		err := eventtest.Lines(ctx, f, 8192, l.note)
		f.Close()
		if ctx.Err() == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.err = err
		}
	}()
	return l, nil
}

func (l *Log) note(line []byte) error {
	var e struct {
		Type        string
		Date, Since time.Time
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Type {
	case "lost":
		return errors.New("events were lost")
	case "stale":
		l.spans, l.begun = append(l.spans, span{from: e.Since}), true
	case "current":
		if !l.begun {
			return fmt.Errorf("current, and it was not stale: %s", line)
		}
		l.spans[len(l.spans)-1].to, l.begun = e.Date.Add(time.Millisecond), false // dates are cut to milliseconds
	}
	return nil
}

// Over is how many such times are over.
func (l *Log) Over() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun {
		return len(l.spans) - 1
	}
	return len(l.spans)
}

// Flagged tells whether what was asked and answered in that time may be old. It knows when
// the host has told of all times that are over (fleet_lapses in its ctl, and Over).
func (l *Log) Flagged(asked, answered time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spans {
		if !answered.Before(s.from) && (s.to.IsZero() || !asked.After(s.to)) {
			return true
		}
	}
	return false
}

// Err is why the events could not be followed to the end.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
