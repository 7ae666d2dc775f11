package hosts

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"meta9/mdbridge/qmp/qmptest"
)

func TestOthersMonitor(t *testing.T) {
	for path, want := range map[string]error{
		"/var/lib/libvirt/qemu/domain-3-web0/monitor.sock":       errLibvirt,
		"/root/.config/libvirt/qemu/lib/domain-1-x/monitor.sock": errLibvirt,
		"/var/lib/libvirt/qemu/web0.monitor":                     errLibvirt,
		"/var/run/qemu-server/100.qmp":                           errProxmox,
		"/run/qemu-server/100.qmp":                               errProxmox,
		"/var/lib/libvirt/qemu/web0.meta9-qmp":                   nil,
		"/run/vm/monitor.sock":                                   nil,
		"/run/meta9-qmp/100.qmp":                                 nil,
		"/run/qemu-server/100.qga":                               nil,
	} {
		if got := othersMonitor(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// TestMonitorsAreRefused: libvirt's monitor is not connected to where its path shows it,
// also by a link, and let go where QEMU says that it is; and a socket beside it is used, also
// by a link.
func TestMonitorsAreRefused(t *testing.T) {
	w := newWorld(t, Config{})
	dir := w.path("libvirt/qemu/domain-1-web")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	q := qmptest.Start(t, filepath.Join(dir, "monitor.sock"), uuid(1), "web")
	if err := os.Symlink(q.Path, w.path("link.qmp")); err != nil {
		t.Fatal(err)
	}
	qmptest.Start(t, w.path("moved.qmp"), uuid(2), "moved").Label("charmonitor")
	qmptest.Start(t, w.path("own.qmp"), uuid(3), "own").Label("compat_monitor0")
	elsewhere := qmptest.Start(t, filepath.Join(t.TempDir(), "q"), uuid(4), "linked")
	elsewhere.Label("compat_monitor0")
	if err := os.Symlink(elsewhere.Path, w.path("linked.qmp")); err != nil {
		t.Fatal(err)
	}
	w.hosts.Start()
	w.state(uuid(3), "running")
	w.state(uuid(4), "running")
	w.eventually("both are refused", func() bool {
		w.hosts.mu.Lock()
		defer w.hosts.mu.Unlock()
		return w.hosts.refused == 2
	})
	for _, id := range []string{uuid(1), uuid(2)} {
		if w.store.Cell(id) != nil {
			t.Errorf("%s became a VM", id)
		}
	}
	if q.Served() {
		t.Error("connected to")
	}
	if n := w.log.Count("libvirtd would lose at its next restart"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestLeavesQueue: who does not greet within 5 s is left, and called again.
func TestLeavesQueue(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits out two queues, 10 s: not with -short")
	}
	t.Parallel()
	w := newWorld(t, Config{})
	l, err := net.Listen("unix", w.path("a.qmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.hosts.Start()
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_ = c.SetReadDeadline(begun.Add(2 * quietTime))
		_, err = c.Read(make([]byte, 1))
		c.Close()
		if took := time.Since(begun); os.IsTimeout(err) || took < quietTime/2 || took > 2*quietTime {
			t.Fatalf("%v after %v", err, took)
		}
	}
	if n := w.log.Count("no greeting yet"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if st := w.hosts.Stats(); st.Unresponsive != 1 {
		t.Errorf("%+v", st)
	}
}
