//go:build unix

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"meta9/session/client"
)

const (
	// readyTime is how long those who wait for the agent to be ready wait for a host that
	// is not there.
	readyTime = 10 * time.Second

	// sayEvery is how often the status is written, at most.
	sayEvery = time.Second

	// maxText is how much of an error is kept, in bytes: the host's texts are of any size.
	maxText = 500
)

// Status is how an agent is, as its status file has it in JSON.
type Status struct {
	Version string          `json:"version"`
	PID     int             `json:"pid"`
	Began   time.Time       `json:"began"`
	Host    HostStatus      `json:"host"`
	Recipes []*RecipeStatus `json:"recipes"`
}

// HostStatus is how the connection is.
type HostStatus struct {
	Up     bool      `json:"up"`
	Since  time.Time `json:"since"`
	Error  string    `json:"error,omitempty"` // not Up: why
	Events uint64    `json:"events"`          // that were heard and may concern recipes
	Lost   uint64    `json:"lost"`            // times that events may have been missed, so that all was read again
}

// RecipeStatus is how a recipe is.
type RecipeStatus struct {
	Name     string     `json:"name"`
	Tried    *time.Time `json:"tried,omitempty"`   // last; nil: not yet
	Changed  *time.Time `json:"changed,omitempty"` // when it changed something last
	Changes  uint64     `json:"changes"`
	Failures uint64     `json:"failures"`
	Error    string     `json:"error,omitempty"` // of the last try
}

// ReadStatus reads a status file.
func ReadStatus(name string) (*Status, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	s := new(Status)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// Runs tells whether the agent that wrote it runs.
func (s *Status) Runs() bool {
	err := unix.Kill(s.PID, 0)
	return s.PID > 0 && (err == nil || err == unix.EPERM)
}

// Trouble is what is not well, in words; "": nothing.
func (s *Status) Trouble() string {
	var failing, untried []string
	for _, r := range s.Recipes {
		switch {
		case r.Error != "":
			failing = append(failing, r.Name)
		case r.Tried == nil:
			untried = append(untried, r.Name)
		}
	}
	switch {
	case !s.Host.Up:
		return "the host is not there: " + s.Host.Error
	case len(failing) > 0:
		return "recipes fail: " + strings.Join(failing, ", ")
	case len(untried) > 0:
		return "recipes are not tried yet: " + strings.Join(untried, ", ")
	}
	return ""
}

// health is the Status while it changes. Its lock is a leaf.
type health struct {
	opt  Options
	news chan struct{} // holds one thing while there is something to say

	mu    sync.Mutex
	is    Status
	by    map[string]*RecipeStatus
	tried int // recipes that were
}

func newHealth(opt Options, recipes []Recipe) *health {
	now := time.Now()
	h := &health{
		opt: opt, news: make(chan struct{}, 1), by: make(map[string]*RecipeStatus),
		is: Status{Version: opt.Version, PID: os.Getpid(), Began: now, Host: HostStatus{Since: now, Error: "not tried yet"}},
	}
	for i := range recipes {
		r := &RecipeStatus{Name: recipes[i].Name}
		h.by[r.Name] = r
		h.is.Recipes = append(h.is.Recipes, r)
	}
	return h
}

// set changes something.
func (h *health) set(do func(s *Status)) {
	h.mu.Lock()
	do(&h.is)
	h.mu.Unlock()
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// connection takes what is new of the connection.
func (h *health) connection(s client.State) {
	h.set(func(is *Status) {
		if s.Up != is.Host.Up {
			is.Host.Since = time.Now()
		}
		is.Host.Up, is.Host.Error = s.Up, ""
		if !s.Up {
			is.Host.Error = plain(s.Err)
		}
	})
}

func (h *health) event() { h.set(func(is *Status) { is.Host.Events++ }) }
func (h *health) lost()  { h.set(func(is *Status) { is.Host.Lost++ }) }

// applied takes how a try of a recipe went.
func (h *health) applied(name string, changed []string, err error) {
	h.set(func(*Status) {
		r, now := h.by[name], time.Now()
		if r.Tried == nil {
			h.tried++
		}
		r.Tried, r.Error = &now, ""
		if len(changed) > 0 {
			r.Changed = &now
			r.Changes++
		}
		if err != nil {
			r.Failures++
			r.Error = plain(err)
			if f := new(failure); errors.As(err, &f) { // all may read the status
				r.Error = f.public()
			}
		}
	})
}

// say keeps the status file, and what systemd knows, current until ctx ends.
func (h *health) say(ctx context.Context) {
	patience := time.NewTimer(readyTime)
	defer patience.Stop()
	ready, waited, failed, told := false, false, false, ""
	for {
		h.mu.Lock()
		text, err := json.MarshalIndent(&h.is, "", "  ")
		all := h.tried == len(h.is.Recipes)
		line := h.line()
		h.mu.Unlock()
		if h.opt.Status != "" {
			if err == nil {
				err = writeStatus(h.opt.Status, append(text, '\n'))
			}
			if err != nil && !failed {
				h.opt.Log.Warn().Msgf("the status cannot be written: %s", plain(err))
			}
			failed = err != nil
		}
		if line != told {
			h.opt.Notify("STATUS=" + line)
			told = line
		}
		if !ready && (all || waited) {
			h.opt.Notify("READY=1")
			ready = true
		}
		select {
		case <-h.news:
		case <-patience.C:
			waited = true
			continue
		case <-ctx.Done():
			h.opt.Notify("STOPPING=1")
			if h.opt.Status != "" {
				_ = os.Remove(h.opt.Status)
			}
			return
		}
		if ready && !sleep(ctx, sayEvery) {
			continue // ctx is looked at above
		}
	}
}

// line is the status in a line; mu is held.
func (h *health) line() string {
	if t := h.is.Trouble(); t != "" {
		return t
	}
	return fmt.Sprintf("%d of %d recipes are applied", h.tried, len(h.is.Recipes))
}

// writeStatus replaces the status file, for all to read. It has no secrets. What a loss of
// power makes of it does not matter.
func writeStatus(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	temp := name + ".new"
	_ = os.Remove(temp)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	f.Close()
	if err == nil {
		err = os.Rename(temp, name)
	}
	return err
}

// plain is the text of an error in one line of bounded length, without what steers a
// terminal: the host's texts are in it.
func plain(err error) string {
	text := strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, err.Error())
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}
