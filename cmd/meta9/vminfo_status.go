package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// vminfodStatus is what of /status is printed for people.
type vminfodStatus struct {
	State, Status, Uptime string
	PID, NumVMs           int
	Memory                struct{ RSS float64 }
	Queue                 struct {
		Paused, Idle bool
		Vasync       struct{ NPending, NQueued int } `json:"vasync_queue"`
	}
	LastRefresh   *string
	RefreshErrors []struct{ Err, Ago string }
	FSWatcher     *struct {
		Running  bool
		PID      int               `json:"watcher_pid"`
		Watching []json.RawMessage `json:"watching"`
		NotYet   []json.RawMessage `json:"not_yet_watching"`
		Pending  map[string]any    `json:"pending_actions"`
	}
	Listeners listeners `json:"eventsListeners"`
	Upstream  *struct {
		URL   string
		Stale bool
	}
}

// listeners are those of /events in the order in which the status has them.
type listeners []struct{ id, UserAgent, CreatedAgo string }

// UnmarshalJSON reads an object of them.
func (l *listeners) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("eventsListeners is no object: %w", err)
	}
	for dec.More() {
		id, err := dec.Token()
		if err != nil {
			return err
		}
		var one struct{ UserAgent, CreatedAgo string }
		if err := dec.Decode(&one); err != nil {
			return err
		}
		*l = append(*l, struct{ id, UserAgent, CreatedAgo string }{fmt.Sprint(id), one.UserAgent, one.CreatedAgo})
	}
	return nil
}

// lines are the status as vminfo prints it.
func (st *vminfodStatus) lines() (out []string) {
	say := func(format string, args ...any) { out = append(out, printable(fmt.Sprintf(format, args...))) }
	say("state: %s (%s)", st.State, st.Status)
	say("pid: %d", st.PID)
	say("uptime: %s", st.Uptime)
	say("rss: %.2fmb", st.Memory.RSS/1024/1024)
	say("numVms: %d", st.NumVMs)
	say("queue")
	say("  paused: %v", st.Queue.Paused)
	say("  idle: %v", st.Queue.Idle)
	say("  npending: %d", st.Queue.Vasync.NPending)
	say("  nqueued: %d", st.Queue.Vasync.NQueued)
	st.refresh(say)
	if w := st.FSWatcher; w != nil {
		say("fswatcher")
		say("  running: %v", w.Running)
		say("  pid: %d", w.PID)
		say("  watching: %d", len(w.Watching))
		say("  tryingToWatch: %d", len(w.NotYet))
		say("  pendingActions: %d", len(w.Pending))
	}
	say("eventsListeners: (%d listeners)", len(st.Listeners))
	for _, l := range st.Listeners {
		say("  - %s", l.UserAgent)
		say("    %s created %s ago", l.id, l.CreatedAgo)
		say("")
	}
	return out
}

// refresh says how fresh it all is.
func (st *vminfodStatus) refresh(say func(string, ...any)) {
	say("fullRefresh")
	last := "null"
	if st.LastRefresh != nil {
		last = *st.LastRefresh
	}
	say("  lastRefresh: %s", last)
	if n := len(st.RefreshErrors); n > 0 {
		say("  refreshErrors: (%d items)", n)
		for _, e := range st.RefreshErrors {
			say("    - %s (%s)", e.Err, e.Ago)
		}
	}
	if st.Upstream != nil {
		say("upstream: %s (stale: %v)", st.Upstream.URL, st.Upstream.Stale)
	}
}
