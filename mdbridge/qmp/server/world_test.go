package server

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	uuid1 = "550e8400-e29b-41d4-a716-000000000001"
	uuid2 = "550e8400-e29b-41d4-a716-000000000002"
)

// world is a server over a store in memory.
type world struct {
	t     testing.TB
	store *store.Store
	srv   *Server
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	st, err := store.Open(store.NewMemory(), store.Config{RootEvents: 128})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Tree = fs.New(st, fs.Config{})
	cfg.Log = zerolog.Nop()
	w := &world{t: t, store: st, srv: New(cfg)}
	t.Cleanup(func() {
		w.srv.Shutdown()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// vm makes a VM of a payload.
func (w *world) vm(payload string) *store.Cell {
	w.t.Helper()
	return w.do(store.Intent{Kind: store.CreateVM, Data: payload}).Cell
}

func (w *world) do(in store.Intent) store.Result {
	w.t.Helper()
	r := w.store.Do(&in)
	if r.Err != nil {
		w.t.Fatal(r.Err)
	}
	return r
}

// client is a client that checks what must be so of everything that a server
// says: one object in ASCII, and CRLF (section 2.1.1).
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	out  chan string
}

// connect makes a connection to the server, and reads nothing.
func (w *world) connect() *client {
	ours, theirs := net.Pipe()
	go w.srv.Serve(theirs)
	c := &client{w.t, ours, bufio.NewReader(ours), make(chan string, 100)}
	go func() {
		for text := range c.out {
			_, _ = io.WriteString(ours, text)
		}
	}()
	w.t.Cleanup(func() {
		close(c.out)
		_ = ours.Close()
	})
	return c
}

// dial makes a connection that is past the negotiation.
func (w *world) dial() *client {
	w.t.Helper()
	c := w.connect()
	c.line()
	if got := c.ask(`{"execute": "qmp_capabilities"}`); got != `{"return": {}}` {
		w.t.Fatalf("negotiation: %s", got)
	}
	return c
}

// send writes text in the background, since the other side may be writing.
func (c *client) send(text string) {
	c.out <- text
}

// line reads one message, without its end.
func (c *client) line() string {
	c.t.Helper()
	text, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%q: %v", text, err)
	}
	line, ok := strings.CutSuffix(text, "\r\n")
	if !ok {
		c.t.Errorf("no CRLF: %q", text)
	}
	c.checkMessage(strings.TrimPrefix(line, "\xff"))
	return line
}

func (c *client) checkMessage(line string) {
	c.t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(line), &o); err != nil {
		c.t.Errorf("no JSON object: %q: %v", line, err)
	}
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
		c.t.Errorf("not ASCII: %q", line)
	}
}

// ask sends a command and reads the answer; events before it are skipped.
func (c *client) ask(text string) string {
	c.t.Helper()
	c.send(text + " ")
	for {
		if line := c.line(); !strings.Contains(line, `"event": `) {
			return line
		}
	}
}

// event reads a message that must be an event, and takes it apart.
func (c *client) event() event {
	c.t.Helper()
	var e event
	line := c.line()
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Event == "" {
		c.t.Fatalf("no event: %s", line)
	}
	return e
}

type event struct {
	Event     string
	Data      map[string]any
	Timestamp struct{ Seconds, Microseconds int64 }
}

// atEnd tells whether the server has closed the connection.
func (c *client) atEnd() bool {
	_, err := c.in.ReadByte()
	return err != nil
}
