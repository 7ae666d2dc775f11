package render_test

import (
	"slices"
	"strings"
	"testing"

	"meta9/fs/vm/render"
	"meta9/fs/vm/vmtest"
)

func TestNoCloudOfVector(t *testing.T) {
	v := vmtest.Keep(t, vmtest.NewStamp(), string(vmtest.ReadMdata(t, "../../..").VM))
	for name, want := range map[string]string{
		"meta-data": `instance-id: "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f"
local-hostname: "cust-host"
public-keys:
  - "ssh-rsa AAAA test@x"
`,
		"user-data":   "hello user data",
		"vendor-data": "#cloud-config\n{}\n",
		"network-config": `version: 2
ethernets:
  "net0":
    match:
      macaddress: "aa:bb:cc:dd:ee:01"
    set-name: "net0"
    addresses:
      - "192.168.1.10/24"
    gateway4: "192.168.1.1"
    nameservers:
      addresses:
        - "8.8.8.8"
        - "1.1.1.1"
      search:
        - "local"
    routes:
      - to: "10.2.2.0/24"
        via: "10.2.1.1"
        on-link: true
      - to: "10.3.0.0/16"
        via: "192.168.1.10"
      - to: "10.4.0.0/16"
        via: "192.168.1.10"
`,
	} {
		got, ok := render.NoCloud(v, name)
		if !ok {
			t.Errorf("no %s", name)
		}
		vmtest.Diff(t, name, got, want)
	}
	if _, ok := render.NoCloud(v, "x"); ok {
		t.Error("a file x")
	}
	for _, name := range render.NoCloudNames(v) {
		if _, ok := render.NoCloud(v, name); !ok {
			t.Errorf("%s is listed and not there", name)
		}
	}
}

func TestNoCloudKeys(t *testing.T) {
	for _, c := range []struct{ members, file, want string }{
		{``, "meta-data", "instance-id: \"" + vmtest.UUID + "\"\nlocal-hostname: \"" + vmtest.UUID + "\"\n"},
		{`"alias":"a0"`, "meta-data", "instance-id: \"" + vmtest.UUID + "\"\nlocal-hostname: \"a0\"\n"},
		{`"hostname":"h0","alias":"a0"`, "meta-data", "instance-id: \"" + vmtest.UUID + "\"\nlocal-hostname: \"h0\"\n"},
		{
			`"customer_metadata":{"hostname":"a\"\nb: c","root_authorized_keys":"# mine\none\n\n two \r\n  #three\n"}`, "meta-data",
			"instance-id: \"" + vmtest.UUID + "\"\nlocal-hostname: \"a\\\"\\u000ab: c\"\npublic-keys:\n  - \"one\"\n  - \"two\"\n",
		},
		{
			`"customer_metadata":{"hostname":"` + "\u0085\u2028é\U0001f600\U000e0001" + `"}`, "meta-data",
			"instance-id: \"" + vmtest.UUID + "\"\nlocal-hostname: \"\\u0085\\u2028é\U0001f600\\U000e0001\"\n",
		},
		{``, "user-data", "#cloud-config\n{}\n"},
		{`"customer_metadata":{"user-data":"u","cloud-init:user-data":"c"}`, "user-data", "c"},
		{`"customer_metadata":{"user-data":"u","cloud-init:user-data":""}`, "user-data", "u"},
		{`"customer_metadata":{"cloud-init:user-data":"c"},"internal_metadata":{"cloud-init:user-data":"i"},"internal_metadata_namespaces":["cloud-init"]`, "user-data", "i"},
		{`"customer_metadata":{"cloud-init:vendor-data":"v","vendor-data":"w"}`, "vendor-data", "#cloud-config\n{}\n"},
		{`"internal_metadata":{"vendor-data":"w"}`, "vendor-data", "w"},
		{`"internal_metadata":{"cloud-init:vendor-data":"v","vendor-data":"w"}`, "vendor-data", "v"},
		{`"customer_metadata":{"cloud-init:network-config":"n"},"nics":[{}]`, "network-config", "n"},
		{``, "network-config", ""},
		{`"nics":[]`, "network-config", ""},
	} {
		got, _ := render.NoCloud(vmtest.Small(t, vmtest.NewStamp(), c.members), c.file)
		vmtest.Diff(t, c.members+" "+c.file, got, c.want)
	}
}

// TestNoCloudBinary: user data may be compressed.
func TestNoCloudBinary(t *testing.T) {
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, "").Edit()
	vmtest.Put(t, e, st, "user-data", "\x1f\x8b\x00")
	if got, _ := render.NoCloud(e.VM(), "user-data"); got != "\x1f\x8b\x00" {
		t.Errorf("%q", got)
	}
}

// TestNoNetworkConfig: without NICs there is no file, unless somebody wrote one.
func TestNoNetworkConfig(t *testing.T) {
	for members, there := range map[string]bool{
		``: false, `"nics":[]`: false, `"nics":[{}]`: true, `"customer_metadata":{"cloud-init:network-config":"n"}`: true,
	} {
		v := vmtest.Small(t, vmtest.NewStamp(), members)
		_, ok := render.NoCloud(v, "network-config")
		if listed := slices.Contains(render.NoCloudNames(v), "network-config"); ok != there || listed != there {
			t.Errorf("%s: is there: %v, listed: %v", members, ok, listed)
		}
	}
}

func TestNetworkConfig(t *testing.T) {
	v := vmtest.Small(t, vmtest.NewStamp(), `"nics":[{"mac":"2:8:20:A:b:c","ips":["dhcp","addrconf"],"mtu":"1400"},`+
		`{"interface":"net1","mac":"02:08:20:00:00:02","ip":"10.1.0.5","netmask":"255.255.0.0","gateway":"10.1.0.1","primary":1,"mtu":9000},`+
		`{"interface":"net2","ips":["10.2.0.5/24","fd00::5/64"],"gateways":["10.2.0.1"]},{"ip":"dhcp","gateway":"fd00::1"}],`+
		`"routes":{"10.9.0.0/16":"10.2.0.9","fd01::/64":"fd00::9","10.8.0.0/16":"nics[1]","10.7.0.0/16":"10.99.0.1","bad":"x",`+
		`"10.6.0.0/16":"macs[02:08:20:00:00:02]","fd06::/16":"nics[2]","fd07::/16":"nics[1]","10.5.0.0/16":"nics[0]","10.4.0.0/16":"nics[9]"}`)
	got, _ := render.NoCloud(v, "network-config")
	vmtest.Diff(t, "network-config", got, `version: 2
ethernets:
  "eth0":
    match:
      macaddress: "02:08:20:0a:0b:0c"
    mtu: 1400
    dhcp4: true
    dhcp6: true
  "net1":
    match:
      macaddress: "02:08:20:00:00:02"
    set-name: "net1"
    mtu: 9000
    addresses:
      - "10.1.0.5/16"
    gateway4: "10.1.0.1"
    routes:
      - to: "10.8.0.0/16"
        via: "10.1.0.5"
      - to: "10.7.0.0/16"
        via: "10.99.0.1"
        on-link: true
      - to: "10.6.0.0/16"
        via: "10.1.0.5"
  "net2":
    addresses:
      - "10.2.0.5/24"
      - "fd00::5/64"
    routes:
      - to: "10.9.0.0/16"
        via: "10.2.0.9"
      - to: "fd01::/64"
        via: "fd00::9"
      - to: "fd06::/16"
        via: "fd00::5"
  "eth3":
    dhcp4: true
`)
}

// TestDefaultRoutes: of the primary NIC, one of each family.
func TestDefaultRoutes(t *testing.T) {
	for _, c := range []struct{ nic, want string }{
		{`"ips":["10.0.0.5/24","fd00::5/64"],"gateways":["fd00::1","10.0.0.1","10.0.0.2"]`, `
    gateway4: "10.0.0.1"
    gateway6: "fd00::1"
`},
		{`"ips":["203.0.113.5/32","2001:db8::5/128"],"gateways":["198.51.100.1","2001:db8:1::1"]`, `
    routes:
      - to: "0.0.0.0/0"
        via: "198.51.100.1"
        on-link: true
      - to: "::/0"
        via: "2001:db8:1::1"
        on-link: true
`},
		{`"ips":["fd00::5/64"],"gateways":["fe80::1"]`, `
    gateway6: "fe80::1"
`},
		{`"ip":"10.0.0.5","netmask":"255.255.255.0","gateway":"10.0.0.1"`, `
    gateway4: "10.0.0.1"
`},
		{`"ips":["dhcp"],"gateways":["10.0.0.1"]`, "\n"},
		{`"ips":["10.0.0.5/24"],"gateways":["fd00::1","x"]`, "\n"},
	} {
		got, _ := render.NoCloud(vmtest.Small(t, vmtest.NewStamp(), `"nics":[{`+c.nic+`}]`), "network-config")
		_, got, _ = strings.Cut(got, `"eth0":`)
		lines := slices.DeleteFunc(strings.SplitAfter(got, "\n"), func(l string) bool {
			return strings.HasPrefix(l, "    addresses") || strings.HasPrefix(l, "      - \"") || strings.HasPrefix(l, "    dhcp4")
		})
		vmtest.Diff(t, c.nic, strings.Join(lines, ""), c.want)
	}
}
