package mdata

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/mdbridge/mdata/mdatatest"
	"meta9/tests/testenv"
)

// outcome is what became of a run of meta9.
type outcome struct {
	stdout, stderr string
	code           int
}

func meta9(t *testing.T, args ...string) outcome {
	t.Helper()
	return run(t, testenv.Binary(t, "meta9"), "", args...)
}

// run runs a program with that standard input.
func run(t *testing.T, program, stdin string, args ...string) outcome {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(within(t), program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Every way in which a host can misbehave gets an exit code like mdata-get's, a
// text that says what happened, and an end.
func TestMisbehavingHosts(t *testing.T) {
	testenv.Binary(t, "meta9") // before the clock starts
	for _, h := range mdatatest.Hosts {
		t.Run(h.Name, func(t *testing.T) {
			t.Parallel()
			testHost(t, h)
		})
	}
}

func testHost(t *testing.T, h mdatatest.Host) {
	path := serve(t, h.New())
	limit := "2s"
	if h.Quick || h.Flood {
		limit = "20s"
	}
	began := time.Now()
	out := meta9(t, "--timeout", limit, "mdata", "get", "--dev", path, "key")
	if want := exitCode(h.Err); out.code != want || out.stdout != h.Value || !tells(out.stderr, h.Err) {
		t.Errorf("get: %+v; want %d, %q", out, want, h.Err)
	}
	out = run(t, testenv.Binary(t, "meta9"), "standard input", "--timeout", limit, "mdata", "put", "--dev", path, "key")
	if want := exitCode(h.Put); out.code != want || !tells(out.stderr, h.Put) {
		t.Errorf("put: %+v; want %d, %q", out, want, h.Put)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("it took %v", took)
	}
}

func exitCode(text string) int {
	switch text {
	case "":
		return 0
	case "file does not exist":
		return 1
	}
	return 2
}

// tells is true for the text of an error in whatever words the command has for it.
func tells(stderr, text string) bool {
	if text == "file does not exist" {
		text = "no metadata for"
	}
	return (stderr == "") == (text == "") && strings.Contains(stderr, text)
}

// serve is a unix socket on which answer has every connection.
func serve(t *testing.T, answer func(string) string) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "sock")
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
			mdatatest.Talk(c, answer)
			io.Closer(c).Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended; os.RemoveAll(dir) })
	return path
}
