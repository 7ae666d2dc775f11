// Package vminfo tests vminfod's API of the real meta9d from outside: the stream
// against the list, many listeners, mirrors of mirrors, recorded command lines.
package vminfo

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// patience bounds what a test waits for.
const patience = 60 * time.Second

// server is a meta9d with the API on a loopback port.
type server struct {
	*testenv.Server
	testing.TB
	url string
}

// start starts one; args are more of its arguments.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	addr := freeAddr(t)
	o := daemon.Options{Args: append([]string{"--http", addr}, args...), Config: "[sockets]\nenabled = false\n"}
	return &server{testenv.Start(t, o), t, "http://" + addr}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get is the body of a good answer.
func (s *server) get(path string) string {
	s.Helper()
	code, body := s.ask(path)
	if code != http.StatusOK {
		s.Fatalf("%s: %d: %s", path, code, body)
	}
	return body
}

// ask is any answer.
func (s *server) ask(path string) (code int, body string) {
	s.Helper()
	resp, err := http.Get(s.url + path)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatalf("%s: %s, %v: %s", path, resp.Status, err, b)
	}
	return resp.StatusCode, string(b)
}

// vms are the VMs by their uuid, as GET /vms has them.
func (s *server) vms() map[string]string {
	s.Helper()
	return byUUID(s, s.get("/vms"))
}

// verb writes one line to the admin's ctl on a connection of its own.
func (s *server) verb(format string, args ...any) {
	s.Helper()
	if err := s.Ctl(fmt.Sprintf(format, args...)); err != nil {
		s.Fatal(err)
	}
}

// event is a line of the stream, as far as the tests look at it.
type event struct {
	Type, Date, UUID, VMs, Error string
	VM                           json.RawMessage
	Rev                          uint64
}

// stream is a client of /events, with no code of meta9's.
type stream struct {
	testing.TB
	resp *http.Response
	in   *bufio.Reader
}

func (s *server) events(query string) *stream {
	s.Helper()
	resp, err := http.Get(s.url + "/events" + query)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { resp.Body.Close() })
	return &stream{s.TB, resp, bufio.NewReaderSize(resp.Body, 64<<10)}
}

// line is the next line; "" is the end of the stream.
func (s *stream) line() (string, error) {
	timer := time.AfterFunc(patience, func() { s.resp.Body.Close() })
	defer timer.Stop()
	line, err := s.in.ReadString('\n')
	if err == io.EOF && line == "" {
		return "", nil
	}
	return strings.TrimSuffix(line, "\n"), err
}

// next is the next event; nil is the end of the stream.
func (s *stream) next() *event {
	s.Helper()
	line, err := s.line()
	if err != nil {
		s.Fatalf("the stream: %v", err)
	}
	if line == "" {
		return nil
	}
	var ev event
	if err := json.Unmarshal([]byte(line), &ev); err != nil {
		s.Fatalf("%v: %.200s", err, line)
	}
	if _, err := time.Parse(time.RFC3339, ev.Date); err != nil {
		s.Errorf("no date: %.200s", line)
	}
	return &ev
}

// follower applies a stream to its snapshot, and finds what cannot be: a create of
// a VM that is there, a modify or delete of one that is not, a modify to what was
// there already, revisions that do not grow.
type follower struct {
	*stream
	vms  map[string]string
	rev  uint64
	seen int
}

func follow(s *stream) *follower { return &follower{stream: s} }

// until applies events until done says so.
func (f *follower) until(done func() bool) {
	f.Helper()
	for f.vms == nil || !done() {
		ev := f.next()
		if ev == nil {
			f.Fatal("the stream has ended")
		}
		f.apply(ev)
	}
}

func (f *follower) apply(ev *event) {
	f.Helper()
	f.seen++
	if ev.Rev != 0 && (ev.Rev < f.rev || ev.Rev == f.rev && ev.Type != "ready") {
		f.Errorf("revision %d after %d", ev.Rev, f.rev)
	}
	f.rev = ev.Rev
	old, there := f.vms[ev.UUID]
	switch ev.Type {
	case "ready":
		f.vms = byUUID(f, ev.VMs)
		return
	case "create":
		f.vms[ev.UUID] = string(ev.VM)
	case "modify":
		if old == string(ev.VM) {
			f.Errorf("a modify that changed nothing: %s", old)
		}
		f.vms[ev.UUID] = string(ev.VM)
	case "delete":
		delete(f.vms, ev.UUID)
	default:
		f.Fatalf("%+v", ev)
	}
	if there == (ev.Type == "create") {
		f.Errorf("%s of %s, which was there: %v", ev.Type, ev.UUID, there)
	}
}

func byUUID(t testing.TB, list string) map[string]string {
	t.Helper()
	var all []json.RawMessage
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		t.Fatal(err)
	}
	vms := map[string]string{}
	for _, text := range all {
		var m struct{ UUID string }
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		vms[m.UUID] = string(text)
	}
	return vms
}

func uuid(writer, n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%06d%06d", writer, n) }

// forever is more than any test lasts.
const forever = 1_000_000_000

// churn creates, updates and deletes VMs of its own, so many times in all. It
// stops at the first error, which it gives back.
func (s *server) churn(writer, times int) error {
	c, err := s.Dial("")
	if err != nil {
		return err
	}
	defer c.Close()
	for i, made := 0, -1; i < times; i++ {
		line := ""
		switch {
		case made < 0:
			made = i
			line = fmt.Sprintf(`create {"uuid":%q,"alias":"w%d-%d","customer_metadata":{"n":0}}`, uuid(writer, made), writer, made)
		case i-made == 5:
			line = "delete " + uuid(writer, made)
			made = -1
		default:
			line = fmt.Sprintf(`update %s {"quota":%d,"set_customer_metadata":{"n":%d}}`, uuid(writer, made), i, i)
		}
		if err := c.Swrite(0, []byte(line+"\n"), "ctl"); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}
