package mdata_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/mdbridge/mdata"
	"meta9/mdbridge/mdata/mdatatest"
)

// lockEnv names a device that the test's binary, run again, locks until the end of
// its standard input.
const lockEnv = "META9_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockEnv); path != "" {
		lockUntilEOF(path)
		return
	}
	goleak.VerifyTestMain(m)
}

func lockUntilEOF(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	fmt.Println(err)
	io.Copy(io.Discard, os.Stdin)
}

// listen is a unix socket on which talk has every connection.
func listen(t *testing.T, talk func(c io.ReadWriter)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			talk(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return path
}

// line is a serial line at whose other end talk is. It is raw, and does not echo,
// as one that was used before.
func line(t *testing.T, talk func(c io.ReadWriter)) (path string) {
	t.Helper()
	host, path := mdatatest.PTY(t)
	mdatatest.OpenRaw(t, path) // while nobody has it open, the host would read an end
	ended := make(chan struct{})
	go func() { defer close(ended); talk(host) }()
	t.Cleanup(func() { host.Close(); <-ended })
	return path
}

// talk makes a host of what it answers.
func talk(answer func(string) string) func(io.ReadWriter) {
	return func(c io.ReadWriter) { mdatatest.Talk(c, answer) }
}

// within is a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// Times of the tests: for hosts that answer, for those that answer when they are asked
// again, which a client does after a part of its time, and for those that do not.
const (
	long  = 30 * time.Second
	later = 6 * time.Second
	short = 1200 * time.Millisecond
)

func TestHosts(t *testing.T) {
	for _, h := range mdatatest.Hosts {
		t.Run(h.Name+"/socket", func(t *testing.T) { testHost(t, h, listen(t, talk(h.New()))) })
		if !h.Flood {
			t.Run(h.Name+"/serial", func(t *testing.T) { testHost(t, h, line(t, talk(h.New()))) })
		}
	}
}

func testHost(t *testing.T, h mdatatest.Host, path string) {
	t.Parallel()
	limit := short
	switch {
	case h.Quick || h.Flood:
		limit = long
	case h.Err == "" || h.Put == "":
		limit = later
	}
	began := time.Now()
	value, err := get(within(t, limit), path)
	if string(value) != h.Value || !matches(err, h.Err) {
		t.Errorf("GET: %q, %v; want %q, %q", value, err, h.Value, h.Err)
	}
	if err := put(within(t, limit), path); !matches(err, h.Put) {
		t.Errorf("PUT: %v; want %q", err, h.Put)
	}
	if took := time.Since(began); h.Quick && took > long/2 || took > 2*limit+5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func matches(err error, text string) bool {
	return (err == nil) == (text == "") && (err == nil || strings.Contains(err.Error(), text))
}

func get(ctx context.Context, path string) ([]byte, error) {
	c, err := mdata.Dial(ctx, path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Get(ctx, "key")
}

func put(ctx context.Context, path string) error {
	c, err := mdata.Dial(ctx, path)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Put(ctx, "key", []byte("secret value"))
}

// The error of a silent host says what was sent and what came back, but no value.
func TestErrorTellsAll(t *testing.T) {
	path := listen(t, talk(func(line string) string {
		if strings.HasPrefix(line, "V2") {
			return "what?\n"
		}
		return mdatatest.Good(line)
	}))
	err := put(within(t, short), path)
	for _, part := range []string{path, `PUT "key"`, `"V2 `, ` PUT ..."`, "the last of 5", `"what?"`, "no answer in 1.", "i/o error"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
	if errs.KindOf(err) != errs.IO || strings.Contains(err.Error(), "c2VjcmV0") {
		t.Error(err)
	}
}

func TestNotThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file or directory",
		file:                       "no unix socket and no character device",
		stale:                      "connection refused",
		"/dev/null":                "inappropriate ioctl for device",
	} {
		if _, err := get(within(t, long), path); !matches(err, want) || errs.KindOf(err) != errs.IO || !matches(err, path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A host that hangs up is called again, a few times.
func TestHangsUp(t *testing.T) {
	calls := 0
	path := listen(t, func(c io.ReadWriter) {
		if calls++; calls == 3 {
			mdatatest.Talk(c, mdatatest.Good)
			return
		}
		c.Write([]byte("V2_OK\n")) // and no more
		io.ReadFull(c, make([]byte, len("NEGOTIATE V2\n")))
	})
	if value, err := get(within(t, long), path); err != nil || len(value) == 0 {
		t.Errorf("%q, %v", value, err)
	}
	path = listen(t, func(c io.ReadWriter) {
		c.Write([]byte("V2_OK\n"))
		io.ReadFull(c, make([]byte, len("NEGOTIATE V2\n")))
	})
	if _, err := get(within(t, long), path); !matches(err, "closed the connection") && !matches(err, "broken pipe") && !matches(err, "reset by peer") {
		t.Error(err)
	}
}

// A call ends when its context does.
func TestCancel(t *testing.T) {
	silent := talk(func(line string) string {
		if line == "NEGOTIATE V2" || line == "" {
			return mdatatest.Good(line)
		}
		return ""
	})
	for _, path := range []string{listen(t, silent), line(t, silent)} {
		c, err := mdata.Dial(within(t, long), path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := c.Get(ctx, "key"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		c.Close()
	}
}

// What was on the line before is not taken for an answer: half a reply of the
// host's, half a request of somebody else's; and the host may come late.
func TestResync(t *testing.T) {
	lines := 0
	path := line(t, func(host io.ReadWriter) {
		host.Write([]byte("ab4 SUCCESS c3RhbGU=\nV2 21 ee7938c7 dc4fae17 SUCC"))
		mdatatest.Talk(host, func(line string) string {
			if lines++; lines == 1 && line != "" {
				t.Errorf("the host got %q first", line)
			}
			if lines == 1 {
				return "" // not there yet
			}
			return mdatatest.Good(line)
		})
	})
	if value, err := get(within(t, long), path); err != nil || len(value) == 0 {
		t.Errorf("%q, %v", value, err)
	}
}

// A line that another process has locked is waited for, and the error says who
// has it.
func TestLocked(t *testing.T) {
	path := line(t, talk(mdatatest.Good))
	other := lockElsewhere(t, path)
	if _, err := get(within(t, 300*time.Millisecond), path); !matches(err, "in use: process ") {
		t.Error(err)
	}
	time.AfterFunc(100*time.Millisecond, other)
	if _, err := get(within(t, long), path); err != nil {
		t.Error(err)
	}
}

// lockElsewhere locks the device in another process, until unlock.
func lockElsewhere(t *testing.T, path string) (unlock func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), lockEnv+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "<nil>\n" {
		t.Fatal(line, err)
	}
	return func() { in.Close() }
}
