package mirror_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/mdbridge/vminfo/server/mirror"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	soon     = 20 * time.Second
	patience = time.Second // for a ping
)

func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// upstream is a vminfod that says what a test tells it to.
type upstream struct {
	*httptest.Server
	streams chan chan string // one for each client: what it is sent; closed: its end
	still   atomic.Bool      // /ping is not answered
}

func newUpstream(t *testing.T) *upstream {
	u := &upstream{streams: make(chan chan string)}
	ctx, cancel := context.WithCancel(context.Background())
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ping" {
			if u.still.Load() {
				select {
				case <-ctx.Done():
				case <-r.Context().Done():
				}
			}
			return
		}
		lines := make(chan string)
		select {
		case u.streams <- lines:
		case <-ctx.Done():
			return
		case <-r.Context().Done():
			return
		}
		for line := range lines {
			_, _ = io.WriteString(w, line)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	t.Cleanup(func() {
		cancel()
		u.Close()
	})
	return u
}

// world is a store that mirrors an upstream.
type world struct {
	*testing.T
	up   *upstream
	st   *store.Store
	m    *mirror.Mirror
	mu   sync.Mutex
	told []string // what changed, in order
}

func newWorld(t *testing.T) *world { return newLimited(t, vm.Limits{}) }

func newLimited(t *testing.T, limits vm.Limits) *world {
	return newFor(t, limits, zerolog.Nop(), func(*mirror.Mirror) {})
}

// newFor is a world whose mirror has a log, and is prepared before it runs.
func newFor(t *testing.T, limits vm.Limits, log zerolog.Logger, prepare func(m *mirror.Mirror)) *world {
	w := &world{T: t, up: newUpstream(t)}
	var err error
	if w.st, err = store.Open(store.NewMemory(), store.Config{ReadOnly: "a mirror", Limits: limits}); err != nil {
		t.Fatal(err)
	}
	if w.m, err = mirror.New(w.up.URL, w.st, log); err != nil {
		t.Fatal(err)
	}
	w.st.Record(func(c store.Committed) {
		w.mu.Lock()
		defer w.mu.Unlock()
		what := "modify"
		switch {
		case c.Before == nil:
			what = "create"
		case c.After == nil:
			what = "delete"
		}
		w.told = append(w.told, what+" "+c.Cell.UUID()[35:])
	})
	w.m.SetPings(20*time.Millisecond, patience)
	prepare(w.m)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.m.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := w.st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// stream waits for the mirror to connect.
func (w *world) stream() chan string {
	w.Helper()
	select {
	case s := <-w.up.streams:
		return s
	case <-time.After(soon):
		w.Fatal("the mirror does not connect")
		return nil
	}
}

const date = `"date":"2026-11-21T05:02:14.167Z"`

func ready(vms ...string) string {
	list, err := json.Marshal("[" + strings.Join(vms, ",") + "]")
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"type":"ready",%s,"uuid":"x","vms":%s}`+"\n", date, list)
}

func event(kind string, n int, vm string) string {
	if vm != "" {
		vm = `,"vm":` + vm
	}
	return fmt.Sprintf(`{"type":%q,%s,"zonename":%q,"uuid":%[3]q%s}`+"\n", kind, date, uuid(n), vm)
}

// small is a VM with more members.
func small(n int, members string) string {
	if members != "" {
		members = "," + members
	}
	return fmt.Sprintf(`{"uuid":%q%s}`, uuid(n), members)
}

func (w *world) vms() (list []string) {
	w.st.Snapshot(func(rows []*vm.VM, _ uint64) {
		for _, m := range rows {
			list = append(list, string(m.AppendJSON(nil, false)))
		}
	})
	return list
}

// await waits until the store has just these VMs.
func (w *world) await(vms ...string) {
	w.Helper()
	w.until("the VMs", func() string { return cmp.Diff(vms, w.vms()) })
}

// until waits until is has nothing to say.
func (w *world) until(what string, is func() string) {
	w.Helper()
	deadline := time.Now().Add(soon)
	for {
		wrong := is()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s: %s", what, wrong)
		}
		time.Sleep(time.Millisecond)
	}
}

// changes takes what changed since it was asked last.
func (w *world) changes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told
	w.told = nil
	return told
}

func (w *world) wantChanges(want ...string) {
	w.Helper()
	if d := cmp.Diff(want, w.changes()); d != "" {
		w.Errorf("changes (-want +got):\n%s", d)
	}
}

func (w *world) awaitStale(stale bool) {
	w.Helper()
	w.until("stale", func() string {
		if w.m.State().Stale == stale {
			return ""
		}
		return fmt.Sprint(!stale)
	})
}

// TestFollow: the list, then each event; after the stream's end a list again, of
// which only what differs is a change.
func TestFollow(t *testing.T) {
	w := newWorld(t)
	if st := w.m.State(); !st.Stale || !st.Refreshed.IsZero() {
		t.Errorf("at first: %+v", st)
	}
	a, b := small(1, `"alias":"a","customer_metadata":{"k":"v"}`), small(2, `"internal_metadata":{"x":1}`)
	s := w.stream()
	s <- ready(a, b)
	w.await(a, b)
	w.awaitStale(false)
	w.wantChanges("create 1", "create 2")

	a2, c := small(1, `"alias":"a","customer_metadata":{"k":"w"}`), small(3, "")
	s <- event("modify", 1, a2) + event("create", 3, c) + event("modify", 3, small(3, `"x":1`)) + event("delete", 2, "") + event("news", 9, "")
	w.await(a2, small(3, `"x":1`))
	w.wantChanges("modify 1", "create 3", "modify 3", "delete 2")

	close(s)
	w.awaitStale(true)
	w.await(a2, small(3, `"x":1`)) // still to be read
	s = w.stream()
	s <- ready(a2, small(4, ""))
	w.await(a2, small(4, ""))
	w.awaitStale(false)
	w.wantChanges("create 4", "delete 3")
	close(s)
}

// TestStandsStill: an upstream that answers no /ping makes the mirror stale, with the
// stream as it was; what comes by that is taken, and the next answer ends it.
func TestStandsStill(t *testing.T) {
	w := newWorld(t)
	s := w.stream()
	s <- ready(small(1, ""))
	w.awaitStale(false)
	w.up.still.Store(true)
	w.awaitStale(true)
	if st := w.m.State(); !strings.Contains(st.Why, "no answer to /ping") || len(st.Errors) == 0 || !strings.Contains(st.Errors[0].Text, "/ping") {
		t.Errorf("%+v", st)
	}
	s <- event("create", 2, small(2, ""))
	w.await(small(1, ""), small(2, ""))
	if !w.m.State().Stale {
		t.Error("an event has ended it")
	}
	w.up.still.Store(false)
	w.awaitStale(false)
	if st := w.m.State(); st.Why != "" || len(st.Errors) == 0 {
		t.Errorf("%+v", st)
	}
	close(s)
	w.awaitStale(true)
	if st := w.m.State(); !strings.Contains(st.Why, "no events") {
		t.Errorf("%+v", st)
	}
}

// TestGarbage: whatever an upstream answers, what is known stays, marked stale, and
// the mirror comes back.
func TestGarbage(t *testing.T) {
	w := newWorld(t)
	a := small(1, `"alias":"a"`)
	for _, garbage := range []string{
		"<html>\n", "\n", "{}\n", `{"type":"ready"}` + "\n", event("create", 2, small(2, "")),
		`{"type":"ready",` + date + `,"vms":"nonsense"}` + "\n", `{"type":"ready",` + date + `,"vms":"{}"}` + "\n",
		`{"type":"ready",` + date + `,"vms":"null"}` + "\n", ready(`{"alias":"nobody"}`), ready(`7`), `{"type":"ready`,
		ready(a) + "nonsense\n", ready(a) + event("modify", 1, ""), ready(a) + `{"type":"delete","uuid":"` + uuid(1) + `"}` + "\n",
		ready(a) + `{"type":"delete",` + date + `,"uuid":"me"}` + "\n", ready(a) + `{"type":"error",` + date + `,"error":"too slow"}` + "\n",
	} {
		s := w.stream()
		s <- ready(a)
		w.awaitStale(false)
		w.await(a)
		close(s)
		w.awaitStale(true)
		w.changes()

		s = w.stream()
		s <- garbage
		close(s)
		w.awaitStale(true)
		if d := cmp.Diff([]string{a}, w.vms()); d != "" {
			t.Fatalf("after %q:\n%s", garbage, d)
		}
		w.wantChanges()
	}
	w.until("the errors", func() string {
		if n := len(w.m.State().Errors); n != 5 {
			return fmt.Sprint(n)
		}
		return ""
	})
}

// TestGarbageAfterEachList: the list is dear, so an upstream that sends garbage after
// it is asked less and less often.
func TestGarbageAfterEachList(t *testing.T) {
	w := newWorld(t)
	var begun []time.Time
	for range 4 {
		s := w.stream()
		begun = append(begun, time.Now())
		s <- ready(small(1, "")) + "nonsense\n"
		close(s)
	}
	if took := begun[3].Sub(begun[0]); took < 330*time.Millisecond { // at least half of 0.1 s, 0.2 s and 0.4 s; all the first: at most 0.3 s
		t.Errorf("four lists within %v", took)
	}
	w.await(small(1, ""))
}

// TestNames: VMs that exchange a name, and VMs of the same name, which a vminfod may
// have: the second goes without it until it is free.
func TestNames(t *testing.T) {
	w := newWorld(t)
	s := w.stream()
	s <- ready(small(1, `"alias":"a"`), small(2, `"alias":"b"`))
	w.awaitStale(false)
	close(s)
	s = w.stream()
	s <- ready(small(1, `"alias":"b"`), small(2, `"alias":"a"`))
	w.await(small(1, `"alias":"b"`), small(2, `"alias":"a"`))

	s <- event("create", 3, small(3, `"alias":"a","x":1`))
	w.await(small(1, `"alias":"b"`), small(2, `"alias":"a"`), small(3, `"x":1`))
	w.until("the error", func() string {
		for _, e := range w.m.State().Errors {
			if strings.Contains(e.Text, uuid(3)) && strings.Contains(e.Text, "alias") {
				return ""
			}
		}
		return fmt.Sprint(w.m.State().Errors)
	})
	s <- event("delete", 2, "")
	w.await(small(1, `"alias":"b"`), small(3, `"alias":"a","x":1`))
	close(s)
}

// TestBadVM: a VM that cannot be taken is left as it was, and said once; the others
// are taken.
func TestBadVM(t *testing.T) {
	w := newWorld(t)
	s := w.stream()
	s <- ready(small(1, `"ram":"much"`), small(2, ""))
	w.await(small(2, ""))
	s <- event("modify", 2, small(2, `"nics":[{"mac":"nonsense"}]`)) + event("modify", 2, small(2, `"nics":7`)) + event("create", 3, small(3, ""))
	w.await(small(2, ""), small(3, ""))
	w.awaitStale(false)
	if got := w.m.State().Errors; len(got) != 2 {
		t.Errorf("%v", got)
	}
	close(s)
}

func TestReadOnly(t *testing.T) {
	w := newWorld(t)
	s := w.stream()
	s <- ready(small(1, ""))
	w.await(small(1, ""))
	if r := w.st.Do(&store.Intent{Kind: store.DeleteVM, Cell: w.st.Cell(uuid(1))}); !errors.Is(r.Err, errs.ReadOnly) {
		t.Error(r.Err)
	}
	close(s)
}

func TestAddress(t *testing.T) {
	for _, addr := range []string{"", "127.0.0.1:9090", "https://h", "http://", "http://h/path", "http://u@h", "ftp://h"} {
		if _, err := mirror.New(addr, nil, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "http://HOST:PORT") {
			t.Errorf("%q: %v", addr, err)
		}
	}
}
