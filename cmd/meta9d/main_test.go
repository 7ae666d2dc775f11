package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta9/rarelog/logtest"
	"meta9/session/wire"
)

// program is the built meta9d: the one that META9_TEST_DAEMON names (make quick), or one
// that is built for these tests.
var program = os.Getenv("META9_TEST_DAEMON")

func TestMain(m *testing.M) {
	os.Exit(withProgram(m))
}

func withProgram(m *testing.M) int {
	if program != "" {
		if _, err := os.Stat(program); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "m9d")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "meta9d")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\n%v\n", out, err)
		return 1
	}
	return m.Run()
}

// shortDir is a folder whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// call runs the program to its end.
func call(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// proc is a running meta9d, in a folder of its own.
type proc struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	log logtest.Log // what it has logged so far
	end sync.Once
}

// listener is the address that is really listened on, from the log's "via".
func (p *proc) listener(kind string) string {
	p.t.Helper()
	via := `"via":"` + kind
	p.logs(0, via)
	_, rest, _ := strings.Cut(p.log.String(), via)
	addr, _, _ := strings.Cut(rest, `"`)
	return addr
}

// logs waits until the log has the text after so many bytes of it: what the program has
// written comes here by a pipe of its own.
func (p *proc) logs(from int, text string) {
	p.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(p.log.String()[from:], text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("no %s in the log:\n%s", text, &p.log)
		}
	}
}

// start runs the program until it is ready; the test's end ends it.
func start(t *testing.T, dir string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, dir: dir, cmd: exec.Command(program, args...)}
	p.cmd.Dir, p.cmd.Stderr = dir, &p.log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop() })
	stuck := time.AfterFunc(30*time.Second, func() { p.cmd.Process.Kill() })
	defer stuck.Stop()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		p.stop()
		t.Fatalf("said %q, %v; log:\n%s", line, err, &p.log)
	}
	return p
}

// stop sends SIGTERM and returns the exit code and the log.
func (p *proc) stop() (code int, log string) {
	p.end.Do(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(30*time.Second, func() { p.cmd.Process.Kill() })
		defer stuck.Stop()
		p.cmd.Wait()
	})
	return p.cmd.ProcessState.ExitCode(), p.log.String()
}

// client speaks 9P2000.e by hand.
type client struct {
	t       *testing.T
	c       net.Conn
	r       *bufio.Reader
	dialect wire.Dialect
}

// connect opens a connection to a socket below the daemon's folder and attaches
// as fid 0.
func (p *proc) connect(path string) *client {
	p.t.Helper()
	nc, err := net.Dial("unix", filepath.Join(p.dir, path))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { nc.Close() })
	return newClient(p.t, nc)
}

// newClient agrees on a version and attaches as fid 0.
func newClient(t *testing.T, nc net.Conn) *client {
	t.Helper()
	c := greet(t, nc)
	c.attach()
	return c
}

// greet agrees on a version.
func greet(t *testing.T, nc net.Conn) *client {
	t.Helper()
	return greetIn(t, nc, wire.E)
}

func greetIn(t *testing.T, nc net.Conn, d wire.Dialect) *client {
	t.Helper()
	c := &client{t: t, c: nc, r: bufio.NewReader(nc)}
	c.call(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 65536, Version: d.String()})
	c.dialect = d
	return c
}

func (c *client) attach() {
	c.t.Helper()
	c.call(&wire.Msg{Type: wire.Tattach, Fid: 0, Afid: wire.NoFid, Uname: "test"})
}

// roundtrip sends a message and reads a reply.
func (c *client) roundtrip(m *wire.Msg) *wire.Msg {
	c.t.Helper()
	b, err := wire.Append(nil, m, c.dialect)
	if err != nil {
		c.t.Fatal(err)
	}
	c.c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.c.Write(b); err != nil {
		c.t.Fatal(err)
	}
	return c.read()
}

func (c *client) read() *wire.Msg {
	c.t.Helper()
	head, err := c.r.Peek(wire.HeaderLen)
	if err != nil {
		c.t.Fatal(err)
	}
	size, _, _, _ := wire.Split(head)
	frame := make([]byte, size)
	for n := 0; n < len(frame); {
		k, err := c.r.Read(frame[n:])
		if err != nil {
			c.t.Fatal(err)
		}
		n += k
	}
	r := new(wire.Msg)
	if err := wire.Decode(r, frame, c.dialect); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// call is a roundtrip that must succeed.
func (c *client) call(m *wire.Msg) *wire.Msg {
	c.t.Helper()
	r := c.roundtrip(m)
	if r.Type != m.Type+1 {
		c.t.Fatalf("%s\n  answered %s", m, r)
	}
	return r
}

// put writes a whole file.
func (c *client) put(path, value string) {
	c.t.Helper()
	c.call(&wire.Msg{Type: wire.Tswrite, Fid: 0, Names: strings.Split(path, "/"), Data: []byte(value)})
}

// get reads a whole file.
func (c *client) get(path string) string {
	c.t.Helper()
	return string(c.call(&wire.Msg{Type: wire.Tsread, Fid: 0, Names: strings.Split(path, "/")}).Data)
}
