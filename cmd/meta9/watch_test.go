package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	testVM      = "550e8400-e29b-41d4-a716-446655440000"
	testPayload = `{"uuid": "` + testVM + `", "customer_metadata": {"motd": "hi!", "a/b": "x"}}`
)

// world is a meta9d with one VM, and meta9 to use it.
type world struct {
	t      *testing.T
	daemon *daemon
	dir    string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, daemon: &daemon{program: buildDaemon(t)}, dir: t.TempDir()}
	w.start()
	t.Cleanup(func() { w.daemon.end(syscall.SIGKILL) })
	w.must(testPayload, "vm", "create")
	return w
}

func (w *world) start() {
	w.t.Helper()
	if err := w.daemon.start(w.dir); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) args(args []string) []string {
	return append([]string{"--addr", filepath.Join(w.dir, "meta9-run", "admin.sock")}, args...)
}

// must runs meta9, which must work, with an input.
func (w *world) must(in string, args ...string) {
	w.t.Helper()
	var out, err bytes.Buffer
	if code := run(w.t.Context(), w.args(args), strings.NewReader(in), &out, &err); code != exitOK {
		w.t.Fatalf("meta9 %q: exit code %d: %s", args, code, err.String())
	}
}

// event is what the tests look at in a line.
type event struct {
	Rev, From  uint64
	Type, Key  string
	Space, Raw string
}

// watching is a meta9 watch that runs.
type watching struct {
	t     *testing.T
	lines chan event
	code  chan int
	errs  bytes.Buffer // may be read when code has come
	stop  context.CancelFunc
}

// watch starts meta9 watch; touch is called until it prints something.
func (w *world) watch(path string, touch func()) *watching { return w.follow("watch", path, touch) }

// follow starts a command that prints events.
func (w *world) follow(command, path string, touch func()) *watching {
	ctx, stop := context.WithCancel(w.t.Context())
	r, out := io.Pipe()
	v := &watching{t: w.t, lines: make(chan event, 100), code: make(chan int, 1), stop: stop}
	go func() {
		v.code <- run(ctx, w.args([]string{command, path}), nil, out, &v.errs)
		out.Close()
	}()
	go func() {
		defer close(v.lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			e := event{Raw: s.Text()}
			if err := json.Unmarshal(s.Bytes(), &e); err != nil {
				w.t.Errorf("%q: %v", s.Text(), err)
			}
			v.lines <- e
		}
	}()
	for {
		touch()
		select {
		case <-v.lines:
			return v
		case code := <-v.code:
			w.t.Fatalf("%s %s ended with %d: %s", command, path, code, v.errs.String())
		case <-time.After(10 * time.Millisecond): // it may not have begun
		}
	}
}

// until skips lines until ok.
func (v *watching) until(what string, ok func(e event) bool) event {
	v.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case e, more := <-v.lines:
			if !more {
				v.t.Fatalf("%s: the watch ended", what)
			}
			if ok(e) {
				return e
			}
		case <-late:
			v.t.Fatalf("%s did not come", what)
		}
	}
}

// TestCatEvents: an events file has no end, and cat goes on like watch.
func TestCatEvents(t *testing.T) {
	w := newWorld(t)
	touch := func() { w.must("", "put", "vms/"+testVM+"/keys/motd", "v") }
	v := w.follow("cat", "vms/"+testVM+"/events", touch)
	touch()
	v.until("a write", func(e event) bool { return e.Type == "key-set" && e.Key == "motd" })
	v.stop()
	if code := <-v.code; code != exitSignal {
		t.Errorf("exit code %d: %s", code, v.errs.String())
	}
}

func TestWatchFilters(t *testing.T) {
	w := newWorld(t)
	keys := "vms/" + testVM + "/keys"
	for path, want := range map[string][]string{
		"/":                {"keys/motd", "internal/x_pw", "keys/a/b"},
		"vms":              {"keys/motd", "internal/x_pw", "keys/a/b"},
		"vms/" + testVM:    {"keys/motd", "internal/x_pw", "keys/a/b"},
		keys:               {"keys/motd", "keys/a/b"},
		keys + "/motd":     {"keys/motd"},
		keys + "/a%2Fb":    {"keys/a/b"},
		keys + "/../keys/": {"keys/motd", "keys/a/b"},
	} {
		all := func() {
			w.must("", "put", keys+"/motd", "v")
			w.must("", "put", "vms/"+testVM+"/internal/x_pw", "v")
			w.must("", "put", keys+"/a%2Fb", "v")
		}
		v := w.watch(path, all)
		all()
		seen := map[string]bool{}
		for range want {
			e := v.until(path, func(e event) bool { return !seen[e.Space+"/"+e.Key] })
			seen[e.Space+"/"+e.Key] = true
		}
		for _, key := range want {
			if !seen[key] {
				t.Errorf("%s: saw %v, want %v", path, seen, want)
			}
		}
		v.stop()
		if code := <-v.code; code != exitSignal || v.errs.Len() > 0 {
			t.Errorf("%s: interrupted: exit code %d, %q", path, code, v.errs.String())
		}
	}
	for _, path := range []string{"vms/nope", "vms/" + testVM + "/sdc/x", keys + "/a/b", keys + "/a%2fb"} {
		var out, err bytes.Buffer
		if code := run(t.Context(), w.args([]string{"watch", path}), nil, &out, &err); code != exitFailed || !strings.Contains(err.String(), path) {
			t.Errorf("%s: exit code %d, %q", path, code, err.String())
		}
	}
}

// A watch outlives the daemon: a kill loses nothing, and where the session is lost, as with
// the host, it says that events may be missing.
func TestWatchOutlivesTheDaemon(t *testing.T) {
	w := newWorld(t)
	motd := "vms/" + testVM + "/keys/motd"
	touch := func() { w.must("", "put", motd, "v") }
	v := w.watch(motd, touch)
	touch()
	last := v.until("an event", func(e event) bool { return e.Type == "key-set" })
	w.daemon.end(syscall.SIGKILL)
	w.start()
	touch()
	next := v.until("the event after a kill", func(e event) bool {
		if e.Type == "lost" {
			t.Errorf("lost at a kill: %+v", e)
		}
		return e.Type == "key-set" && e.Rev > last.Rev
	})
	last = next
	w.daemon.end(syscall.SIGKILL)
	if err := os.RemoveAll(filepath.Join(w.dir, "meta9-run", "journal")); err != nil {
		t.Fatal(err)
	}
	w.start()
	lost := v.until("the loss", func(e event) bool {
		last.Rev = max(last.Rev, e.Rev)
		return e.Type == "lost"
	})
	if lost.From != last.Rev+1 {
		t.Errorf("lost from %d on, but %d was seen", lost.From, last.Rev)
	}
	touch()
	v.until("the next event", func(e event) bool { return e.Type == "key-set" && e.Rev >= lost.From })
	w.must("", "vm", "delete", testVM)
	v.until("the deletion", func(e event) bool { return e.Type == "vm-deleted" })
	if code := <-v.code; code != exitFailed {
		t.Errorf("exit code %d after the VM is gone", code)
	}
	for _, want := range []string{"meta9: connection lost, trying again: ", "meta9: connected again\n", "the session was lost"} {
		if !strings.Contains(v.errs.String(), want) {
			t.Errorf("standard error: %q, want %q", v.errs.String(), want)
		}
	}
}

// TestExecBackoff: a command of --exec that fails is run again after pauses that grow, and each
// time it is said.
func TestExecBackoff(t *testing.T) {
	w := newWorld(t)
	runs := filepath.Join(t.TempDir(), "runs")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		args := []string{"watch", "--initial", "--exec", "date +%s%N >>" + runs + "; exit 7", "vms/" + testVM + "/keys"}
		code <- run(ctx, w.args(args), strings.NewReader(""), &out, &errs)
	}()
	var began []int64
	for end := time.Now().Add(time.Minute); len(began) < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it was run at %d", began)
		}
		text, _ := os.ReadFile(runs)
		began = nil
		for line := range strings.Lines(string(text)) {
			if n, err := strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 64); err == nil && strings.HasSuffix(line, "\n") {
				began = append(began, n)
			}
		}
	}
	stop()
	<-code
	for i, least := range []time.Duration{reactAgain.First / 2, reactAgain.First} { // the half of each is by chance
		if pause := time.Duration(began[i+1] - began[i]); pause < least {
			t.Errorf("pause %d is %v, at least %v is due", i, pause, least)
		}
	}
	if n := strings.Count(errs.String(), "exit status 7; it is tried again"); n < 2 {
		t.Errorf("it is said %d times: %s", n, errs.String())
	}
}

// TestExecHangup: when the terminal goes, what --exec runs ends with the watch.
func TestExecHangup(t *testing.T) {
	hangup := make(chan os.Signal, 1) // so that it does not end the test; and it may have been ignored (nohup)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	w := newWorld(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, w.args([]string{"watch", "--initial", "--exec", "cat " + pipe, "vms/" + testVM}), nil, io.Discard, io.Discard)
	}()
	held, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits until the command reads
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-code:
		if got != exitSignal {
			t.Errorf("exit code %d, want %d", got, exitSignal)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	for err = nil; err == nil; { // until nobody reads any more
		_, err = held.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}

// fullPipe is the end of a pipe that nobody reads.
type fullPipe struct {
	full chan struct{} // closed when something is being written
	once sync.Once
	gone context.Context
}

func newFullPipe(t *testing.T) *fullPipe {
	return &fullPipe{full: make(chan struct{}), gone: t.Context()}
}

func (p *fullPipe) Write([]byte) (int, error) {
	p.once.Do(func() { close(p.full) })
	<-p.gone.Done()
	return 0, io.ErrClosedPipe
}

// TestWatchFullPipe: an interrupt ends a watch at once whose output or complaint nobody reads.
func TestWatchFullPipe(t *testing.T) {
	for _, tt := range []struct {
		name     string
		out, err bool // nobody reads it
	}{{"output", true, false}, {"complaint", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			pipe := newFullPipe(t)
			printed := make(chan struct{}, 1)
			var out, err io.Writer = told(printed), io.Discard
			if tt.out {
				out = pipe
			}
			if tt.err {
				err = pipe
			}
			code := make(chan int, 1)
			go func() { code <- run(ctx, w.args([]string{"watch", "vms/" + testVM}), nil, out, err) }()
			for begun := false; !begun; {
				w.must("x", "put", "vms/"+testVM+"/keys/motd")
				select {
				case <-pipe.full:
					begun = true
				case <-printed:
					begun = true
				case <-time.After(10 * time.Millisecond): // it may not have begun to watch
				}
			}
			if tt.err {
				w.daemon.end(syscall.SIGKILL)
			}
			<-pipe.full
			stop()
			select {
			case got := <-code:
				if got != exitSignal {
					t.Errorf("exit code %d, want %d", got, exitSignal)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it does not end")
			}
		})
	}
}

// told is an output that says that something came.
type told chan struct{}

func (c told) Write(b []byte) (int, error) {
	select {
	case c <- struct{}{}:
	default:
	}
	return len(b), nil
}

// TestEventWithoutEnd: a server that sends no end of a line is not listened to until the memory
// is full.
func TestEventWithoutEnd(t *testing.T) {
	events := 0
	w := &watcher{path: "/events", tell: func([]byte) error { events++; return nil }}
	line := append(bytes.Repeat([]byte("x"), 64<<10), '\n')
	if err := w.take(line); err != nil || events != 1 {
		t.Fatalf("%d events were told, %v", events, err)
	}
	var err error
	for n := 0; err == nil && n < 2<<20; n += len(line) - 1 {
		err = w.take(line[:len(line)-1])
	}
	if err == nil || !strings.Contains(err.Error(), "/events") {
		t.Errorf("%d bytes without an end: %v", len(w.part), err)
	}
}
