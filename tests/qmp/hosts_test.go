package qmp

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// TestDiscovery: a QEMU becomes a VM, and is followed and led.
func TestDiscovery(t *testing.T) {
	h, uuid := newHost(t, ""), testenv.UUID(1)
	startQEMU(t, h.socket("a"), uuid, "web-01")
	h.state(uuid, "prelaunch")
	if alias, err := h.conn.Sread(0, "names", "web-01", "ctl"); err != nil || !strings.Contains(string(alias), uuid) {
		t.Errorf("names/web-01: %s %v", alias, err)
	}
	version, err := h.conn.Sread(0, "vms", uuid, "qmp", "version")
	if err != nil || !strings.Contains(string(version), `"qemu"`) {
		t.Errorf("version %s: %v", version, err)
	}
	events := h.open("vms", uuid, "qmp", "events")
	for _, step := range []struct{ verb, event, state string }{
		{"start", "RESUME", "running"},
		{"stop", "STOP", "paused"},
		{"start", "RESUME", "running"},
		{"powerdown", "POWERDOWN", "running"},
		{"reset", "RESET", "running"},
	} {
		h.mustCtl(uuid, step.verb)
		if e := events.next(); e["event"] != step.event || e["timestamp"] == nil {
			t.Errorf("%s: %v", step.verb, e)
		}
		h.state(uuid, step.state)
		var status map[string]any
		b, err := h.conn.Sread(0, "vms", uuid, "qmp", "status")
		if err != nil || json.Unmarshal(b, &status) != nil || status["status"] != step.state {
			t.Errorf("%s: status %s: %v", step.verb, b, err)
		}
	}
	h.mustCtl(uuid, "quit")
	h.state(uuid, "stopped")
	if err := h.ctl(uuid, "start"); err == nil || !strings.Contains(err.Error(), uuid) {
		t.Errorf("start of what is gone: %v", err)
	}
}

// TestStateIsPrompt compares when QEMU says that something happened with when the
// VM changed, by the same clock.
func TestStateIsPrompt(t *testing.T) {
	h, uuid := newHost(t, ""), testenv.UUID(1)
	startQEMU(t, h.socket("a"), uuid, "web")
	h.state(uuid, "prelaunch")
	h.mustCtl(uuid, "start")
	h.state(uuid, "running")
	said, changed := h.open("vms", uuid, "qmp", "events"), h.open("vms", uuid, "events")
	var took []time.Duration
	for i := range 20 {
		verb, state := "stop", "paused"
		if i%2 == 1 {
			verb, state = "start", "running"
		}
		h.mustCtl(uuid, verb)
		stamp := said.next()["timestamp"].(map[string]any)
		event := time.Unix(int64(stamp["seconds"].(float64)), int64(stamp["microseconds"].(float64))*1000)
		date, err := time.Parse(time.RFC3339, text(changed.until("type", "vm-changed"), "date"))
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, date.Sub(event))
		h.state(uuid, state)
	}
	slices.Sort(took)
	t.Logf("the state follows an event after %v (median), %v (worst)", took[len(took)/2], took[len(took)-1])
	if took[len(took)/2] > 100*time.Millisecond {
		t.Errorf("the state follows an event after %v", took)
	}
}

// TestKill9: a QEMU that is killed leaves its VM stopped, and comes back under the
// same path.
func TestKill9(t *testing.T) {
	h, uuid := newHost(t, ""), testenv.UUID(1)
	q := startQEMU(t, h.socket("a"), uuid, "web")
	h.state(uuid, "prelaunch")
	if err := h.conn.Swrite(0, []byte("v"), "vms", uuid, "keys", "k"); err != nil {
		t.Fatal(err)
	}
	q.kill()
	h.state(uuid, "stopped")
	startQEMU(t, h.socket("a"), uuid, "web")
	h.state(uuid, "prelaunch")
	if v, err := h.conn.Sread(0, "vms", uuid, "keys", "k"); string(v) != "v" {
		t.Errorf("the key has %q: %v", v, err)
	}
}

// TestRestart: what ended while meta9d was down is stopped when it is up, and what
// runs on is found again.
func TestRestart(t *testing.T) {
	h := newHost(t, "")
	q := startQEMU(t, h.socket("a"), testenv.UUID(1), "a")
	startQEMU(t, h.socket("b"), testenv.UUID(2), "b")
	h.state(testenv.UUID(1), "prelaunch")
	h.state(testenv.UUID(2), "prelaunch")
	if err := h.Stop(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	q.kill()
	d, err := daemon.Start(h.Options)
	if err != nil {
		t.Fatal(err)
	}
	h.Daemon = d
	h.conn = h.Conn("")
	h.state(testenv.UUID(1), "stopped")
	testenv.Eventually(t, "the other is led again", func() bool { return h.ctl(testenv.UUID(2), "start") == nil })
	h.state(testenv.UUID(2), "running")
}

// TestFiftyQEMUs come and go, twice.
func TestFiftyQEMUs(t *testing.T) {
	h := newHost(t, "")
	before, err := h.FDs()
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	for range 2 {
		all := make([]*qemu, n)
		for i := range all {
			all[i] = startQEMU(t, h.socket(vmName(i)), testenv.UUID(i), vmName(i))
		}
		for i := range all {
			h.state(testenv.UUID(i), "prelaunch")
		}
		var ended sync.WaitGroup
		for i, q := range all {
			ended.Go(func() {
				if i%2 == 0 {
					q.kill()
				}
				_ = os.Remove(q.path)
			})
		}
		ended.Wait()
		for i := range all {
			if i%2 == 1 {
				h.mustCtl(testenv.UUID(i), "quit")
			}
			h.state(testenv.UUID(i), "stopped")
		}
	}
	for i := range n {
		h.mustCtl(testenv.UUID(i), "delete") // and with it its own sockets
	}
	testenv.Eventually(t, "no connection is left", func() bool {
		now, err := h.FDs()
		return err == nil && now <= before+2
	})
}

// TestSocketInUse: a QEMU whose socket another client has is found when that one
// goes; a QEMU beside it is found at once.
func TestSocketInUse(t *testing.T) {
	h := newHost(t, "")
	elsewhere := filepath.Join(h.dir, "elsewhere")
	startQEMU(t, elsewhere, testenv.UUID(1), "busy")
	other, err := net.Dial("unix", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Read(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(elsewhere, h.socket("busy")); err != nil {
		t.Fatal(err)
	}
	startQEMU(t, h.socket("free"), testenv.UUID(2), "free")
	h.state(testenv.UUID(2), "prelaunch")
	testenv.Eventually(t, "it is said that there is no greeting", func() bool { return strings.Contains(h.Log(), "no greeting yet") })
	if h.vm(testenv.UUID(1)) != nil {
		t.Error("it was found while another client had it")
	}
	_ = other.Close()
	h.state(testenv.UUID(1), "prelaunch")
}

// TestSlowToGreet: a QEMU that stands still holds up nobody.
func TestSlowToGreet(t *testing.T) {
	h := newHost(t, "")
	elsewhere := filepath.Join(h.dir, "elsewhere")
	q := startQEMU(t, elsewhere, testenv.UUID(1), "slow")
	if err := q.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(elsewhere, h.socket("slow")); err != nil {
		t.Fatal(err)
	}
	startQEMU(t, h.socket("quick"), testenv.UUID(2), "quick")
	h.state(testenv.UUID(2), "prelaunch")
	if h.vm(testenv.UUID(1)) != nil {
		t.Error("found")
	}
	if err := q.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.state(testenv.UUID(1), "prelaunch")
}

// TestRefused: without a UUID, and with one that is there already.
func TestRefused(t *testing.T) {
	bound := "bound.sock"
	dir, err := os.MkdirTemp("", "m9q-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	bound = filepath.Join(dir, bound)
	h := newHost(t, "[qmp.bind]\n\""+bound+"\" = \""+testenv.UUID(3)+"\"\n", "--qmp", "unix:"+bound)
	startQEMU(t, h.socket("none"), "", "none")
	testenv.Eventually(t, "it is refused", func() bool { return strings.Contains(h.Log(), "start it with -uuid UUID") })
	startQEMU(t, bound, "", "bound")
	h.state(testenv.UUID(3), "prelaunch")
	second := h.socket("second")
	startQEMU(t, h.socket("first"), testenv.UUID(1), "two", "-qmp", "unix:"+second+",server=on,wait=off")
	h.state(testenv.UUID(1), "prelaunch")
	testenv.Eventually(t, "the second socket is refused", func() bool {
		return strings.Contains(h.Log(), "VM "+testenv.UUID(1)+" is at ")
	})
}

// TestKnownVM keeps its metadata, and its own alias.
func TestKnownVM(t *testing.T) {
	h, uuid := newHost(t, ""), testenv.UUID(1)
	h.NewVM(uuid, `{"uuid":"`+uuid+`","alias":"mine","customer_metadata":{"k":"v"}}`)
	startQEMU(t, h.socket("a"), uuid, "theirs")
	startQEMU(t, h.socket("b"), testenv.UUID(2), "mine")
	h.state(uuid, "prelaunch")
	h.state(testenv.UUID(2), "prelaunch")
	if alias := text(h.vm(uuid), "alias"); alias != "mine" {
		t.Errorf("alias %q", alias)
	}
	if v, err := h.conn.Sread(0, "vms", uuid, "keys", "k"); string(v) != "v" {
		t.Errorf("key %q: %v", v, err)
	}
	if alias := text(h.vm(testenv.UUID(2)), "alias"); alias != "mine" {
		t.Errorf("the other's alias %q", alias)
	}
	if b, err := h.conn.Sread(0, "names", "mine", "ctl"); err != nil || !strings.Contains(string(b), uuid) {
		t.Errorf("names/mine: %s %v", b, err)
	}
}

// TestPass: any command by ctl, its answer read from the same fid.
func TestPass(t *testing.T) {
	h, uuid := newHost(t, ""), testenv.UUID(1)
	startQEMU(t, h.socket("a"), uuid, "web")
	h.state(uuid, "prelaunch")
	c := h.Conn("")
	if err := c.Walk(0, 1, "vms", uuid, "ctl"); err != nil {
		t.Fatal(err)
	}
	if err := c.Open(1, 2); err != nil {
		t.Fatal(err)
	}
	ask := func(line string) (string, error) {
		t.Helper()
		werr := c.Write(1, 0, []byte(line+"\n"))
		var all []byte
		for {
			b, err := c.Read(1, uint64(len(all)), 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 {
				return string(all), werr
			}
			all = append(all, b...)
		}
	}
	if got, err := ask(`qmp {"execute": "query-name", "id": [1]}`); err != nil || got != `{"return": {"name":"web"}, "id": [1]}`+"\n" {
		t.Errorf("%s: %v", got, err)
	}
	if got, err := ask(`qmp {'execute': 'query-qmp-schema'}`); err != nil || len(got) < 100_000 || !json.Valid([]byte(got)) {
		t.Errorf("%d bytes of schema: %v", len(got), err)
	}
	if got, err := ask(`qmp {"execute": "eject", "arguments": {"device": "nope"}}`); err == nil || !strings.Contains(got, `"class": "DeviceNotFound"`) {
		t.Errorf("%s: %v", got, err)
	}
}
