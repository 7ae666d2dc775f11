// Package proc runs servers as processes of their own and looks at what they
// cost: the tests and the bench start every server through it.
package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Proc is a running server. Its methods may be called from any goroutine.
type Proc struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error    // of Wait; set before exited is closed
	log    *os.File // standard error: a file that has no name any more
}

// Ready is the line on standard output by which a server says that it serves.
const Ready = "ready"

// Start runs cmd and waits until it prints Ready, at most for timeout. The
// process dies with its parent. Standard error is kept, see Log.
func Start(cmd *exec.Cmd, timeout time.Duration) (*Proc, error) {
	log, err := os.CreateTemp("", "m9-log-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(log.Name()); err != nil {
		return nil, err
	}
	p := &Proc{cmd: cmd, exited: make(chan struct{}), log: log}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		sc := bufio.NewScanner(out)
		for said := false; sc.Scan(); {
			if !said && sc.Text() == Ready {
				close(ready)
				said = true
			}
		}
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, p.await(ready, timeout)
}

func (p *Proc) await(ready <-chan struct{}, timeout time.Duration) error {
	select {
	case <-ready:
		return nil
	case <-p.exited:
		return fmt.Errorf("%s ended before it was ready: %v\n%s", p.cmd.Path, p.err, p.Log())
	case <-time.After(timeout):
		p.Kill()
		return fmt.Errorf("%s not ready within %v\n%s", p.cmd.Path, timeout, p.Log())
	}
}

// PID is the process's id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// logMax is how much of a log is shown.
const logMax = 256 << 10

// Log is the end of what the process wrote to standard error, in whole lines. All is there
// that it had written before whatever else is seen of it: a pipe would be behind.
func (p *Proc) Log() string {
	info, err := p.log.Stat()
	if err != nil {
		return err.Error()
	}
	from := max(0, info.Size()-logMax)
	b := make([]byte, info.Size()-from)
	n, err := p.log.ReadAt(b, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return err.Error()
	}
	if b = b[:n]; from > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return string(b)
}

// Exited is closed when the process has ended.
func (p *Proc) Exited() <-chan struct{} { return p.exited }

// CoreDumped tells of a process that has exited whether the kernel has made a core of it, in a
// file or for the program that core_pattern names (core(5)).
func (p *Proc) CoreDumped() bool { return p.cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump() }

// Signal sends a signal to the process. After SIGSTOP it stands still.
func (p *Proc) Signal(s os.Signal) error {
	if s == syscall.SIGSTOP {
		return Suspend(p.cmd.Process)
	}
	return p.cmd.Process.Signal(s)
}

// Suspend sends SIGSTOP to a child, and waits until it stands still. On a busy machine its threads
// run on for a while after the signal was sent, and may answer what comes then.
func Suspend(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		err := unix.Waitid(unix.P_PID, p.Pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// Kill ends the process by SIGKILL and waits until it is gone.
func (p *Proc) Kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// Stop ends the process by SIGTERM and waits; one that has not gone after
// timeout is killed, which is an error, as is any exit code but 0.
func (p *Proc) Stop(timeout time.Duration) error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return p.err
	case <-time.After(timeout):
		p.Kill()
		return errors.New("did not end at SIGTERM; killed")
	}
}

// RSS is the process's resident memory in bytes.
func (p *Proc) RSS() (int64, error) {
	kib, err := p.status("VmRSS:")
	return kib << 10, err
}

// Anon is the part of RSS that is the process's own memory, in bytes: files that it
// has mapped are not in it.
func (p *Proc) Anon() (int64, error) {
	kib, err := p.status("RssAnon:")
	return kib << 10, err
}

// CPUTime is what the process has used of all CPUs.
func (p *Proc) CPUTime() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	// proc_pid_stat(5): after the name in brackets the state is field 3, user and
	// system time are 14 and 15, in clock ticks of 10 ms.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("the process's stat is cut short")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2)
}

// Threads is how many threads the process has.
func (p *Proc) Threads() (int64, error) { return p.status("Threads:") }

// status is a number of the process's status file.
func (p *Proc) status(field string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field); ok {
			return strconv.ParseInt(strings.Fields(v)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s in the process's status", field)
}

// FDs is how many file descriptors the process has open.
func (p *Proc) FDs() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("this needs root, since meta9d makes no core file: %w", err)
	}
	return len(entries), err
}

// Open is what the process has open, a line each: for the log of a test that finds too
// much of it.
func (p *Proc) Open() string {
	dir := fmt.Sprintf("/proc/%d/fd", p.PID())
	entries, _ := os.ReadDir(dir)
	var b strings.Builder
	for _, e := range entries {
		to, _ := os.Readlink(filepath.Join(dir, e.Name()))
		fmt.Fprintln(&b, e.Name(), to)
	}
	sockets, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", p.PID()))
	b.Write(sockets)
	return b.String()
}
