package render_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"meta9/fs/vm"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/render"
	"meta9/fs/vm/vmtest"
)

// TestSdcVectors: every GET sdc: that was recorded from the real agent.
func TestSdcVectors(t *testing.T) {
	v := vmtest.Keep(t, vmtest.NewStamp(), string(vmtest.ReadMdata(t, "../../..").VM))
	vectors := vmtest.ReadMdata(t, "../../..")
	asked := 0
	for _, p := range vectors.Pairs {
		send, recv := strings.Fields(string(p.Send)), strings.Fields(string(p.Recv))
		if len(send) != 6 || send[4] != "GET" || p.N > 92 { // the PUTs follow
			continue
		}
		key, ok := strings.CutPrefix(decode64(t, send[5]), "sdc:")
		if !ok {
			continue
		}
		asked++
		want, found := "", recv[4] == "SUCCESS"
		if found {
			want = decode64(t, recv[5])
		}
		if p.Differs != "" { // each is a leak or an accident that ends in no value
			want, found = "", false
		}
		if got, ok := render.Sdc(v, key); got != want || ok != found {
			t.Errorf("pair %d, sdc:%s: %q, %v, want %q, %v", p.N, key, got, ok, want, found)
		}
	}
	if asked < 30 {
		t.Errorf("only %d pairs ask for sdc:", asked)
	}
}

func decode64(t *testing.T, s string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSdcOfVector: every name of the vector VM, and its value.
func TestSdcOfVector(t *testing.T) {
	v := vmtest.Keep(t, vmtest.NewStamp(), string(vmtest.ReadMdata(t, "../../..").VM))
	const nic = `{"interface":"net0","mac":"aa:bb:cc:dd:ee:01","nic_tag":"admin","ip":"192.168.1.10","netmask":"255.255.255.0","gateway":"192.168.1.1","ips":["192.168.1.10/24"],"gateways":["192.168.1.1"],"primary":true}`
	want := [][2]string{
		{"zonename", vmtest.UUID},
		{"uuid", vmtest.UUID},
		{"brand", "kvm"},
		{"zonepath", "/zones/" + vmtest.UUID},
		{"alias", "web0"},
		{"hostname", "web0"},
		{"dns_domain", "local"},
		{"datacenter_name", "dc1"},
		{"server_uuid", "44454c4c-5000-104d-8037-b7c04f5a5131"},
		{"owner_uuid", "930896af-bf8c-48d4-885c-6573a94b1853"},
		{"image_uuid", "01b2c898-945f-11e1-a523-af1afbe22822"},
		{"state", "running"},
		{"zone_state", "running"},
		{"ram", "1024"},
		{"vcpus", "2"},
		{"max_physical_memory", "1024"},
		{"cpu_cap", "100"},
		{"quota", "10"},
		{"autoboot", "true"},
		{"firewall_enabled", "false"},
		{"init_restarts", "0"},
		{"tmpfs", "256"},
		{"maintain_resolvers", "true"},
		{"create_timestamp", "2026-01-01T00:00:00.000Z"},
		{"last_modified", "2026-01-01T00:00:01.000Z"},
		{"resolvers", `["8.8.8.8","1.1.1.1"]`},
		{"resolvers.0", "8.8.8.8"},
		{"resolvers.1", "1.1.1.1"},
		{"routes", `[{"linklocal":false,"dst":"10.2.2.0/24","gateway":"10.2.1.1"},{"linklocal":true,"dst":"10.3.0.0/16","gateway":"192.168.1.10"},{"linklocal":true,"dst":"10.4.0.0/16","gateway":"192.168.1.10"}]`},
		{"routes.10.2.2.0/24", "10.2.1.1"},
		{"routes.10.3.0.0/16", "nics[0]"},
		{"routes.10.4.0.0/16", "macs[aa:bb:cc:dd:ee:01]"},
		{"nics", "[" + nic + "]"},
		{"nics.0.interface", "net0"},
		{"nics.0.mac", "aa:bb:cc:dd:ee:01"},
		{"nics.0.nic_tag", "admin"},
		{"nics.0.ip", "192.168.1.10"},
		{"nics.0.netmask", "255.255.255.0"},
		{"nics.0.gateway", "192.168.1.1"},
		{"nics.0.primary", "true"},
		{"disks.0.path", "/dev/zvol/rdsk/zones/x-disk0"},
		{"disks.0.boot", "true"},
		{"disks.0.size", "10240"},
		{"disks.0.media", "disk"},
		{"tags.role", "web"},
		{"tags.a.b", "dotted"},
		{"tags.n", "5"},
		{"tags.f", "false"},
		{"internal_metadata_namespaces.0", "docker"},
		{"internal_metadata_namespaces.1", "foo"},
		{"operator-script", "#!/bin/sh\necho op\n"},
		{"volumes", `[{"name":"v"}]`},
	}
	var got [][2]string
	for _, name := range render.SdcNames(v) {
		value, ok := render.Sdc(v, name)
		if !ok {
			t.Errorf("%s is listed and has no value", name)
		}
		got = append(got, [2]string{name, value})
	}
	vmtest.Diff(t, "names", got, want)
}

// TestSdcIsNotThere: names that must have no value, and are not listed.
func TestSdcIsNotThere(t *testing.T) {
	v := vmtest.Small(t, vmtest.NewStamp(), `"nics":[{"mac":"aa:bb:cc:dd:ee:01","vlans":[5],"":"x"}],"resolvers":["8.8.8.8"],"tags":{"a":"b"},"zoneid":null,"dns_domain":"",`+
		`"pci_devices":null,"operator-script":"mine","volumes":"mine","customer_metadata.x":"y","tags.z":"y","nics.0":"y",`+
		`"customer_metadata":{"k":"v"},"internal_metadata":{"secret":"s"},"other":{"x":1},"list":["x"]`)
	for _, name := range []string{
		"", "nope", "zoneid", "tags", "tags.", "tags.z", "tags.a.b", "resolvers.", "resolvers.1", "resolvers.00", "resolvers.-1", "resolvers.+0", "resolvers.0x0",
		"nics.0", "nics.1.mac", "nics.0.vlans", "nics.00.mac", "nics..mac", "nics.mac", "nics.0.mac.x", "pci_devices.0.x", "pci_devices",
		"customer_metadata", "customer_metadata.k", "customer_metadata.x", "internal_metadata", "internal_metadata.secret",
		"other", "other.x", "list", "list.0", "operator-script", "volumes", "constructor", "__proto__", "routes", "routes.x",
	} {
		if value, ok := render.Sdc(v, name); ok {
			t.Errorf("sdc:%s is %q", name, value)
		}
	}
	vmtest.Diff(t, "names", render.SdcNames(v), []string{"uuid", "nics", "nics.0.mac", "nics.0.", "resolvers", "resolvers.0", "tags.a", "dns_domain"})
}

// TestSdcNamesAreFileNames: a tag whose name cannot be a file's has a value, and
// is not listed.
func TestSdcNamesAreFileNames(t *testing.T) {
	long := strings.Repeat("t", 251)
	v := vmtest.Small(t, vmtest.NewStamp(), `"tags":{"`+long+`":"1","a\nb":"2","c ":"3","d/e":"4"}`)
	for _, name := range []string{"tags." + long, "tags.a\nb", "tags.c "} {
		if _, ok := render.Sdc(v, name); !ok {
			t.Errorf("no value for sdc:%q", name)
		}
	}
	vmtest.Diff(t, "names", render.SdcNames(v), []string{"uuid", "tags.d/e"})
}

func TestSdcRoutes(t *testing.T) {
	v := vmtest.Small(t, vmtest.NewStamp(), `"nics":[{"mac":"aa:bb:cc:dd:ee:01","ip":"dhcp"},{"mac":"aa:bb:cc:dd:ee:02"},{"mac":"aa:bb:cc:dd:ee:03","ip":"10.0.0.3"}],`+
		`"routes":{"a":"10.0.0.1","b":"nics[0]","c":"nics[1]","d":"nics[2]","e":"nics[3]","f":"macs[AA:BB:CC:DD:EE:03]","g":"macs[aa:bb:cc:dd:ee:09]","h":"x]"}`)
	got, _ := render.Sdc(v, "routes")
	vmtest.Diff(t, "routes", got, `[{"linklocal":false,"dst":"a","gateway":"10.0.0.1"},{"linklocal":true,"dst":"d","gateway":"10.0.0.3"},`+
		`{"linklocal":true,"dst":"f","gateway":"10.0.0.3"},{"linklocal":false,"dst":"h","gateway":"x]"}]`)
	if got, ok := render.Sdc(vmtest.Small(t, vmtest.NewStamp(), `"routes":{}`), "routes"); got != "[]" || !ok {
		t.Errorf("no routes are %q, %v", got, ok)
	}
	if got, ok := render.Sdc(vmtest.Small(t, vmtest.NewStamp(), `"nics":[],"routes":null`), "routes"); ok {
		t.Errorf("null routes are %q", got)
	}
}

// FuzzSdc: what is listed has a value, and nothing leads into the metadata.
func FuzzSdc(f *testing.F) {
	f.Add(`"tags":{"a":"b"},"nics":[{"mac":"2:8:20:a:b:c"}],"routes":{"x":"nics[0]"}`, "nics.0.mac")
	f.Add(`"internal_metadata":{"operator-script":"x"}`, "operator-script")
	f.Fuzz(func(t *testing.T, members, name string) {
		v, _, err := payload.Create([]byte(`{"uuid":"`+vmtest.UUID+`",`+members+`}`), vmtest.NewStamp(), vm.DefaultLimits)
		if err != nil {
			return
		}
		listed := map[string]bool{}
		for _, n := range render.SdcNames(v) {
			if _, ok := render.Sdc(v, n); !ok || listed[n] || vm.ValidKey(n) != nil {
				t.Fatalf("%q is listed: a value: %v, twice: %v", n, ok, listed[n])
			}
			listed[n] = true
		}
		if _, ok := render.Sdc(v, name); ok != listed[name] && vm.ValidKey(name) == nil {
			t.Fatalf("%q has a value: %v, is listed: %v", name, ok, listed[name])
		}
	})
}

// TestSdcHasNoHost: paths and users of the host are not a guest's business.
func TestSdcHasNoHost(t *testing.T) {
	v := vmtest.Keep(t, vmtest.NewStamp(), `{"uuid":"`+vmtest.UUID+`","9p_chardev":"/var/x,link","9p_listen":"/var/z","qmp_socket":"/run/q","mdata_chardev":"/var/y","9p_owner":"libvirt-qemu"}`)
	for _, name := range []string{"9p_chardev", "9p_listen", "qmp_socket", "mdata_chardev", "9p_owner"} {
		if value, ok := render.Sdc(v, name); ok {
			t.Errorf("sdc:%s is %q", name, value)
		}
		if slices.Contains(render.SdcNames(v), name) {
			t.Errorf("sdc/%s is listed", name)
		}
	}
}
