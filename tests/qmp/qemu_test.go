// Package qmp tries meta9d's QMP, both ways, on Debian's QEMU and on clients that
// others wrote. The QEMUs have no machine, or one that does not boot.
package qmp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// qemu is a running QEMU.
type qemu struct {
	t      testing.TB
	cmd    *exec.Cmd
	path   string // of its QMP socket
	uuid   string
	exited chan struct{}
	stderr bytes.Buffer // whole when exited is closed
}

// startQEMU runs a QEMU without a machine, stopped before its start; args are
// further arguments. It dies with the test.
func startQEMU(t testing.TB, path, uuid, name string, args ...string) *qemu {
	t.Helper()
	testenv.NeedDebian(t, "qemu-system-x86_64", "qemu-system-x86")
	all := []string{"-machine", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "unix:" + path + ",server=on,wait=off"}
	if uuid != "" {
		all = append(all, "-uuid", uuid)
	}
	if name != "" {
		all = append(all, "-name", name)
	}
	return runQEMU(t, path, uuid, append(all, args...))
}

func runQEMU(t testing.TB, path, uuid string, args []string) *qemu {
	t.Helper()
	q := &qemu{t: t, path: path, uuid: uuid, exited: make(chan struct{}), cmd: exec.Command("qemu-system-x86_64", args...)}
	q.cmd.Stderr = &q.stderr
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := q.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = q.cmd.Wait()
		close(q.exited)
	}()
	t.Cleanup(q.kill)
	testenv.Eventually(t, "QEMU has its QMP socket", func() bool {
		select {
		case <-q.exited:
			t.Fatalf("QEMU has ended: %s", q.stderr.String())
		default:
		}
		_, err := os.Stat(path)
		return err == nil
	})
	return q
}

// kill is kill -9.
func (q *qemu) kill() {
	_ = q.cmd.Process.Kill()
	<-q.exited
}

// host is a meta9d that looks for QEMUs in a folder.
type host struct {
	*testenv.Server
	t    testing.TB
	conn *raw.Conn // the admin's; fid 0 is the root
	dir  string
}

// newHost starts meta9d; config is more of its settings.
func newHost(t testing.TB, config string, args ...string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9q-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := testenv.Start(t, daemon.Options{Config: config, Args: append([]string{"--qmp-dir", filepath.Join(dir, "*.qmp")}, args...)})
	return &host{s, t, s.Conn(""), dir}
}

func (h *host) socket(name string) string { return filepath.Join(h.dir, name+".qmp") }

// vm is a VM's vm.json; nil: there is no such VM.
func (h *host) vm(uuid string) (o map[string]any) {
	b, err := h.conn.Sread(0, "vms", uuid, "vm.json")
	if err != nil {
		return nil
	}
	if err := json.Unmarshal(b, &o); err != nil {
		h.t.Fatal(err)
	}
	return o
}

// state waits until a VM is in a state.
func (h *host) state(uuid, want string) {
	h.t.Helper()
	testenv.Eventually(h.t, "VM "+uuid+" is "+want, func() bool { return h.vm(uuid)["state"] == want })
}

// ctl writes a line to a VM's ctl.
func (h *host) ctl(uuid, line string) error {
	return h.conn.Swrite(0, []byte(line), "vms", uuid, "ctl")
}

// mustCtl writes a line that must succeed.
func (h *host) mustCtl(uuid, line string) {
	h.t.Helper()
	if err := h.ctl(uuid, line); err != nil {
		h.t.Errorf("%s: %v", line, err)
	}
}

// stream is an open events file.
type stream struct {
	t    testing.TB
	conn *raw.Conn
	off  uint64
	rest []byte
}

// open opens an events file on a connection of its own.
func (h *host) open(names ...string) *stream {
	h.t.Helper()
	c := h.Conn("")
	if err := c.Walk(0, 1, names...); err != nil {
		h.t.Fatal(err)
	}
	if err := c.Open(1, 0); err != nil {
		h.t.Fatal(err)
	}
	return &stream{t: h.t, conn: c}
}

// next is the next line, as an object.
func (s *stream) next() (o map[string]any) {
	s.t.Helper()
	_ = s.conn.Net.SetReadDeadline(time.Now().Add(20 * time.Second))
	for !bytes.Contains(s.rest, []byte("\n")) {
		b, err := s.conn.Read(1, s.off, 8192)
		if err != nil {
			s.t.Fatal(err)
		}
		s.off += uint64(len(b))
		s.rest = append(s.rest, b...)
	}
	line, rest, _ := bytes.Cut(s.rest, []byte("\n"))
	s.rest = rest
	if err := json.Unmarshal(line, &o); err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	return o
}

// until skips to an object whose member is so.
func (s *stream) until(member, value string) map[string]any {
	s.t.Helper()
	for {
		if o := s.next(); o[member] == value {
			return o
		}
	}
}

func text(o map[string]any, name string) string {
	s, _ := o[name].(string)
	return s
}

func vmName(n int) string { return fmt.Sprintf("vm%02d", n) }
