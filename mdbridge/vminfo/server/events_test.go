package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/store"
	"meta9/mdbridge/vminfo"
	"meta9/mdbridge/vminfo/server"
)

func deletion(c *store.Cell) *store.Intent { return &store.Intent{Kind: store.DeleteVM, Cell: c} }

// TestRecordedStream: the recorded updates in, the recorded lines out.
func TestRecordedStream(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	cells := map[string]*store.Cell{}
	var s *stream
	lines := 0
	for line := range bytes.Lines(vector(t, "vminfod-events.ndjson")) {
		ev, err := vminfo.ParseEvent(bytes.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		switch ev.Type {
		case vminfo.Ready:
			var vms []json.RawMessage
			if err := json.Unmarshal([]byte(ev.VMs), &vms); err != nil {
				t.Fatal(err)
			}
			for _, vm := range vms {
				cells[vminfo.UUIDOf(vm)] = w.create(string(vm))
			}
			s = w.events("")
		case vminfo.Create:
			cells[ev.UUID] = w.create(string(ev.VM))
		case vminfo.Modify:
			w.do(store.Intent{Kind: store.ReplaceVM, Cell: cells[ev.UUID], Data: string(ev.VM)})
		case vminfo.Delete:
			w.do(*deletion(cells[ev.UUID]))
		}
		s.want(plain(string(ev.Raw)))
		lines++
	}
	if lines < 4 {
		t.Errorf("%d lines are no stream", lines)
	}
}

// TestNothingChanged: what no one sees makes no line; a new order does.
func TestNothingChanged(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	c := w.create(`{"uuid":"` + uuidA + `","resolvers":["a","b"],"customer_metadata":{"k":"v"}}`)
	s := w.events("")
	s.next()
	mode := uint16(0o644)
	w.do(store.Intent{Kind: store.Set, Cell: c, Name: "k", Mode: &mode})
	w.do(store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: "v"})
	w.do(store.Intent{Kind: store.Note, Event: store.QMP})
	w.update(c, `{"resolvers":["b","a"]}`)
	head := `{"type":"modify","date":"D","zonename":"` + uuidA + `","uuid":"` + uuidA + `","vm":`
	s.want(head + `{"zonename":"` + uuidA + `","uuid":"` + uuidA + `","resolvers":["b","a"],"customer_metadata":{"k":"v"}},"changes":[]}`)
}

// TestSince: a stream goes on where another ended, or begins anew.
func TestSince(t *testing.T) {
	w := newWorld(t, server.Config{Limits: server.Limits{Events: 64}}, true)
	before := w.st.Rev()
	small := func(alias string) string {
		return `{"zonename":"` + uuidA + `","uuid":"` + uuidA + `","alias":"` + alias + `"}`
	}
	c := w.create(small("a0"))
	first := w.events("?since=0")
	rev := w.st.Rev()
	first.want(ready("["+small("a0")+"]", fmt.Sprintf(`,"rev":%d`, rev)))
	line := func(n int) string {
		return fmt.Sprintf(`{"type":"modify","date":"D","zonename":%q,"uuid":%[1]q,"vm":%s,"changes":[{"prettyPath":"alias","path":["alias"],"action":"changed","oldValue":"a%d","newValue":"a%d"}],"rev":%d}`,
			uuidA, small(fmt.Sprintf("a%d", n)), n-1, n, rev+uint64(n))
	}
	for n := 1; n <= 3; n++ {
		w.update(c, fmt.Sprintf(`{"alias":"a%d"}`, n))
		first.want(line(n))
	}
	for from := range 3 {
		s := w.events(fmt.Sprintf("?since=%d", rev+uint64(from)))
		for n := from + 1; n <= 3; n++ {
			s.want(line(n))
		}
	}
	for _, since := range []uint64{before - 1, rev + 4, 1 << 40} {
		w.events(fmt.Sprintf("?since=%d", since)).want(ready("["+small("a3")+"]", fmt.Sprintf(`,"rev":%d`, rev+3)))
	}
	at := w.events(fmt.Sprintf("?since=%d", rev+3))
	w.update(c, `{"alias":"a4"}`)
	at.want(line(4))
	if resp, body := w.get("/events?since=x"); resp.StatusCode != 400 || !strings.Contains(body, "since") {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// TestTooManyListeners: one more is refused, and comes in when one has gone.
func TestTooManyListeners(t *testing.T) {
	w := newWorld(t, server.Config{Limits: server.Limits{Listeners: 2}}, true)
	w.events("").next()
	second := w.events("")
	second.next()
	if resp, body := w.get("/events"); resp.StatusCode != 503 || !strings.Contains(body, "2 event listeners") {
		t.Fatalf("%s %s", resp.Status, body)
	}
	second.resp.Body.Close()
	deadline := time.Now().Add(soon)
	for w.srv.Stats().Listeners > 1 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	w.events("").next()
}

// idle opens /events and does not read more than the head and the first line.
func (w *world) idle() *bufio.Reader {
	w.Helper()
	nc, err := net.Dial("tcp", w.addr())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { nc.Close() })
	_, _ = io.WriteString(nc, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		w.Fatal(err)
	}
	in := bufio.NewReader(resp.Body)
	if _, err := in.ReadString('\n'); err != nil {
		w.Fatal(err)
	}
	return in
}

// TestSlowListener: who does not read, while more VMs change than the feed has lines, is
// told in its last line, which is an event with a date, and dropped; the others get
// everything meanwhile.
func TestSlowListener(t *testing.T) {
	w := newWorld(t, server.Config{Limits: server.Limits{Events: 4}}, true)
	slow, fast := w.idle(), w.events("")
	fast.next()
	const size, n = 256 << 10, 40 // more than loopback buffers
	for i := range n {
		w.create(fmt.Sprintf(`{"uuid":"00000000-0000-4000-8000-%012d","customer_metadata":{"k":%q}}`, i, strings.Repeat("x", size)))
		if line := fast.next(); !strings.HasPrefix(line, `{"type":"create"`) {
			t.Fatalf("%.80s", line)
		}
	}
	var last string
	lines := 0
	for {
		line, err := slow.ReadString('\n')
		if err == io.EOF && line == "" {
			break
		}
		if err != nil {
			t.Fatalf("the stream was cut: %v after %.80q", err, line)
		}
		last = line
		lines++
	}
	ev, err := vminfo.ParseEvent([]byte(last))
	if err != nil || ev.Type != vminfo.Fault || !strings.Contains(ev.Error, "too slow") || ev.Date.IsZero() {
		t.Errorf("the last of %d lines: %.200s (%v)", lines, last, err)
	}
	if lines >= n {
		t.Errorf("all %d lines came", lines)
	}
	if st := w.srv.Stats(); st.Dropped != 1 || st.Listeners != 1 {
		t.Errorf("%+v", st)
	}
}

// TestStuckListener: who takes nothing at all for longer than the patience lasts is
// cut off, though nothing more happens.
func TestStuckListener(t *testing.T) {
	w := newWorld(t, server.Config{Limits: server.Limits{Patience: 50 * time.Millisecond}}, true)
	c := w.create(`{"uuid":"` + uuidA + `"}`)
	w.idle()
	for i := range 20 {
		w.do(store.Intent{Kind: store.Put, Cell: c, Name: "k", Data: strings.Repeat(string(rune('a'+i%26)), 512<<10)})
	}
	deadline := time.Now().Add(soon)
	for w.srv.Stats().Listeners > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if st := w.srv.Stats(); st.Listeners != 0 || st.Dropped != 1 {
		t.Errorf("%+v", st)
	}
}

// TestStreamIsTheList: while writers create, update and delete, the stream applied
// to the snapshot gives the list, for one who was there all the time, one who came
// back in the middle, and one who came in the middle.
func TestStreamIsTheList(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	const writers, rounds = 8, 60
	a, b := follow(t, w.events("?since=0")), follow(t, w.events("?since=0"))
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() { w.churn(n, rounds) })
	}
	c := follow(t, w.events("?since=0")) // the writers may be done by then
	b.until(func() bool { return b.lines > rounds })
	b.s.resp.Body.Close()
	b.s = w.events(fmt.Sprintf("?since=%d", b.rev))
	wg.Wait()
	w.create(`{"uuid":"` + uuidA + `","alias":"last"}`)
	for _, f := range []*follower{a, b, c} {
		f.until(func() bool { return f.vms[uuidA] != "" })
		if d := cmp.Diff(listOf(t, w.body("/vms")), f.vms); d != "" {
			t.Errorf("(-list +stream):\n%s", d)
		}
	}
}

// churn creates, updates and deletes VMs of its own.
func (w *world) churn(n, rounds int) {
	var c *store.Cell
	for i := range rounds {
		in := store.Intent{Kind: store.UpdateVM, Cell: c, Data: fmt.Sprintf(`{"x":%d,"set_customer_metadata":{"k%d":%d}}`, i, i%3, i)}
		switch {
		case c == nil:
			in = store.Intent{Kind: store.CreateVM, Data: fmt.Sprintf(`{"uuid":"00000000-0000-4000-8000-%06d%06d"}`, n, i)}
		case i%7 == 6:
			in = *deletion(c)
		}
		r := w.st.Do(&in)
		if r.Err != nil {
			w.Error(r.Err)
		}
		switch in.Kind {
		case store.CreateVM:
			c = r.Cell
		case store.DeleteVM:
			c = nil
		}
	}
}

// follower applies a stream to its snapshot.
type follower struct {
	testing.TB
	s     *stream
	vms   map[string]string
	rev   uint64
	lines int
}

func follow(t testing.TB, s *stream) *follower {
	return &follower{TB: t, s: s}
}

func (f *follower) until(done func() bool) {
	f.Helper()
	for !done() {
		ev, err := vminfo.ParseEvent([]byte(f.s.next()))
		if err != nil {
			f.Fatal(err)
		}
		f.apply(ev)
	}
}

func (f *follower) apply(ev *vminfo.Event) {
	f.Helper()
	f.lines++
	if ev.Rev < f.rev || ev.Rev == f.rev && ev.Type != vminfo.Ready {
		f.Errorf("revision %d after %d", ev.Rev, f.rev)
	}
	f.rev = ev.Rev
	_, there := f.vms[ev.UUID]
	switch ev.Type {
	case vminfo.Ready:
		f.vms = listOf(f, ev.VMs)
	case vminfo.Delete:
		delete(f.vms, ev.UUID)
	default:
		f.vms[ev.UUID] = string(ev.VM)
	}
	if ev.Type != vminfo.Ready && there == (ev.Type == vminfo.Create) {
		f.Errorf("%s of %s, which was there: %v", ev.Type, ev.UUID, there)
	}
}

func listOf(t testing.TB, list string) map[string]string {
	t.Helper()
	vms := map[string]string{}
	var all []json.RawMessage
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		t.Fatal(err)
	}
	for _, vm := range all {
		vms[vminfo.UUIDOf(vm)] = string(vm)
	}
	return vms
}
