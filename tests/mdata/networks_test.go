package mdata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// network is what a data source of cloud-init makes of a VM (testdata/networks.py).
type network struct {
	Interfaces map[string]struct {
		MAC       string
		MTU       int
		Addresses []string
	}
	Routes [][2]string // to, via
}

// bySource are the networks of both data sources.
type bySource struct{ SmartOS, NoCloud *network }

// guestVM is a VM that is created of a payload, and changed by an update if there is one.
type guestVM struct {
	name            string
	payload, update json.RawMessage
	routes          [][2]string // that it must have; nil: as both sources say
	netplan         string      // what netplan's files must have, beside the routes
}

// recordedPayloads are the VMs of payloads.json that have NICs, as they are created and as
// they are updated.
func recordedPayloads(t *testing.T) (vms []guestVM) {
	t.Helper()
	root := testenv.Root(t)
	text, err := os.ReadFile(filepath.Join(root, "fs/vm/payload/testdata/payloads.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Create, Update []struct {
			Name            string
			Payload, Update json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range slices.Concat(cases.Create, cases.Update) {
		if string(c.Payload) == `"update.0"` {
			c.Payload = cases.Update[0].Payload
		}
		if bytes.Contains(c.Payload, []byte(`"nics"`)) {
			vms = append(vms, guestVM{name: c.Name, payload: c.Payload, update: c.Update})
		}
	}
	if len(vms) < 7 {
		t.Fatalf("only %d payloads with NICs", len(vms))
	}
	return vms
}

// morePayloads are networks that payloads of the field have and payloads.json has not.
var morePayloads = []guestVM{
	{
		name: "mtu", payload: json.RawMessage(`{"nics":[{"ip":"10.0.0.5","netmask":"255.255.255.0","gateway":"10.0.0.1","mtu":1400}]}`),
		routes: [][2]string{{"0.0.0.0/0", "10.0.0.1"}}, netplan: "MTUBytes=1400",
	},
	{
		name: "a gateway outside of every prefix", payload: json.RawMessage(`{"nics":[{"ip":"203.0.113.7","netmask":"255.255.255.255","gateway":"192.0.2.1"}]}`),
		routes: [][2]string{{"0.0.0.0/0", "192.0.2.1"}}, netplan: "GatewayOnLink=",
	},
	{
		name: "both families", payload: json.RawMessage(`{"nics":[{"ips":["10.0.0.5/24","2001:db8::5/64"],"gateways":["10.0.0.1","2001:db8::1"]}]}`),
		routes: [][2]string{{"0.0.0.0/0", "10.0.0.1"}, {"::/0", "2001:db8::1"}},
	},
	{
		name: "the second is primary", payload: json.RawMessage(`{"nics":[{"ip":"10.0.0.5","netmask":"255.255.255.0","gateway":"10.0.0.1"},` +
			`{"ip":"10.1.0.5","netmask":"255.255.255.0","gateway":"10.1.0.1","primary":true}]}`),
		routes: [][2]string{{"0.0.0.0/0", "10.1.0.1"}},
	},
	{name: "dhcp, and a second that is not", payload: json.RawMessage(`{"nics":[{"ip":"dhcp"},{"ip":"10.1.0.5","netmask":"255.255.255.0"}]}`), routes: [][2]string{}},
	{
		name: "a route by an address", payload: json.RawMessage(`{"nics":[{"ip":"10.0.0.5","netmask":"255.255.255.0","gateway":"10.0.0.1"}],"routes":{"10.9.0.0/16":"10.0.0.9"}}`),
		routes: [][2]string{{"0.0.0.0/0", "10.0.0.1"}, {"10.9.0.0/16", "10.0.0.9"}},
	},
	{
		name: "a route by a MAC", payload: json.RawMessage(`{"nics":[{"mac":"02:08:20:00:00:09","ip":"10.0.0.5","netmask":"255.255.255.0"}],"routes":{"10.9.0.0/16":"macs[2:8:20:0:0:9]"}}`),
		routes: [][2]string{{"10.9.0.0/16", "10.0.0.5"}},
	},
}

// TestNetworks: of every VM that has NICs cloud-init's SmartOS source and NoCloud make the
// same addresses, routes and mtu, and netplan the default route.
func TestNetworks(t *testing.T) {
	testenv.NeedDebian(t, "cloud-init", "cloud-init")
	testenv.NeedDebian(t, "pyserial-ports", "python3-serial")
	testenv.NeedDebian(t, "netplan", "netplan.io")
	h := host{testenv.Start(t, daemon.Options{Memory: true}), t}
	vms := append(recordedPayloads(t), morePayloads...)
	dir := t.TempDir()
	seeds := h.seeds(dir, vms)
	// Debian's own interpreter: cloud-init is not in another's path.
	seen := networks(t, exec.CommandContext(within(t), "/usr/bin/python3", "testdata/networks.py"), seeds)
	checkNetworks(t, vms, seen)
	for _, vm := range vms {
		if by := seen[vm.name].NoCloud; by != nil {
			checkNetplan(t, vm, seeds[vm.name].Folder, by.Routes)
		}
	}
}

// seed is where the driver finds a VM.
type seed struct {
	Sock   string `json:"sock"`
	Folder string `json:"folder"`
}

// seeds makes the VMs, and writes the files of their nocloud/ to folders in dir.
func (h host) seeds(dir string, vms []guestVM) map[string]seed {
	h.t.Helper()
	all := map[string]seed{}
	for i, vm := range vms {
		uuid := testenv.UUID(i)
		var o map[string]any
		if err := json.Unmarshal(vm.payload, &o); err != nil {
			h.t.Fatal(err)
		}
		o["uuid"], o["alias"] = uuid, fmt.Sprint("vm", i)
		line, err := json.Marshal(o)
		if err != nil {
			h.t.Fatal(err)
		}
		h.NewVM(uuid, string(line))
		if vm.update != nil {
			var line bytes.Buffer
			if err := json.Compact(&line, vm.update); err != nil {
				h.t.Fatal(err)
			}
			if err := h.Ctl("update " + uuid + " " + line.String()); err != nil {
				h.t.Fatal(err)
			}
		}
		s := seed{Sock: filepath.Join(h.Run(), uuid, "mdata.sock"), Folder: filepath.Join(dir, fmt.Sprint(i))}
		in := filepath.Join(s.Folder, "seed", "nocloud")
		if err := os.MkdirAll(in, 0o755); err != nil {
			h.t.Fatal(err)
		}
		for _, name := range []string{"meta-data", "user-data", "vendor-data", "network-config"} {
			b, err := h.Conn("").Sread(0, "vms", uuid, "nocloud", name)
			if err != nil {
				h.t.Fatalf("%s: %v", vm.name, err)
			}
			if err := os.WriteFile(filepath.Join(in, name), b, 0o600); err != nil {
				h.t.Fatal(err)
			}
		}
		all[vm.name] = s
	}
	return all
}

// networks runs the driver.
func networks(t *testing.T, driver *exec.Cmd, seeds map[string]seed) (seen map[string]bySource) {
	t.Helper()
	in, err := json.Marshal(seeds)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	driver.Stdin, driver.Stderr = bytes.NewReader(in), &stderr
	out, err := driver.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return seen
}

// checkNetworks compares the two sources.
func checkNetworks(t *testing.T, vms []guestVM, seen map[string]bySource) {
	t.Helper()
	for _, vm := range vms {
		by := seen[vm.name]
		if by.SmartOS == nil || by.NoCloud == nil || len(by.SmartOS.Interfaces) == 0 {
			t.Errorf("%s: no network: %+v", vm.name, by)
			continue
		}
		if diff := cmp.Diff(by.SmartOS, by.NoCloud); diff != "" {
			t.Errorf("%s (-SmartOS +NoCloud):\n%s", vm.name, diff)
		}
		if vm.routes != nil && !cmp.Equal(vm.routes, append([][2]string{}, by.SmartOS.Routes...)) {
			t.Errorf("%s: the routes are %v", vm.name, by.SmartOS.Routes)
		}
		if vm.name == "mtu" && by.SmartOS.Interfaces["net0"].MTU != 1400 {
			t.Errorf("mtu: %+v", by.SmartOS)
		}
		for name, i := range by.SmartOS.Interfaces {
			if len(i.Addresses) == 0 || i.MAC == "" {
				t.Errorf("%s: %s is %+v", vm.name, name, i)
			}
		}
	}
}

// checkNetplan lets netplan make systemd-networkd's files of a seed's network-config:
// they have the routes.
func checkNetplan(t *testing.T, vm guestVM, folder string, routes [][2]string) {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(folder, "seed/nocloud/network-config"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	etc := filepath.Join(root, "etc/netplan")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "network:\n  " + strings.ReplaceAll(strings.TrimSpace(string(config)), "\n", "\n  ") + "\n"
	if err := os.WriteFile(filepath.Join(etc, "50-cloud-init.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(within(t), "netplan", "generate", "--root-dir", root).CombinedOutput(); err != nil {
		t.Errorf("%s: netplan: %v\n%s%s", vm.name, err, out, text)
		return
	}
	files, err := filepath.Glob(filepath.Join(root, "run/systemd/network/*"))
	if err != nil {
		t.Fatal(err)
	}
	var all string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all += string(b)
	}
	for _, r := range routes {
		if !strings.Contains(all, "Gateway="+r[1]+"\n") {
			t.Errorf("%s: netplan makes no route to %s by %s:\n%s\nof\n%s", vm.name, r[0], r[1], all, text)
		}
	}
	if !strings.Contains(all, vm.netplan) {
		t.Errorf("%s: no %s in\n%s\nof\n%s", vm.name, vm.netplan, all, text)
	}
}
