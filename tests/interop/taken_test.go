package interop

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// TestSocketsTaken deletes sockets and their folders under meta9d, as something that
// cleans up below /run does. Within 5 s they are there again, each such moment is one
// line in the log for all VMs, and who is connected notices nothing.
func TestSocketsTaken(t *testing.T) {
	srv := testenv.Start(t, daemon.Options{})
	const vms = 3
	for i := range vms {
		srv.NewVM(testenv.UUID(i), `{"uuid":"`+testenv.UUID(i)+`","customer_metadata":{"k":"v"}}`)
	}
	admin := srv.Conn("vms/" + testenv.UUID(0) + "/keys")
	guest := newReplacedReader(t, srv.VM(testenv.UUID(0)), "9P2000.L")
	if err := guest.c.Walk(0, 1, "keys", "k"); err != nil {
		t.Fatal(err)
	}
	all := []string{"admin.sock", "vminfo.sock"}
	for i := range vms {
		for _, name := range []string{"9p.sock", "link.sock", "mdata.sock"} {
			all = append(all, filepath.Join(testenv.UUID(i), name))
		}
	}
	const (
		ofVMs  = "sockets of VMs were taken away; they are made again"
		ofOurs = "the socket was taken away; it is made again"
	)
	for _, tt := range []struct {
		what       string
		take       []string
		vms, shown int // lines in the log
	}{
		{"a VM's socket", []string{filepath.Join(testenv.UUID(1), "9p.sock")}, 1, 0},
		{"a VM's folder", []string{testenv.UUID(0)}, 1, 0},
		{"the admin's socket", []string{"admin.sock"}, 0, 1},
		{"the run folder", []string{""}, 1, 2},
	} {
		t.Run(tt.what, func(t *testing.T) {
			before := srv.Log()
			for _, name := range tt.take {
				if err := os.RemoveAll(filepath.Join(srv.Run(), name)); err != nil {
					t.Fatal(err)
				}
			}
			taken := time.Now()
			for _, name := range all {
				testenv.Eventually(t, name+" answers", func() bool { return answers(filepath.Join(srv.Run(), name)) })
			}
			if took := time.Since(taken); took > 5*time.Second {
				t.Errorf("all sockets are there after %v", took)
			}
			if fi, err := os.Stat(filepath.Join(srv.Run(), testenv.UUID(0))); err != nil || fi.Mode().Perm() != 0o710 {
				t.Errorf("the VM's folder: %v, %v", fi, err)
			}
			if fi, err := os.Stat(srv.VM(testenv.UUID(0))); err != nil || fi.Mode().Perm() != 0o660 {
				t.Errorf("the VM's socket: %v, %v", fi, err)
			}
			if err := admin.Swrite(0, []byte(tt.what), "k"); err != nil {
				t.Errorf("who was connected before: %v", err)
			}
			if v, err := guest.read(1); err != nil || string(v) != tt.what {
				t.Errorf("the guest that was connected before: %q, %v", v, err)
			}
			said := strings.TrimPrefix(srv.Log(), before)
			if a, b := strings.Count(said, ofVMs), strings.Count(said, ofOurs); a != tt.vms || b != tt.shown {
				t.Errorf("%d lines about VMs and %d about others, want %d and %d:\n%s", a, b, tt.vms, tt.shown, said)
			}
		})
	}
	c, err := srv.Dial("vms/" + testenv.UUID(0) + "/keys")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestSocketReplaced has somebody put a file of his own where a socket was. It stays,
// the log says so once, and when it is gone the socket is there again.
func TestSocketReplaced(t *testing.T) {
	srv := testenv.Start(t, daemon.Options{})
	uuid := testenv.UUID(0)
	srv.NewVM(uuid, `{"uuid":"`+uuid+`"}`)
	for path, says := range map[string]string{
		srv.VM(uuid): "sockets of VMs were taken away; they cannot be made again",
		srv.Admin():  "the socket was taken away; it cannot be made again",
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
			t.Fatal(err)
		}
		taken := time.Now()
		testenv.Eventually(t, "the log says so", func() bool { return strings.Contains(srv.Log(), says) })
		if took := time.Since(taken); took > 5*time.Second {
			t.Errorf("%s: said after %v", path, took)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "theirs" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, path+" answers", func() bool { return answers(path) })
		if n := strings.Count(srv.Log(), says); n != 1 {
			t.Errorf("%s: said %d times", path, n)
		}
	}
}

// answers says whether somebody serves a socket: 9P where it is one of that, and in any
// case a connection that is not closed at once.
func answers(path string) bool {
	if filepath.Base(path) != "9p.sock" && filepath.Base(path) != "admin.sock" {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	c, err := raw.Dial("unix", path)
	if err != nil {
		return false
	}
	defer c.Close()
	_, version, err := c.Version(wire.MinMsize, "9P2000")
	return err == nil && version == "9P2000"
}
