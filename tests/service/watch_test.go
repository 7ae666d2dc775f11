package service

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// TestWatchRestarts: whatever becomes of meta9d, `meta9 watch --exec` misses no change, also
// where commands fail: those are run again, and standard error says so. Where events are lost
// with the session there is a line for it. (tests/mount has the same at a mount.)
func TestWatchRestarts(t *testing.T) {
	const rounds = 8
	s := testenv.Start(t, daemon.Options{})
	s.NewVM(uuid, `{"uuid":"`+uuid+`","customer_metadata":{"a":"0","b":"0"}}`)
	dir := folder(t)
	write(t, dir+"/run.sh", `echo >>runs
test $(($(wc -l <runs) % 5)) != 0 || exit 7
cat >in
$META9 cat keys/a keys/b >new && cat in >>lines && mv new both
`)
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	meta9 := testenv.Plain(t, "meta9")
	cmd := exec.Command(meta9, "--addr", "unix:"+s.VM(uuid), "watch", "--initial", "--debounce", "10ms", "--exec", "sh run.sh", "keys")
	cmd.Dir, cmd.Stderr = dir, log
	cmd.Env = append(os.Environ(), "META9="+meta9)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was interrupted
		if t.Failed() {
			t.Logf("meta9 watch says:\n%s", read(dir+"/log"))
		}
	})
	for end := time.Now().Add(time.Minute); read(dir+"/both") != "00"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the command was not run at the beginning")
		}
	}
	n := restarts(t, s, rounds, func(n int) bool { return read(dir+"/both") == fmt.Sprintf("%d%[1]d", n) })
	lines := read(dir + "/lines")
	told, lost := strings.Count(lines, `"key":"a"`), strings.Count(lines, `"type":"lost"`)
	if told > n || told < n && lost == 0 {
		t.Errorf("of %d changes %d were told, and %d times that some were lost", n, told, lost)
	}
	if most := rounds / 4; lost > 2*most { // by kills and with sessions
		t.Errorf("%d times events were lost", lost)
	}
	for _, want := range []string{"sh run.sh: exit status 7; it is tried again", "connection lost, trying again", "connected again"} {
		if !strings.Contains(read(dir+"/log"), want) {
			t.Errorf("standard error does not say %q", want)
		}
	}
	t.Logf("of %d changes %d were told in %d runs; %d times events were lost", n, told, strings.Count(read(dir+"/runs"), "\n"), lost)
}
