package restart

import (
	"bufio"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inject has strace do something to the running meta9d at its next system call that what
// selects; how is strace's: "signal=KILL" kills it where the call is to begin, "error=ENOSPC"
// has the call fail. It returns when it is so, and gives what ends it.
func (w *world) inject(calls, how string, paths ...string) (end func()) {
	w.t.Helper()
	args := []string{"-f", "-p", itoa(w.PID()), "-o", "/dev/null", "-e", "trace=" + calls, "-e", "inject=" + calls + ":" + how}
	for _, p := range paths {
		args = append(args, "-P", p)
	}
	cmd := exec.Command("strace", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	attached := make(chan bool, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for sc := bufio.NewScanner(said); sc.Scan(); {
			if strings.Contains(sc.Text(), " attached") {
				attached <- true
				break
			}
		}
		// Who stops reading would stop strace.
		for b := make([]byte, 4096); ; {
			if _, err := said.Read(b); err != nil {
				break
			}
		}
		_ = cmd.Wait() // it ends with who it watches
		select {
		case attached <- false:
		default:
		}
	}()
	select {
	case ok := <-attached:
		if !ok {
			w.t.Fatal("strace has ended")
		}
	case <-time.After(patient):
		w.t.Fatal("strace does not attach")
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-over
	}
}

// dies waits for the end of meta9d.
func (w *world) dies(t *testing.T) {
	t.Helper()
	select {
	case <-w.Exited():
	case <-time.After(patient):
		t.Fatal("meta9d lives")
	}
}
