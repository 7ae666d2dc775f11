// Package testenv is what the black-box tests stand on: it builds the product's
// binaries once a test process, runs meta9d in temporary folders, and installs
// the tools of the system that a test needs.
package testenv

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/raw"
)

// RaceEnv is the environment variable that makes Binary build with the race
// detector; make test sets it.
const RaceEnv = "META9_TEST_RACE"

// Race tells whether programs are to be built with the race detector.
func Race() bool { return os.Getenv(RaceEnv) != "" }

// NoRace fails the test if the log of a program that has ended, also by SIGKILL, tells of a race.
func NoRace(t testing.TB, log string) {
	t.Helper()
	if strings.Contains(log, "WARNING: DATA RACE") {
		t.Errorf("the race detector has found:\n%s", log)
	}
}

// A program with the race detector waits for a second when it ends, unless it is told not
// to: a test that runs a command and measures how long that takes would measure this.
func init() {
	if Race() && os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=10")
	}
}

var builds struct {
	sync.Mutex
	dir  string
	bins map[string]string
}

// Binary is the path of a command of the product, built from the tree at its
// first use.
func Binary(t testing.TB, command string) string {
	t.Helper()
	if Race() {
		return build(t, command, "race", "-race")
	}
	return Plain(t, command)
}

// Plain is Binary for a test of memory: the race detector has its own books beside.
func Plain(t testing.TB, command string) string {
	t.Helper()
	return build(t, command, "plain")
}

func build(t testing.TB, command, kind string, flags ...string) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	name := filepath.Join(kind, command)
	if bin, ok := builds.bins[name]; ok {
		return bin
	}
	dir, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := daemon.Build(filepath.Join(dir, kind), command, flags...)
	if err != nil {
		t.Fatal(err)
	}
	builds.bins[name] = bin
	return bin
}

// Folder is one for what a test package builds; Main removes it.
func Folder() (string, error) {
	builds.Lock()
	defer builds.Unlock()
	return folder()
}

// folder is Folder where builds is locked.
func folder() (string, error) {
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "meta9-bin-")
		if err != nil {
			return "", err
		}
		builds.dir, builds.bins = dir, map[string]string{}
	}
	return builds.dir, nil
}

// Main runs a test package and removes what was built for it: TestMain calls it.
func Main(m *testing.M) {
	if signal.Ignored(syscall.SIGHUP) { // by nohup, and so would be what tests start
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	code := m.Run()
	if builds.dir != "" {
		os.RemoveAll(builds.dir)
	}
	os.Exit(code)
}

// Server is a running meta9d that ends with the test, or before.
type Server struct {
	*daemon.Daemon
	t testing.TB
}

// Start runs meta9d. Where o.Dir is "", it gets a temporary folder; a server
// that is to find the data of an earlier one is given its Options again.
func Start(t testing.TB, o daemon.Options) *Server {
	t.Helper()
	if o.Bin == "" {
		o.Bin = Binary(t, "meta9d")
	}
	if o.Dir == "" {
		o.Dir = tempDir(t)
	}
	d, err := daemon.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Daemon: d, t: t}
	t.Cleanup(s.end)
	return s
}

// tempDir is a short path, since a unix socket's has at most 107 bytes.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end stops the server, if the test has not; a bad end, a panic or a race is
// the test's failure. It shows the log of a failed test.
func (s *Server) end() {
	select {
	case <-s.Exited():
	default:
		if err := s.Stop(20 * time.Second); err != nil {
			s.t.Errorf("meta9d at its end: %v", err)
		}
	}
	log := s.Log()
	NoRace(s.t, log)
	if s.t.Failed() {
		s.t.Logf("meta9d's log:\n%s", log)
	}
}

// Restart stops the server by SIGKILL and starts it again on what it left.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	NoRace(s.t, s.Log())
	s.start()
}

// PlannedRestart stops the server by SIGTERM and starts it again. It gives the log of the
// one that was stopped.
func (s *Server) PlannedRestart() (log string) {
	s.t.Helper()
	if err := s.Stop(20 * time.Second); err != nil {
		s.t.Fatalf("meta9d at a planned stop: %v\n%s", err, s.Log())
	}
	log = s.Log()
	s.start()
	return log
}

// LiveUpdate lets the server execute its program anew, in the same process, and waits until
// that serves.
func (s *Server) LiveUpdate() {
	s.t.Helper()
	c, err := s.Dial("")
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	updates := func() (n int) {
		b, err := c.Sread(0, "ctl")
		if err != nil {
			s.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nupgrades ")
		if _, err := fmt.Sscan(rest, &n); err != nil || strings.Contains(rest, "upgrade_error") {
			s.t.Fatalf("ctl says\n%s", b)
		}
		return n
	}
	before := updates()
	if err := s.Ctl("upgrade"); err != nil {
		s.t.Fatal(err)
	}
	Eventually(s.t, "the live update is done", func() bool { return updates() == before+1 })
}

func (s *Server) start() {
	s.t.Helper()
	d, err := daemon.Start(s.Options)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Daemon = d
}

// UUID is the n-th UUID of the tests' VMs.
func UUID(n int) string { return fmt.Sprintf("550e8400-e29b-41d4-a716-%012d", n) }

// NewVM makes a VM of a payload and waits until its socket answers, since that
// is made when the creation was acknowledged already.
func (s *Server) NewVM(uuid, payload string) {
	s.t.Helper()
	if err := s.Create([]byte(payload)); err != nil {
		s.t.Fatal(err)
	}
	Eventually(s.t, "the VM's socket answers", func() bool {
		c, err := net.Dial("unix", s.VM(uuid))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Conn is an attached connection to the admin's socket that ends with the test.
func (s *Server) Conn(aname string) *raw.Conn {
	s.t.Helper()
	c, err := s.Dial(aname)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// Recorded is the path of a recording of a bridge: mdata, qmp, vminfo.
func Recorded(t testing.TB, bridge, name string) string {
	t.Helper()
	return filepath.Join(Root(t), "mdbridge", bridge, "testdata", name)
}

// Root is the folder of the product's module.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Eventually waits until ok is true, at most a minute: the machine may do much beside.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not so after a minute: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
