package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime/metrics"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/mdbridge/vminfo"
)

// status is /status, member for member. Members about vminfod's own refreshing have the
// values of a vminfod with nothing to do; in a mirror they tell about its upstream.
type status struct {
	PID           int            `json:"pid"`
	Uptime        string         `json:"uptime"`
	Memory        memory         `json:"memory"`
	State         string         `json:"state"`
	Status        string         `json:"status"`
	NumVMs        int            `json:"numVms"`
	CurDate       string         `json:"curDate"`
	CurTime       string         `json:"curTime"`
	Queue         queue          `json:"queue"`
	LastRefresh   *string        `json:"lastRefresh"`
	RefreshErrors []refreshError `json:"refreshErrors"`
	Listeners     listenerList   `json:"eventsListeners"`
	RefreshLog    *[]struct{}    `json:"refreshLog,omitempty"` // from here on only with full=
	FSWatcher     *fsWatcher     `json:"fswatcher,omitempty"`
	Upstream      *upstream      `json:"upstream,omitempty"` // a mirror's; meta9d's only
}

type memory struct {
	RSS          uint64 `json:"rss"`
	HeapTotal    uint64 `json:"heapTotal"`
	HeapUsed     uint64 `json:"heapUsed"`
	External     uint64 `json:"external"`
	ArrayBuffers uint64 `json:"arrayBuffers"`
}

type queue struct {
	Now    string `json:"now"`
	Paused bool   `json:"paused"`
	Idle   bool   `json:"idle"`
	Vasync struct {
		Concurrency int        `json:"concurrency"`
		Pending     int        `json:"npending"`
		Queued      int        `json:"nqueued"`
		PendingMap  struct{}   `json:"pending"`
		QueuedList  []struct{} `json:"queued"`
	} `json:"vasync_queue"`
}

type refreshError struct {
	Err  string `json:"err"`
	Time string `json:"time"`
	Ago  string `json:"ago"`
}

type fsWatcher struct {
	Delays   []struct{} `json:"message_delays"`
	Watching []struct{} `json:"watching"`
	NotYet   []struct{} `json:"not_yet_watching"`
	Pending  struct{}   `json:"pending_actions"`
	PID      int        `json:"watcher_pid"`
	Running  bool       `json:"running"`
}

type upstream struct {
	URL   string `json:"url"`
	Stale bool   `json:"stale"`
}

// listenerList is an object of the listeners by their id, the oldest first.
type listenerList []listenerStatus

type listenerStatus struct {
	id          string
	UserAgent   string `json:"userAgent"`
	CreatedTime string `json:"createdTime"`
	CreatedDate string `json:"createdDate"`
	CreatedAgo  string `json:"createdAgo"`
}

// MarshalJSON keeps the order.
func (l listenerList) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, li := range l {
		one, err := marshal(li)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(strconv.AppendQuote(b, li.id), ':'), one...)
	}
	return append(b, '}'), nil
}

func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	now := s.cfg.Now()
	clock := hrtime(now)
	st := status{
		PID: os.Getpid(), Uptime: pretty(now.Sub(s.started)), Memory: memoryNow(),
		State: "running", Status: "working", NumVMs: s.cfg.Store.Count(),
		CurDate: now.UTC().Format(vminfo.DateFormat), CurTime: clock,
		RefreshErrors: []refreshError{}, Listeners: s.listenerList(now),
	}
	st.Queue.Now, st.Queue.Idle = clock, true
	st.Queue.Vasync.Concurrency, st.Queue.Vasync.QueuedList = 1, []struct{}{}
	s.refreshes(&st, now)
	if r.URL.Query().Get("full") != "" {
		none := []struct{}{}
		st.RefreshLog = &none
		st.FSWatcher = &fsWatcher{Delays: none, Watching: none, NotYet: none, PID: st.PID, Running: true}
	}
	body, err := marshal(st)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	reply(w, body)
}

// marshal is json.Marshal, but escapes no more than JavaScript does.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}

// refreshes says since when all VMs are known: the start, or for a mirror its last
// list.
func (s *Server) refreshes(st *status, now time.Time) {
	refreshed := s.started
	if s.cfg.Mirror != nil {
		m := s.cfg.Mirror()
		refreshed = m.Refreshed
		st.Upstream = &upstream{m.From, m.Stale}
		if m.Stale {
			st.Status = "stale"
		}
		for _, e := range m.Errors {
			st.RefreshErrors = append(st.RefreshErrors, refreshError{e.Text, hrtime(e.Time), pretty(now.Sub(e.Time))})
		}
	}
	if !refreshed.IsZero() {
		ago := pretty(now.Sub(refreshed))
		st.LastRefresh = &ago
	}
}

func (s *Server) listenerList(now time.Time) listenerList {
	s.feed.mu.Lock()
	all := make([]*listener, 0, len(s.feed.listeners))
	for li := range s.feed.listeners {
		all = append(all, li)
	}
	s.feed.mu.Unlock()
	slices.SortFunc(all, func(a, b *listener) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id, b.id))
	})
	out := make(listenerList, len(all))
	for i, li := range all {
		out[i] = listenerStatus{
			id: li.id, UserAgent: li.agent, CreatedTime: hrtime(li.created),
			CreatedDate: li.created.UTC().Format(vminfo.DateFormat), CreatedAgo: pretty(now.Sub(li.created)),
		}
	}
	return out
}

// ready is nil when the VMs are current (a mirror that is not stale) and the store can
// write.
func (s *Server) ready() error {
	if s.cfg.Mirror != nil {
		if m := s.cfg.Mirror(); m.Stale {
			return errs.New(errs.Again, "%s: %s", m.From, m.Why)
		}
	}
	return s.cfg.Store.Err()
}

// health answers a probe.
func health(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	reply(w, []byte("ok\n"))
}

// memoryNow is the memory of the process, in node's terms; Go has no "external" memory.
func memoryNow() memory {
	sample := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(sample)
	m := memory{HeapUsed: sample[0].Value.Uint64()}
	m.HeapTotal = m.HeapUsed + sample[1].Value.Uint64()
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident uint64
		if _, err := fmt.Sscan(string(b), &size, &resident); err == nil {
			m.RSS = resident * uint64(os.Getpagesize())
		}
	}
	return m
}

// hrtime is a time by node's process.hrtime: seconds and nanoseconds of the
// clock that nobody sets.
func hrtime(t time.Time) string {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // it cannot fail on Linux
	return seconds(time.Duration(ts.Nano()) - time.Since(t))
}

func seconds(d time.Duration) string {
	d = max(d, 0)
	return fmt.Sprintf("%d.%09d", d/time.Second, d%time.Second)
}

// units are those of pretty, the largest first. It uses the largest that is not above the
// time; those over a second count whole seconds only.
var units = []struct {
	name string
	size time.Duration
}{
	{"d", 24 * time.Hour},
	{"h", time.Hour},
	{"m", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
	{"us", time.Microsecond},
	{"ns", time.Nanosecond},
}

// pretty is a time as vminfod tells it: "300.000000000s (5m)".
func pretty(d time.Duration) string {
	d = max(d, 0)
	relative := "0ns"
	for _, u := range units {
		if d < u.size {
			continue
		}
		of := d
		if u.size > time.Second {
			of = d.Truncate(time.Second)
		}
		n := strconv.FormatFloat(float64(of)/float64(u.size), 'f', 2, 64)
		f, _ := strconv.ParseFloat(n, 64)
		relative = strconv.FormatFloat(f, 'f', -1, 64) + u.name
		break
	}
	return seconds(d) + "s (" + relative + ")"
}
