package main

import (
	"bytes"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"meta9/mdbridge/qmp/qmptest"
)

// TestHungQEMU: when --timeout is over, a command that a QEMU does not answer ends and says
// that the outcome is not known, and shares nothing with what still waits (the race detector
// looks at that).
func TestHungQEMU(t *testing.T) {
	w := &world{t: t, daemon: &daemon{program: buildDaemon(t)}, dir: t.TempDir()}
	q := qmptest.Start(t, filepath.Join(w.dir, "qmp.sock"), testVM, "web0")
	if err := w.daemon.start(w.dir, "--qmp", "unix:"+q.Path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.daemon.end(syscall.SIGKILL) })
	meta9 := func(args ...string) (code int, said string) {
		var err bytes.Buffer
		return run(t.Context(), w.args(args), nil, &bytes.Buffer{}, &err), err.String()
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		code, said := meta9("vm", "lookup", "-1", "state=running")
		if code == exitOK {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the QEMU's VM does not come: %s", said)
		}
	}
	for _, args := range [][]string{{"vm", "reboot", testVM}, {"vm", "info", testVM, "status"}} {
		q.Hang()
		if code, said := meta9(append([]string{"--timeout", "2s"}, args...)...); code != exitUnknown {
			t.Errorf("meta9 %q: exit code %d: %s", args, code, said)
		}
		q.GoOn()
		if code, said := meta9(args...); code != exitOK { // by when what has waited has ended
			t.Errorf("meta9 %q: exit code %d: %s", args, code, said)
		}
	}
}
