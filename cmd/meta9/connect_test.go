package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestForeignSocket has another user serve the socket in the current folder: it must be
// told nothing, neither by 9P nor by HTTP.
func TestForeignSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to listen as another user")
	}
	const other = 65534
	heard := make(chan string, 16)
	folderServed(t, other, heard)
	for _, args := range [][]string{{"ls"}, {"vm", "list"}, {"vm", "events"}, {"watch"}, {"vminfo", "ping"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, nil, &out, &errs); code != exitNoServer {
			t.Errorf("meta9 %s: exit %d, want %d", strings.Join(args, " "), code, exitNoServer)
		}
		if want := "user 65534 serves this socket"; !strings.Contains(errs.String(), want) {
			t.Errorf("meta9 %s: %q, want a line with %q", strings.Join(args, " "), errs.String(), want)
		}
	}
	select {
	case data := <-heard:
		t.Errorf("the other user's server was told %q", data)
	default:
	}
	// Who names the address trusts it.
	var out, errs bytes.Buffer
	run(t.Context(), []string{"--addr", localSocket, "--timeout", "100ms", "ls"}, nil, &out, &errs)
	if data := <-heard; !strings.Contains(data, "9P2000") {
		t.Errorf("with --addr the server was told %q, want a Tversion", data)
	}
}

// TestOwnSocket has the caller serve the socket in the current folder.
func TestOwnSocket(t *testing.T) {
	heard := make(chan string, 16)
	folderServed(t, os.Geteuid(), heard)
	var out, errs bytes.Buffer
	run(t.Context(), []string{"--timeout", "100ms", "ls"}, nil, &out, &errs)
	if data := <-heard; !strings.Contains(data, "9P2000") {
		t.Errorf("the caller's server was told %q, want a Tversion; stderr %q", data, errs.String())
	}
}

// folderServed makes a current folder whose meta9-run has the sockets of a meta9d that
// runs as user uid. What a connection sends first goes to heard; nothing is answered.
func folderServed(t *testing.T, uid int, heard chan<- string) {
	t.Helper()
	t.Setenv("META9_ADDR", "")
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("meta9-run", 0o777); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, "meta9-run"} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"admin.sock", "vminfo.sock"} {
		l := listenAs(t, uid, filepath.Join("meta9-run", name))
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					b := make([]byte, 256)
					if n, _ := c.Read(b); n > 0 {
						heard <- string(b[:n])
						_, _ = c.Read(b) // until the client gives up
					}
				}()
			}
		}()
	}
}

// listenAs listens on a unix socket as user uid, as SO_PEERCRED will tell: the kernel
// notes the credentials of the thread that calls listen(2).
func listenAs(t *testing.T, uid int, path string) net.Listener {
	t.Helper()
	type made struct {
		net.Listener
		error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its user id
		if uid != os.Geteuid() {
			if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
				done <- made{nil, e}
				return
			}
		}
		l, err := net.Listen("unix", path)
		done <- made{l, err}
	}()
	m := <-done
	if m.error != nil {
		t.Fatal(m.error)
	}
	return m.Listener
}
