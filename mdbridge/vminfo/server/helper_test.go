package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"meta9/fs/store"
	"meta9/mdbridge/vminfo/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long anything may take that should be at once.
const soon = 20 * time.Second

const (
	uuidA = "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f"
	uuidB = "11111111-2222-3333-4444-555555555555"
)

// world is a store with a Server on a loopback port, internal metadata shown or not.
type world struct {
	testing.TB
	st  *store.Store
	srv *server.Server
	web *httptest.Server
}

func newWorld(t testing.TB, cfg server.Config, internal bool) *world {
	t.Helper()
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Store = st
	w := &world{TB: t, st: st, srv: server.New(cfg)}
	w.web = httptest.NewUnstartedServer(nil)
	w.web.Config.Handler = w.srv.Handler(server.Access{Internal: internal, Addr: w.web.Listener.Addr()})
	w.web.Start()
	t.Cleanup(func() {
		w.srv.Close()
		w.web.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// addr is HOST:PORT.
func (w *world) addr() string { return w.web.Listener.Addr().String() }

func (w *world) do(in store.Intent) *store.Cell {
	w.Helper()
	r := w.st.Do(&in)
	if r.Err != nil {
		w.Fatal(r.Err)
	}
	return r.Cell
}

func (w *world) create(payload string) *store.Cell {
	w.Helper()
	return w.do(store.Intent{Kind: store.CreateVM, Data: payload, Mirror: true})
}

func (w *world) update(c *store.Cell, patch string) {
	w.Helper()
	w.do(store.Intent{Kind: store.UpdateVM, Cell: c, Data: patch})
}

// get is the answer to a GET with headers (name, value, ...).
func (w *world) get(path string, headers ...string) (*http.Response, string) {
	w.Helper()
	req, err := http.NewRequest(http.MethodGet, w.web.URL+path, nil)
	if err != nil {
		w.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.web.Client().Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return resp, string(b)
}

// body is that of a good answer.
func (w *world) body(path string) string {
	w.Helper()
	resp, body := w.get(path)
	if resp.StatusCode != http.StatusOK {
		w.Fatalf("%s: %s: %s", path, resp.Status, body)
	}
	return body
}

// raw sends a request as it stands, on a connection of its own, and gives the
// answer.
func (w *world) raw(request string) *http.Response {
	w.Helper()
	nc, err := net.Dial("tcp", w.addr())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { nc.Close() })
	if _, err := io.WriteString(nc, request); err != nil {
		w.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: method})
	if err != nil {
		w.Fatal(err)
	}
	return resp
}

// stream is a client of /events.
type stream struct {
	testing.TB
	in   *bufio.Reader
	resp *http.Response
}

func (w *world) events(query string) *stream {
	w.Helper()
	resp, err := w.web.Client().Get(w.web.URL + "/events" + query)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		w.Fatal(resp.Status)
	}
	return &stream{w.TB, bufio.NewReaderSize(resp.Body, 1<<20), resp}
}

// next is the next line; "": the stream has ended.
func (s *stream) next() string {
	s.Helper()
	timer := time.AfterFunc(soon, func() { s.resp.Body.Close() })
	defer timer.Stop()
	line, err := s.in.ReadString('\n')
	if err == io.EOF && line == "" {
		return ""
	}
	if err != nil {
		s.Fatalf("the stream: %v, after %q", err, line)
	}
	return strings.TrimSuffix(line, "\n")
}

var (
	anyDate  = regexp.MustCompile(`"date":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"`)
	anyReady = regexp.MustCompile(`^(\{"type":"[a-z]+","date":"D"(?:,"zonename":"")?,"uuid":)"[0-9a-f-]{36}"`)
)

// plain is a line with its date and a listener's id taken out.
func plain(line string) string {
	line = anyDate.ReplaceAllString(line, `"date":"D"`)
	if strings.HasPrefix(line, `{"type":"ready"`) || strings.HasPrefix(line, `{"type":"error"`) {
		line = anyReady.ReplaceAllString(line, `$1"ID"`)
	}
	return line
}

// want reads the next line and compares it.
func (s *stream) want(line string) {
	s.Helper()
	if d := cmp.Diff(line, plain(s.next())); d != "" {
		s.Errorf("(-want +got):\n%s", d)
	}
}

// ready is the first line with this array of VMs; tail is what comes after it.
func ready(vms, tail string) string {
	text, err := json.Marshal(vms)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"type":"ready","date":"D","uuid":"ID","vms":%s%s}`, text, tail)
}

func vector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
