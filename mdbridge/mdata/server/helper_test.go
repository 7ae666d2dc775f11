package server_test

import (
	"bufio"
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/mdbridge/mdata"
	"meta9/mdbridge/mdata/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// via is how the tests say that connections came.
const via = "a test"

const uuid = "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f"

// world is a tree over a store in memory, and a server of it.
type world struct {
	t    testing.TB
	st   *store.Store
	tree *fs.Tree
	*server.Server
	path string // of a unix socket on which every connection is the VM's
}

func newWorld(t testing.TB, cfg store.Config, limits server.Limits) *world {
	t.Helper()
	return newWorldOf(t, cfg, server.Config{Limits: limits})
}

// newWorldOf is newWorld with more to say about the server.
func newWorldOf(t testing.TB, cfg store.Config, of server.Config) *world {
	t.Helper()
	cfg.Log = zerolog.Nop()
	st, err := store.Open(store.NewMemory(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, st: st, tree: fs.New(st, fs.Config{Log: zerolog.Nop()})}
	of.Tree = w.tree
	w.Server = server.New(of)
	t.Cleanup(func() {
		w.Drain(t.Context()) // which is over, so connections that the test has open are closed
		st.Close()
	})
	w.listen()
	return w
}

func (w *world) listen() {
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.path = filepath.Join(dir, "mdata.sock")
	l, err := net.Listen("unix", w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.Serve(c, fs.Principal{VM: uuid}, via)
		}
	}()
}

// do does one intent that must succeed.
func (w *world) do(in store.Intent) {
	w.t.Helper()
	if in.Kind != store.CreateVM {
		in.Cell = w.st.Cell(uuid)
	}
	if r := w.st.Do(&in); r.Err != nil {
		w.t.Fatal(r.Err)
	}
}

func (w *world) create(payload string) {
	w.t.Helper()
	w.do(store.Intent{Kind: store.CreateVM, Data: payload, Mirror: true})
}

func (w *world) dial() *net.UnixConn {
	w.t.Helper()
	c, err := net.Dial("unix", w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

// client is a connection with what a test asks of it.
type client struct {
	*net.UnixConn
	t testing.TB
	r *bufio.Reader
}

func (w *world) client() *client {
	c := w.dial()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{c, w.t, bufio.NewReader(c)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		c.t.Fatal(err)
	}
}

// line is the next line of a reply, without its LF.
func (c *client) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%v after %q", err, s)
	}
	return strings.TrimSuffix(s, "\n")
}

// request is a frame's line.
func request(code, payload string) string {
	return string(mdata.AppendFrame(nil, []byte("0a1b2c3d"), code, []byte(payload)))
}

// putRequest is a PUT's line.
func putRequest(key, value string) string {
	return request(mdata.Put, b64(key)+" "+b64(value))
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// reply reads the reply to a frame: its code and, where it has one, its payload.
func (c *client) reply() string {
	c.t.Helper()
	line := c.line()
	_, rest := mdata.Command([]byte(line))
	f, ok := mdata.ParseFrame(rest)
	if !ok || string(f.ID) != "0a1b2c3d" {
		c.t.Fatalf("not a reply: %q", line)
	}
	return strings.TrimSuffix(string(f.Code)+" "+string(mdata.AppendDecoded(nil, f.Payload)), " ")
}

func (c *client) ask(code, payload string) string {
	c.t.Helper()
	c.send(request(code, payload))
	return c.reply()
}

func (c *client) put(key, value string) string {
	c.t.Helper()
	c.send(putRequest(key, value))
	return c.reply()
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}
