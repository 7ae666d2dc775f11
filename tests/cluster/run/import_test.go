package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// alone starts a meta9d that is in no fleet, over that data folder.
func alone(t *testing.T, dir, name, data string) *proc {
	t.Helper()
	settings := filepath.Join(dir, name+".toml")
	p := &proc{t: t, run: filepath.Join(dir, name), gone: make(chan struct{})}
	if err := os.WriteFile(settings, fmt.Appendf(nil, "data = %q\nrun = %q\n", data, p.run), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start(settings, dir)
	p.until("pid ", "cat", "/ctl")
	return p
}

// meta9d runs the daemon's program for what it does without serving.
func meta9d(dir string, args ...string) (code int, out string) {
	c := exec.Command(filepath.Join(bin, "meta9d"), args...)
	c.Dir = dir
	said, _ := c.CombinedOutput()
	return c.ProcessState.ExitCode(), string(said)
}

// TestImport: two hosts that were alone bring their data folders into one fleet: the first
// keeps the numbers of its files, the second gets others, and what collides is left out and
// named. What a host has in the fleet goes back to a folder that serves without one.
func TestImport(t *testing.T) {
	dir := folder(t)
	e := started(t, dir)
	settings := e.settingsOf(t, dir)
	file := func(host string) string {
		t.Helper()
		name := filepath.Join(dir, host+"-fleet.toml")
		text := fmt.Sprintf("data = \"\"\nrun = %q\n[cluster]\nhost = %q\nttl = \"2s\"\n%s", filepath.Join(dir, host), host, settings)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	inodes := func(p *proc, uuid string) string { return p.must("stat", "/vms/"+uuid+"/keys/k") }
	was := map[string]string{}
	for host, uuids := range map[string][]int{"a": {0, 1}, "b": {1, 2}} {
		p := alone(t, dir, host+"-alone", filepath.Join(dir, host+"-data"))
		for _, n := range uuids {
			p.createTwo(uuidOf(n))
			was[host+uuidOf(n)] = inodes(p, uuidOf(n))
		}
		if host == "a" {
			if code, out := meta9d(dir, "--import", filepath.Join(dir, "a-data"), "--config", file("a")); code != 1 || !strings.Contains(out, "in use by another meta9d") {
				t.Errorf("of a folder that is in use: exit %d, %s", code, out)
			}
		}
		if code, log := p.stop(); code != 0 {
			t.Fatalf("exit %d\n%s", code, log)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--import", "nowhere", "--config", file("a")}, 2, "--import: open nowhere"},
		{[]string{"--import", "a-data"}, 2, "[cluster] is not set"},
		{[]string{"--export", "a-data"}, 2, "[cluster] is not set"},
		{[]string{"--export", "a-data", "--config", file("a")}, 2, "a-data/meta9.db is there"},
		{[]string{"--import", "a-data", "--config", file("a")}, 0, uuidOf(0) + ` "-": imported` + "\n"},
		{[]string{"--import", "a-data", "--config", file("a")}, 1, "2 VMs of a-data were left out"},
		{[]string{"--import", "b-data", "--config", file("b")}, 1, uuidOf(1) + ` "-": left out: VM ` + uuidOf(1) + ` is host "a"'s`},
	} {
		if code, out := meta9d(dir, c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	a, b := begin(t, dir, "a", settings), begin(t, dir, "b", settings)
	for _, h := range []*proc{a, b} {
		h.until("fleet_etcd ok", "cat", "/ctl")
	}
	for _, n := range []int{0, 1} {
		if got := inodes(a, uuidOf(n)); got != was["a"+uuidOf(n)] {
			t.Errorf("the first folder's file has come as\n%s, and was\n%s", got, was["a"+uuidOf(n)])
		}
	}
	if got := inodes(b, uuidOf(2)); got == was["b"+uuidOf(2)] {
		t.Errorf("the second folder's file keeps a number that the first one's may have: %s", got)
	}
	if got := b.must("cat", "/vms/"+uuidOf(2)+"/keys/k"); got != "of "+uuidOf(2) {
		t.Errorf("its value is %q", got)
	}
	if code, out := meta9d(dir, "--export", "back", "--config", file("a")); code != 2 || !strings.Contains(out, "this host's meta9d must be stopped first") {
		t.Errorf("while meta9d runs: exit %d, %s", code, out)
	}
	a.must("put", "/vms/"+uuidOf(0)+"/keys/new", "in the fleet")
	now := inodes(a, uuidOf(0))
	if code, log := a.stop(); code != 0 {
		t.Fatalf("exit %d\n%s", code, log)
	}
	if code, out := meta9d(dir, "--export", "back", "--config", file("a")); code != 0 || !strings.Contains(out, "exported 2 VMs, 5 keys") {
		t.Fatalf("exit %d, %s", code, out)
	}
	if files, err := os.ReadDir(filepath.Join(dir, "back")); err != nil || len(files) != 1 {
		t.Errorf("the folder has %v, %v", files, err)
	}
	p := alone(t, dir, "back-alone", filepath.Join(dir, "back"))
	if got := p.must("cat", "/vms/"+uuidOf(0)+"/keys/new"); got != "in the fleet" || inodes(p, uuidOf(0)) != now {
		t.Errorf("it has come back as %q, %s; it was %s", got, inodes(p, uuidOf(0)), now)
	}
	p.must("put", "/vms/"+uuidOf(1)+"/keys/k", "changed")
}
