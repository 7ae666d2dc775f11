package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"meta9/session/listen/certtest"
)

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"meta9": main, helperName: main, vmadmName: main})
}

// The scripts run meta9 against a real meta9d. Beside testscript's own commands
// they have
//
//	daemon start ARG...             start meta9d here and wait until it is ready
//	daemon stop|kill|pause|resume   SIGTERM, SIGKILL (both are waited for), SIGSTOP, SIGCONT
//	exits N PROGRAM ARG...          run it, with the exit code N
//
// and the conditions [mount], [fuse] and [port]: who runs them may mount, and by FUSE,
// and this machine has virtio-serial ports.
func TestScripts(t *testing.T) {
	meta9d := buildDaemon(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("USER", "tester")
			env.Setenv("VM", "550e8400-e29b-41d4-a716-446655440000")
			env.Setenv("OTHER", "550e8400-e29b-41d4-a716-446655440001")
			env.Setenv("PORT", strconv.Itoa(freePort(t)))
			env.Values["daemon"] = &daemon{program: meta9d}
			makeCerts(t, env.WorkDir)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "mount", "fuse":
				return mountable(t, cond == "fuse"), nil
			case "port":
				found, err := filepath.Glob("/sys/class/virtio-ports/*")
				return found != nil, err
			}
			return false, fmt.Errorf("[%s]?", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(ts.Value("daemon").(*daemon).do(ts, args))
			},
			"exits": exits,
		},
	})
}

// buildDaemon gives the program meta9d: the one that META9_TEST_DAEMON names (make quick),
// or one that is built once for all tests. Go's cache of test results sees the first, and
// whether it has changed since.
func buildDaemon(t *testing.T) string {
	t.Helper()
	if program := os.Getenv("META9_TEST_DAEMON"); program != "" {
		if _, err := os.Stat(program); err != nil {
			t.Fatal(err)
		}
		return program
	}
	program, err := builtDaemon()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// built is the folder of the program that builtDaemon has built; "": none yet.
var built string

var builtDaemon = sync.OnceValues(func() (program string, err error) {
	if built, err = os.MkdirTemp("", "meta9-built-"); err != nil {
		return "", err
	}
	program = filepath.Join(built, "meta9d")
	out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "meta9/cmd/meta9d").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building meta9d: %w\n%s", err, out)
	}
	return program, nil
})

// tests removes the built program when all tests have ended.
type tests struct{ *testing.M }

func (m tests) Run() int {
	defer func() { os.RemoveAll(built) }()
	return m.M.Run()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// daemon is a running meta9d.
type daemon struct {
	program string
	cmd     *exec.Cmd // nil: it does not run
}

func (d *daemon) do(ts *testscript.TestScript, args []string) error {
	switch args[0] {
	case "start":
		ts.Defer(func() { d.end(syscall.SIGKILL) })
		return d.start(ts.MkAbs("."), args[1:]...)
	case "stop":
		return d.end(syscall.SIGTERM)
	case "kill":
		return d.end(syscall.SIGKILL)
	case "pause":
		return d.pause()
	case "resume":
		return d.cmd.Process.Signal(syscall.SIGCONT)
	}
	return fmt.Errorf("daemon %s?", args[0])
}

// pause stops the daemon, and waits until each of its threads stands still.
func (d *daemon) pause() error {
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.cmd.Process.Pid))
		if err != nil || len(stats) == 0 {
			return fmt.Errorf("no threads of the daemon: %v", err)
		}
		if !slices.ContainsFunc(stats, runs) {
			return nil
		}
	}
	return errors.New("the daemon does not stand still")
}

// runs tells whether the thread of that /proc/PID/task/TID/stat is not stopped
// (proc_pid_stat(5)).
func runs(stat string) bool {
	b, err := os.ReadFile(stat)
	_, state, _ := bytes.Cut(b, []byte(") "))
	return err == nil && !bytes.HasPrefix(state, []byte("T"))
}

// start starts meta9d in dir and waits until it says that it is ready.
func (d *daemon) start(dir string, args ...string) error {
	d.cmd = exec.Command(d.program, args...)
	d.cmd.Dir = dir
	log, err := os.OpenFile(filepath.Join(dir, "daemon.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd.Stderr = log
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		return err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return fmt.Errorf("meta9d is not ready: %q, %v", line, err)
	}
	return nil
}

// end sends a signal and waits for the end.
func (d *daemon) end(sig syscall.Signal) error {
	if d.cmd == nil || d.cmd.Process == nil {
		return nil
	}
	d.cmd.Process.Signal(sig)
	err := d.cmd.Wait()
	d.cmd = nil
	if sig == syscall.SIGKILL {
		return nil
	}
	return err
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// makeCerts makes an authority, and certificates of a server, of the admin and of
// a stranger, in dir: NAME.pem, with the key in it.
func makeCerts(t *testing.T, dir string) {
	t.Helper()
	var ca *tls.Certificate // of itself first
	for _, name := range []string{"ca", "127.0.0.1", "operator", "stranger"} {
		file := filepath.Join(dir, name+".pem")
		cert := certtest.Make(t, ca, x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: certtest.Local})
		if certtest.Write(t, cert, file, file); ca == nil {
			ca = cert
		}
	}
}
