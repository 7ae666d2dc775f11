// Package service runs what `meta9 agent` and `meta9 credential` are in a guest against the
// real meta9d, as systemd would run them.
package service

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var uuid = testenv.UUID(1)

// folder is a short path without symbolic links.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9-")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// write makes a file.
func write(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// TestFresh: whatever becomes of meta9d, an agent's files are soon what the keys are, pairs
// of keys are never mixed, and each change is told of.
func TestFresh(t *testing.T) {
	const rounds = 8
	s := testenv.Start(t, daemon.Options{})
	s.NewVM(uuid, `{"uuid":"`+uuid+`","customer_metadata":{"a":"0","b":"0"}}`)
	dir := folder(t)
	write(t, dir+"/agent.d/pair.toml", fmt.Sprintf(`
check = 'test "$(cat "$1")" = "$(cat "$2")" || { echo mixed >>%[1]s/mixed; exit 1; }'
command = 'cat %[1]s/a >>%[1]s/told; echo >>%[1]s/told'
[file."%[1]s/a"]
key = "a"
[file."%[1]s/b"]
key = "b"
`, dir))
	write(t, dir+"/log", "")
	log, err := os.OpenFile(dir+"/log", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(testenv.Plain(t, "meta9"), "--addr", "unix:"+s.VM(uuid), "agent", "--recipes", dir+"/agent.d", "--state", dir+"/state", "--status", dir+"/status")
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the agent at its end: %v", err)
		}
		if t.Failed() {
			t.Logf("the agent's log:\n%s", read(dir+"/log"))
		}
	})
	n := restarts(t, s, rounds, func(n int) bool {
		want := fmt.Sprint(n)
		return read(dir+"/a") == want && read(dir+"/b") == want && strings.HasSuffix(read(dir+"/told"), want+"\n")
	})
	t.Logf("%d changes; told of %d", n, strings.Count(read(dir+"/told"), "\n"))
	if text := read(dir + "/mixed"); text != "" {
		t.Errorf("a check saw keys of two moments: %s", text)
	}
}
