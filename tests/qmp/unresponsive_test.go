package qmp

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/tests/httpunix"
	"meta9/tests/testenv"
)

// metrics are the daemon's, from the admin's socket.
func (h *host) metrics() string {
	h.t.Helper()
	client := httpunix.Client(filepath.Join(h.Run(), "vminfo.sock"))
	defer client.CloseIdleConnections()
	_, text, err := httpunix.Get(client, "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	return text
}

// TestStandsStill: a QEMU that is stopped says nothing, and its VM says within 15 s that
// it does not answer; so it does after a restart of meta9d, which gets no greeting. When
// the QEMU goes on, the VM is as it is. A command that waits for it ends in its time.
func TestStandsStill(t *testing.T) {
	h, uuid := newHost(t, ""), testenv.UUID(1)
	q := startQEMU(t, h.socket("a"), uuid, "a")
	h.state(uuid, "prelaunch")
	signal := func(s syscall.Signal, state string, unresponsive int) {
		t.Helper()
		begun := time.Now()
		if err := q.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		h.state(uuid, state)
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("it is %s after %v", state, took)
		}
		if gauge := fmt.Sprintf("\nmeta9_qemus_unresponsive %d\n", unresponsive); !strings.Contains(h.metrics(), gauge) {
			t.Errorf("no %q in the metrics", gauge)
		}
		h.must(state, "vm", "list", "-H", "-o", "state")
	}

	signal(syscall.SIGSTOP, "unresponsive", 1)
	status, err := h.conn.Sread(0, "vms", uuid, "qmp", "status")
	if err != nil || !strings.HasPrefix(string(status), `{"status":"unresponsive","last":{`) {
		t.Errorf("qmp/status: %v: %s", err, status)
	}
	signal(syscall.SIGCONT, "prelaunch", 0)

	h.Kill()
	if err := q.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.Restart()
	h.conn = h.Conn("")
	signal(syscall.SIGSTOP, "unresponsive", 1) // as it is
	signal(syscall.SIGCONT, "prelaunch", 0)

	if err := q.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	out, err := h.meta9("--timeout", "1s", "vm", "stop", "-F", uuid)
	if took := time.Since(begun); err == nil || took > 2500*time.Millisecond || !strings.Contains(out, "may or may not have happened") {
		t.Errorf("vm stop -F of a QEMU that does not answer, after %v: %v: %s", took, err, out)
	}
	signal(syscall.SIGCONT, "stopped", 0) // it has read what it was asked
	<-q.exited
}
