package hostile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// watching is a meta9 watch, line by line.
type watching struct {
	t         *testing.T
	out, errs chan string
}

func watch(t *testing.T, srv *testenv.Server, path string) *watching {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t, "meta9"), "--addr", srv.Admin(), "watch", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &watching{t, lines(out), lines(errs)}
}

func lines(r io.Reader) chan string {
	ch := make(chan string, 10_000)
	go func() {
		defer close(ch)
		for s := bufio.NewScanner(r); s.Scan(); {
			ch <- s.Text()
		}
	}()
	return ch
}

// says waits for a line on standard error, for so long.
func (w *watching) says(want string, limit time.Duration) {
	w.t.Helper()
	select {
	case line, ok := <-w.errs:
		if !ok || !strings.Contains(line, want) {
			w.t.Fatalf("standard error has %q, want %q", line, want)
		}
	case <-time.After(limit):
		w.t.Fatalf("nothing on standard error within %v, want %q", limit, want)
	}
}

// set waits for the next key-set and gives its key. What is lost fails the test.
func (w *watching) set() string {
	w.t.Helper()
	for {
		select {
		case line, ok := <-w.out:
			var e struct{ Type, Key string }
			if !ok || json.Unmarshal([]byte(line), &e) != nil || e.Type == "lost" {
				w.t.Fatalf("watch printed %q", line)
			}
			if e.Type == "key-set" {
				return e.Key
			}
		case <-time.After(20 * time.Second):
			w.t.Fatal("the next event did not come")
		}
	}
}

// A meta9d that stands still (SIGSTOP) never answers meta9 watch. It says so
// within 60 s, and when meta9d goes on so does the watch, in the same session: each event
// comes once, those that happened before it stood still, those of requests that it found
// waiting then, and later ones.
func TestStandstill(t *testing.T) {
	t.Parallel() // it only waits
	srv := testenv.Start(t, daemon.Options{})
	uuid := testenv.UUID(7)
	srv.NewVM(uuid, fmt.Sprintf(`{"uuid":%q}`, uuid))
	c := srv.Conn("vms/" + uuid + "/keys")
	put := func(key string) {
		t.Helper()
		if err := c.Swrite(0, []byte("v"), key); err != nil {
			t.Fatal(err)
		}
	}
	w := watch(t, srv, "vms/"+uuid)
	for begun := false; !begun; {
		put("first")
		select {
		case <-w.out:
			begun = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	put("start")
	for w.set() != "start" {
	}
	t.Cleanup(func() { _ = srv.Signal(syscall.SIGCONT) })
	var want []string
	for i := range 100 {
		put(fmt.Sprint("before", i))
		want = append(want, fmt.Sprint("before", i))
	}
	if err := srv.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	if err := c.Send(raw.Frame(wire.Tswrite, 9, uint32(0), uint16(1), "meanwhile", raw.Data("v"))); err != nil {
		t.Fatal(err)
	}
	want = append(want, "meanwhile")
	w.says("connection lost, trying again: the server is silent", 60*time.Second)
	t.Logf("said so after %v", time.Since(stopped).Round(time.Second))
	if err := srv.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.says("connected again", 30*time.Second)
	if r, err := c.Recv(); err != nil || r.Type != wire.Rswrite {
		t.Fatalf("%v, %v", r, err)
	}
	put("after")
	for _, key := range append(want, "after") {
		if got := w.set(); got != key {
			t.Fatalf("the next event is of %s, want %s", got, key)
		}
	}
}
