package qmp

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

// TestInfo: what a QEMU says of itself, as vmadm info has it.
func TestInfo(t *testing.T) {
	h, uuid := newHost(t, ""), testenv.UUID(1)
	startQEMU(t, h.socket("a"), uuid, "a", "-vnc", "127.0.0.1:0,to=99")
	h.state(uuid, "prelaunch")
	ask := func(args ...string) (o map[string]map[string]any) {
		t.Helper()
		out, err := h.meta9(append([]string{"vm", "info", uuid}, args...)...)
		if err != nil || json.Unmarshal([]byte(out), &o) != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return o
	}
	o := ask("vnc,status", "version")
	port, _ := o["vnc"]["port"].(float64)
	display, _ := o["vnc"]["display"].(float64)
	qemu, _ := o["version"]["qemu"].(map[string]any)
	if len(o) != 3 || o["vnc"]["host"] != "127.0.0.1" || port < 5900 || port != display+5900 || o["status"]["status"] != "prelaunch" || qemu["major"] == nil {
		t.Errorf("%v", o)
	}
	out, err := h.meta9("vm", "info", uuid)
	var all map[string]json.RawMessage
	if err != nil || json.Unmarshal([]byte(out), &all) != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"block", "blockstats", "chardev", "cpus", "kvm", "status", "version", "vnc"} {
		if all[name] == nil {
			t.Errorf("no %s in %s", name, out)
		}
	}
	every, err := h.meta9("vm", "info", uuid, "all")
	if err != nil || every != out {
		t.Errorf("all: %v: %s", err, every)
	}
	if strings.Index(out, `"block"`) > strings.Index(out, `"vnc"`) || !slices.Contains(strings.Split(out, "\n"), "}") {
		t.Errorf("the order: %s", out)
	}
	h.mustCtl(uuid, "quit")
	h.state(uuid, "stopped")
	if out, err := h.meta9("vm", "info", uuid); err == nil || !strings.Contains(out, "no QEMU of it is connected") {
		t.Errorf("of one that has ended: %v: %s", err, out)
	}
}
