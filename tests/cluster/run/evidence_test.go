package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/mdbridge/qmp/qmptest"
)

// settingsOfQEMU are those of meta9d for the QEMUs of its host, which come one after the other.
func settingsOfQEMU(dir, host string) string {
	return fmt.Sprintf("[qmp]\nsockets = [\"unix:%s\"]\n", monitorPath(dir, host))
}

// monitorPath is where a host's QEMU has its monitor for meta9d.
func monitorPath(dir, host string) string { return filepath.Join(dir, host+".qmp") }

const (
	longTTL  = 30 * time.Second // no host seems dead on a busy machine
	shortTTL = 2 * time.Second
	// slowTTL is long enough to see that a host waits for another that stands still.
	slowTTL = 8 * time.Second
)

// watched is two hosts whose QEMUs are played, and a VM that the first has by its QEMU.
type watched struct {
	t    *testing.T
	dir  string
	a, b *proc
	q    *qmptest.QEMU // of the VM, at a
}

func newWatched(t *testing.T, ttl time.Duration) *watched {
	t.Helper()
	w := &watched{t: t, dir: folder(t)}
	settings := started(t, w.dir).settingsOf(t, w.dir) + fmt.Sprintf("ttl = %q\n", ttl)
	w.a = begin(t, w.dir, "a", settings+settingsOfQEMU(w.dir, "a"))
	w.b = begin(t, w.dir, "b", settings+settingsOfQEMU(w.dir, "b"))
	for _, h := range []*proc{w.a, w.b} {
		h.until("fleet_etcd ok", "cat", "/ctl")
	}
	w.q = qmptest.Start(t, monitorPath(w.dir, "a"), vm, "guest")
	w.owned(w.a, "a")
	w.a.until("running", "cat", "/vms/"+vm+"/qmp/status")
	return w
}

// owned waits until the VM is that host's.
func (w *watched) owned(at *proc, host string) {
	w.t.Helper()
	at.until(vm+" "+host+" ", "fleet", "where", vm)
}

// expected has a QEMU at b that waits for the guest, and waits for its sockets.
func (w *watched) expected() *qmptest.QEMU {
	w.t.Helper()
	q := qmptest.Start(w.t, monitorPath(w.dir, "b"), vm, "guest")
	q.Set("inmigrate", "STOP")
	w.there(filepath.Join(w.b.run, vm, "link.sock"))
	return q
}

// there waits for a file.
func (w *watched) there(path string) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s does not come\n%s", path, w.b.log.String())
		}
	}
}

// TestEvidence: what QEMUs say moves a VM, and a migration that is cancelled late moves it back.
func TestEvidence(t *testing.T) {
	w := newWatched(t, longTTL)
	q := w.expected()
	if out, err := w.b.meta9("fleet", "claim", vm); err == nil || !strings.Contains(out, `runs at the host "a"`) {
		t.Errorf("a VM that runs is claimed: %v, %s", err, out)
	}
	w.owned(w.b, "a")
	w.q.Set("postmigrate", "STOP")
	q.Set("running", "RESUME")
	w.owned(w.b, "b")
	w.b.until("running", "cat", "/vms/"+vm+"/qmp/status")
	if out, err := w.b.meta9("ls", "/names/guest/keys"); err != nil {
		t.Errorf("its alias has not come along: %v, %s", err, out)
	}
	// The destination dies when it has begun, and the source goes on.
	q.Kill()
	w.b.until(`"running":false`, "cat", "/vms/"+vm+"/qmp/status")
	w.q.Set("running", "RESUME")
	w.owned(w.a, "a")
}

// TestHook: libvirt's hook for a domain whose VM another host has makes its sockets, and for one
// that no host has a VM.
func TestHook(t *testing.T) {
	w := newWatched(t, longTTL)
	hook := func(uuid string) {
		t.Helper()
		c := exec.Command(filepath.Join(bin, "meta9"), "--addr", "unix:"+filepath.Join(w.b.run, "admin.sock"), "host", "hook", "web", "prepare", "begin", "-")
		c.Stdin = strings.NewReader("<domain><name>web</name><uuid>" + uuid + "</uuid></domain>")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	hook(vm)
	if _, err := os.Stat(filepath.Join(w.b.run, vm, "link.sock")); err != nil {
		t.Error(err)
	}
	w.owned(w.b, "a")
	const other = "550e8400-e29b-41d4-a716-446655440001"
	hook(other)
	if out := w.b.must("fleet", "where", other); !strings.Contains(out, other+" b ") {
		t.Errorf("a domain that no host has is %s", out)
	}
}

// TestSourceGone: the source's meta9d dies while the guest migrates: the VM is at the
// destination when the lease of the source has ended.
func TestSourceGone(t *testing.T) {
	w := newWatched(t, shortTTL)
	w.a.must("put", "/vms/"+vm+"/keys/motd", "kept")
	q := w.expected()
	_ = w.a.cmd.Process.Kill()
	<-w.a.gone
	from := time.Now()
	w.q.Set("postmigrate", "STOP")
	q.Set("running", "RESUME")
	w.owned(w.b, "b")
	w.b.until("kept", "cat", "/vms/"+vm+"/keys/motd")
	t.Logf("usable %v after the end of a source whose lease was of %v", time.Since(from), shortTTL)
}

// TestDestinationGone: the destination asks for the VM and dies before it is given, or when it is: its
// guest, which goes on at the source, finds it there when the lease of the destination has ended.
func TestDestinationGone(t *testing.T) {
	w := newWatched(t, slowTTL)
	w.a.must("put", "/vms/"+vm+"/keys/motd", "kept")
	q := w.expected()
	w.q.Set("postmigrate", "STOP")
	w.a.until("postmigrate", "cat", "/vms/"+vm+"/qmp/status")
	if err := w.a.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // it gives nothing
		t.Fatal(err)
	}
	q.Set("running", "RESUME")
	w.b.until("fleet_claiming 1", "cat", "/ctl")
	_ = w.b.cmd.Process.Kill()
	<-w.b.gone
	if err := w.a.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// Which of the two comes first is a matter of the leases' times.
	given := false
	for deadline := time.Now().Add(patience); !given; time.Sleep(20 * time.Millisecond) {
		if out, err := w.a.meta9("fleet", "where", vm); err == nil {
			given = strings.Contains(out, vm+" b ")
		}
		if out, err := w.a.meta9("fleet", "status", "-o", "json"); err == nil && !strings.Contains(out, `"host":"b"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("neither has the VM gone to a dead host nor is that host gone\n%s", w.a.log.String())
		}
	}
	from := time.Now()
	w.q.Set("running", "RESUME")
	for deadline := from.Add(patience); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.Command(filepath.Join(bin, "meta9"), "--addr", "unix:"+filepath.Join(w.a.run, vm, "9p.sock"), "--timeout", "5s", "cat", "keys/motd").CombinedOutput()
		if err == nil && string(out) == "kept" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the guest finds nothing: %v, %s\n%s", err, out, w.a.log.String())
		}
	}
	w.owned(w.a, "a")
	t.Logf("given to the dead host: %v; usable after %v; its lease was of %v", given, time.Since(from), slowTTL)
}
