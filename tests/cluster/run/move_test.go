package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMove claims a VM to and fro with `meta9 fleet claim`, while `meta9 watch` is attached as
// its guest and goes where the VM is: it sees each change once, and no line "lost", so
// that its session has gone along.
func TestMove(t *testing.T) {
	dir := folder(t)
	e := started(t, dir)
	settings := e.settingsOf(t, dir)
	hosts := []*proc{begin(t, dir, "a", settings), begin(t, dir, "b", settings)}
	for _, h := range hosts {
		h.until("fleet_etcd ok", "cat", "/ctl")
	}
	a, b := hosts[0], hosts[1]
	a.create(`{"uuid":"` + vm + `","customer_metadata":{"motd":"hello"}}`)
	if out, err := b.meta9("vm", "create", "-f", a.run+".json"); err == nil || !strings.Contains(out, `host "a"`) {
		t.Errorf("it is created at two hosts: %v, %s", err, out)
	}
	guest := filepath.Join(dir, "guest")
	lead := func(to *proc) {
		t.Helper()
		next := guest + ".new"
		if err := os.Symlink(filepath.Join(to.run, vm, "9p.sock"), next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, guest); err != nil {
			t.Fatal(err)
		}
	}
	lead(a)
	watch := exec.Command(filepath.Join(bin, "meta9"), "--addr", "unix:"+guest, "watch")
	seen, told := new(lines), new(lines)
	watch.Stdout, watch.Stderr = seen, told
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = watch.Process.Kill()
		_ = watch.Wait()
	}()
	a.until("vm:"+vm, "sessions")
	const moves = 4
	for i := range moves {
		from, to := hosts[i%2], hosts[1-i%2]
		before := "before" + string(rune('0'+i))
		from.must("put", "/vms/"+vm+"/keys/"+before, "x")
		seen.until(t, before)
		lead(to) // before it goes: a guest that speaks where it was claims it back
		if out := to.must("fleet", "claim", vm); !strings.Contains(out, vm+": here now") {
			t.Errorf("meta9 fleet claim says %s", out)
		}
		after := "after" + string(rune('0'+i))
		to.must("put", "/vms/"+vm+"/keys/"+after, "x")
		seen.until(t, after)
		if out := from.must("fleet", "where", vm); !strings.Contains(out, vm+" "+filepath.Base(to.run)+" ") {
			t.Errorf("after its move: %s", out)
		}
		if out, err := from.meta9("cat", "/vms/"+vm+"/keys/motd"); err == nil {
			t.Errorf("it is still at its old host: %s", out)
		}
	}
	text := seen.all()
	if n := strings.Count(text, `"key-set"`); n != 2*moves || strings.Contains(text, `"lost"`) {
		t.Errorf("%d changes were seen, want %d, and none lost:\n%s%s", n, 2*moves, text, told.all())
	}

	// It is given away, expected, and claimed by the first byte. A guest that speaks would
	// claim it before.
	_ = watch.Process.Kill()
	_ = watch.Wait()
	a.must("fleet", "release", vm)
	if out := b.must("fleet", "where", vm); !strings.Contains(out, vm+" - ") {
		t.Errorf("nobody has it: %s", out)
	}
	b.must("fleet", "claim", vm)
	b.must("fleet", "release", "--to", "a", vm) // nobody there waits for it
	a.until("hello", "cat", "/vms/"+vm+"/keys/motd")
	a.must("fleet", "release", vm)
	b.must("fleet", "expect", vm)
	lead(b)
	comes := exec.Command(filepath.Join(bin, "meta9"), "--addr", "unix:"+guest, "cat", "keys/motd")
	if out, err := comes.CombinedOutput(); err != nil || string(out) != "hello" {
		t.Errorf("a guest where it is expected: %v, %s", err, out)
	}
	if out := b.must("fleet", "drain"); !strings.Contains(out, "1 VMs are given away, 0 stay") {
		t.Errorf("drain says %s", out)
	}
	if out, err := b.meta9("vm", "create", "new"); err == nil || !strings.Contains(out, `the host "b" is being drained`) || !strings.Contains(out, "meta9 fleet drain --undo") {
		t.Errorf("a new VM at a host that is drained: %v, %s", err, out)
	}
	a.must("fleet", "claim", vm)
	if out, err := a.meta9("fleet", "release", "--to", "b", vm); err == nil || !strings.Contains(out, `the host "b" is being drained, and takes no VM`) {
		t.Errorf("a VM is given to a host that is drained: %v, %s", err, out)
	}
	if out := a.must("fleet", "status"); !strings.Contains(out, "b lives, is being drained and takes no VM") {
		t.Errorf("of another host that is drained: %s", out)
	}
	if out, err := b.meta9("fleet", "expect", vm); err == nil || !strings.Contains(out, `the host "b" is being drained`) {
		t.Errorf("a host that is drained expects a VM: %v, %s", err, out)
	}
	var is struct {
		Host  string
		Hosts []struct{ Host, State string }
		Taken int
	}
	if err := json.Unmarshal([]byte(a.must("fleet", "status", "-o", "json")), &is); err != nil || is.Host != "a" || len(is.Hosts) != 2 || is.Taken == 0 {
		t.Errorf("status: %v, %+v", err, is)
	}
	t.Log(a.must("fleet", "status"))
	if out, err := a.meta9("fleet", "claim", "00000000-0000-4000-8000-000000000001"); err == nil || !strings.Contains(out, "no host of the fleet has") {
		t.Errorf("a VM that is not there: %v, %s", err, out)
	}

	// A host that ends lives no more, and its VM can be claimed at once.
	if code, log := a.stop(); code != 0 {
		t.Errorf("exit %d\n%s", code, log)
	}
	b.must("fleet", "drain", "--undo")
	b.must("vm", "create", "new")
	b.must("fleet", "claim", vm)
	if out := b.must("cat", "/vms/"+vm+"/keys/motd"); out != "hello" {
		t.Errorf("got %q", out)
	}
}

// TestFenced: a host that is fenced though it lives makes no VM, lets go of those that another host
// claims, and doctor says what to do.
func TestFenced(t *testing.T) {
	dir := folder(t)
	settings := started(t, dir).settingsOf(t, dir) + "ttl = \"2s\"\n"
	a, b := begin(t, dir, "a", settings), begin(t, dir, "b", settings)
	for _, h := range []*proc{a, b} {
		h.until("fleet_etcd ok", "cat", "/ctl")
	}
	a.create(`{"uuid":"` + vm + `"}`)
	b.must("fleet", "fence", "a")
	b.must("fleet", "claim", vm)
	// It hears of it with its next request.
	var out string
	var err error
	for i, end := 0, time.Now().Add(patience); err == nil || !strings.Contains(out, "is fenced"); i++ {
		if time.Now().After(end) {
			t.Fatalf("vm create at a host that is fenced: %v\n%s", err, out)
		}
		out, err = a.meta9("vm", "create", fmt.Sprint("web", i))
	}
	for end := time.Now().Add(patience); err == nil || !strings.Contains(out, "no VM"); {
		if time.Now().After(end) {
			t.Fatalf("the VM at a host that is fenced: %v\n%s", err, out)
		}
		out, err = a.meta9("vm", "get", vm)
	}
	if out, _ := a.meta9("doctor"); !strings.Contains(out, "start meta9d anew") || strings.Contains(out, "goes on by itself") {
		t.Errorf("doctor at a host that is fenced:\n%s", out)
	}
}
