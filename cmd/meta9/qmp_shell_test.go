//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meta9/mdbridge/qmp/qmptest"
)

// openPTY makes a terminal: what is written to ctrl is typed at tty.
func openPTY(t *testing.T) (ctrl, tty *os.File) {
	t.Helper()
	ctrl, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ctrl.Close() })
	n, err := unix.IoctlGetInt(int(ctrl.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ctrl.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return ctrl, tty
}

// screen keeps what a terminal shows.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// watch keeps what the terminal of ctrl shows.
func watch(ctrl *os.File) *screen {
	var s screen
	go func() {
		b := make([]byte, 4096)
		for n, err := ctrl.Read(b); err == nil; n, err = ctrl.Read(b) {
			s.mu.Lock()
			s.buf.Write(b[:n])
			s.mu.Unlock()
		}
	}()
	return &s
}

// shows waits until the text has appeared n times.
func (s *screen) shows(t *testing.T, text string, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		all := s.buf.String()
		s.mu.Unlock()
		if strings.Count(all, text) >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q is not shown %d times in %q", text, n, all)
		}
	}
}

// TestQMPShell types at the shell of a QEMU: Tab completes, the arrow brings back
// the last line, events come in between, and Ctrl-D ends it.
func TestQMPShell(t *testing.T) {
	dir, err := os.MkdirTemp("", "m9q-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	q := qmptest.Start(t, filepath.Join(dir, "sock"), "", "web-01")
	ctrl, tty := openPTY(t)
	s := watch(ctrl)
	code := make(chan int, 1)
	go func() { code <- run(t.Context(), []string{"qmp", "--socket", q.Path}, tty, tty, tty) }()
	typed := func(text string) {
		t.Helper()
		if _, err := ctrl.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	s.shows(t, "(QMP) ", 1)
	typed("query-n\t\r")
	s.shows(t, `"name": "web-01"`, 1)
	typed("\x1b[A\r")
	s.shows(t, `"name": "web-01"`, 2)
	q.Set("paused", "STOP")
	s.shows(t, `"event": "STOP"`, 1)
	typed("nonsense\r")
	s.shows(t, "has not been found", 1)
	typed("x y\r")
	s.shows(t, `not a command: "y" is no NAME=VALUE`, 1)
	typed("\x04")
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
}

// TestQMPShellEnds: with the QEMU.
func TestQMPShellEnds(t *testing.T) {
	dir, err := os.MkdirTemp("", "m9q-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	q := qmptest.Start(t, filepath.Join(dir, "sock"), "", "")
	ctrl, tty := openPTY(t)
	s := watch(ctrl)
	code := make(chan int, 1)
	go func() { code <- run(t.Context(), []string{"qmp", "--socket", q.Path}, tty, tty, tty) }()
	s.shows(t, "(QMP) ", 1)
	q.Kill()
	if got := <-code; got == exitOK {
		t.Errorf("exit code %d", got)
	}
}
