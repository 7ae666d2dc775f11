package payload_test

import (
	"encoding/json"
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
)

// nic is a NIC as it is stored, with its addresses and gateway in both spellings.
func nic(n, rest string) string {
	return `{"mac":"02:00:00:00:00:0` + n + `","interface":"net` + n + `"` + rest + `}`
}

// TestNICs: what becomes of the NICs of a payload.
func TestNICs(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{
			`{"mac":"02:00:00:00:00:00","ip":"10.0.0.5","netmask":"255.255.255.0","gateway":"10.0.0.1"}`,
			`{"mac":"02:00:00:00:00:00","ip":"10.0.0.5","netmask":"255.255.255.0","gateway":"10.0.0.1","ips":["10.0.0.5/24"],"gateways":["10.0.0.1"],"interface":"net0","primary":true}`,
		},
		{
			nic("0", `,"ips":["2001:db8::5/64","10.0.0.5/8"],"gateways":["2001:db8::1","10.0.0.1"]`),
			nic("0", `,"ips":["2001:db8::5/64","10.0.0.5/8"],"gateways":["2001:db8::1","10.0.0.1"],"ip":"10.0.0.5","netmask":"255.0.0.0","gateway":"2001:db8::1","primary":true`),
		},
		{nic("0", `,"ip":"dhcp"`), nic("0", `,"ip":"dhcp","ips":["dhcp"],"primary":true`)},
		{nic("0", `,"ip":"addrconf"`), nic("0", `,"ips":["addrconf"],"primary":true`)},
		{
			nic("0", `,"ips":["addrconf","dhcp"],"ip":"","gateways":"10.0.0.1,10.0.0.2"`),
			nic("0", `,"ips":["addrconf","dhcp"],"gateways":["10.0.0.1","10.0.0.2"],"ip":"dhcp","gateway":"10.0.0.1","primary":true`),
		},
		// ips and gateways win, as for vmadm.
		{
			nic("0", `,"ips":["10.0.0.5/24"],"ip":"10.9.9.9","netmask":"255.255.0.0","gateways":["10.0.0.1"],"gateway":"10.9.9.1"`),
			nic("0", `,"ips":["10.0.0.5/24"],"ip":"10.0.0.5","netmask":"255.255.255.0","gateways":["10.0.0.1"],"gateway":"10.0.0.1","primary":true`),
		},
		{nic("0", `,"ips":["2001:db8::5/64"],"ip":"10.9.9.9","netmask":"255.255.0.0"`), nic("0", `,"ips":["2001:db8::5/64"],"primary":true`)},
		{nic("0", `,"ip":"10.0.0.5","netmask":"255.255.255.255"`), nic("0", `,"ip":"10.0.0.5","netmask":"255.255.255.255","ips":["10.0.0.5/32"],"primary":true`)},
		{nic("0", `,"ip":"10.0.0.5","netmask":"0.0.0.0"`), nic("0", `,"ip":"10.0.0.5","netmask":"0.0.0.0","ips":["10.0.0.5/0"],"primary":true`)},
		{nic("0", ``), nic("0", `,"ips":[],"primary":true`)},
		// One is primary, and only that says so.
		{nic("0", `,"ips":[],"primary":false`) + "," + nic("1", `,"ips":[],"primary":"1"`), nic("0", `,"ips":[]`) + "," + nic("1", `,"ips":[],"primary":true`)},
		{nic("0", `,"ips":[],"primary":"false"`) + "," + nic("1", `,"ips":[]`), nic("0", `,"ips":[],"primary":true`) + "," + nic("1", `,"ips":[]`)},
		// Names go round those that are taken.
		{
			`{"mac":"02:00:00:00:00:00","ips":[]},` + nic("0", "")[:0] + `{"mac":"2:0:0:0:0:1","ips":[],"interface":"net0"},{"mac":"02:00:00:00:00:02","ips":[]}`,
			`{"mac":"02:00:00:00:00:00","ips":[],"interface":"net1","primary":true},{"mac":"2:0:0:0:0:1","ips":[],"interface":"net0"},{"mac":"02:00:00:00:00:02","ips":[],"interface":"net2"}`,
		},
		{nic("0", `,"mtu":"1400","vlan_id":"7","allow_ip_spoofing":"1","x":"","nic_tag":""`), nic("0", `,"mtu":1400,"vlan_id":7,"allow_ip_spoofing":true,"x":"","ips":[],"primary":true`)},
	} {
		got, err := made(`"nics":[` + c.in + `]`)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		vmtest.Diff(t, c.in, got, `"nics":[`+c.want+`]`)
	}
}

func TestNICsRefused(t *testing.T) {
	for _, c := range []struct{ in, text string }{
		{`{"ip":"10.0.0.5","netmask":"255.0.255.0"}`, `nics.0.netmask: must be a netmask such as 255.255.255.0, not "255.0.255.0"`},
		{`{"ips":["dhcp"],"netmask":"x"}`, "nics.0.netmask: must be a netmask"},
		{`{},{"ip":"10.0.0.5"}`, `nics.1.netmask: missing for ip 10.0.0.5 (or give ips: ["10.0.0.5/24"])`},
		{`{"ip":"10.0.0.5/24"}`, "nics.0.ip: must be an IPv4 address, dhcp or addrconf"},
		{`{"ip":"fe80::5","netmask":"255.255.255.0"}`, "(ips takes IPv6)"},
		{`{"ips":["10.0.0.5"]}`, "nics.0.ips.0: must be an address with its prefix length such as 10.0.0.5/24"},
		{`{"ips":["dhcp",5]}`, "nics.0.ips.1: must be an address"},
		{`{"ips":[{}]}`, "nics.0.ips: must be an array of strings, numbers and booleans"},
		{`{"gateway":"10.0.0.0/8"}`, "nics.0.gateway: must be an IP address"},
		{`{"gateways":["10.0.0.1","x"]}`, "nics.0.gateway: must be an IP address"},
		{`{"mtu":575}`, "nics.0.mtu: must be an integer from 576 to 9000, not 575"},
		{`{"mtu":1500.5}`, "nics.0.mtu: "},
		{`{"vlan_id":4096}`, "nics.0.vlan_id: "},
		{`{"network_uuid":"x"}`, "nics.0.network_uuid: must be a UUID"},
		{`{"primary":"yes"}`, "nics.0.primary: must be true or false"},
		{`{"primary":true},{"primary":1}`, "nics.1.primary: only one NIC can be primary"},
		{`{"interface":"net0"},{"interface":"net0"}`, `nics.1.interface: "net0" is there twice`},
		{`{"mac":"02:00:00:00:00:01"},{"mac":"02:00:00:00:00:01"}`, `nics.1.mac: "02:00:00:00:00:01" is there twice`},
	} {
		_, err := made(`"nics":[` + c.in + `]`)
		vmtest.WantError(t, err, errs.Invalid, c.text)
	}
}

// TestMAC: addresses are local and unicast, other ones for each NIC and VM, and the
// same for the same payload.
func TestMAC(t *testing.T) {
	const uuids = 200
	seen := map[string]bool{}
	for i := range uuids {
		text := []byte(`{"uuid":"` + vmtest.UUID[:33] + string([]byte{'0' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10)}) + `","nics":[{},{},{}]}`)
		v, _, err := payload.Create(text, vmtest.NewStamp(), vm.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		again, _, _ := payload.Create(text, vmtest.NewStamp(), vm.DefaultLimits)
		vmtest.Diff(t, "once more", vmtest.Whole(again), vmtest.Whole(v))
		nics, _ := v.Prop(vm.PropNICs)
		for _, nic := range nics.Items {
			mac := nic.Members.Text("mac")
			if len(mac) != 17 || !strings.Contains("26ae", mac[1:2]) || seen[mac] {
				t.Errorf("%q: not local and unicast, or not new", mac)
			}
			seen[mac] = true
		}
	}
	if len(seen) != 3*uuids {
		t.Errorf("%d addresses", len(seen))
	}
}

// TestUpdateNICs: each row is an update of two NICs.
func TestUpdateNICs(t *testing.T) {
	const (
		ips0 = `,"ips":["10.0.0.5/24"],"ip":"10.0.0.5","netmask":"255.255.255.0","gateways":["10.0.0.1"],"gateway":"10.0.0.1"`
		ips1 = `,"ips":["10.1.0.5/24","fd00::5/64"],"ip":"10.1.0.5","netmask":"255.255.255.0"`
		mac0 = `"mac":"02:00:00:00:00:00"`
		mac1 = `"mac":"02:00:00:00:00:01"`
		yes  = `,"primary":true`
	)
	before := `"nics":[` + nic("0", ips0+yes) + "," + nic("1", ips1) + `]`
	for _, c := range []struct{ patch, nic0, nic1, more string }{
		{
			`"update_nics":[{` + mac0 + `,"ip":"10.0.0.6"}]`,
			`,"ips":["10.0.0.6/24"],"ip":"10.0.0.6","netmask":"255.255.255.0","gateways":["10.0.0.1"],"gateway":"10.0.0.1"` + yes, ips1, ``,
		},
		{
			`"update_nics":[{` + mac0 + `,"netmask":"255.255.0.0"}]`,
			`,"ips":["10.0.0.5/16"],"ip":"10.0.0.5","netmask":"255.255.0.0","gateways":["10.0.0.1"],"gateway":"10.0.0.1"` + yes, ips1, ``,
		},
		{`"update_nics":[{` + mac0 + `,"ip":"dhcp","gateway":null}]`, `,"ips":["dhcp"],"ip":"dhcp"` + yes, ips1, ``},
		{
			`"update_nics":[{` + mac0 + `,"ips":"fd00::6/64,10.0.0.7/25","gateways":["fd00::1"]}]`,
			`,"ips":["fd00::6/64","10.0.0.7/25"],"ip":"10.0.0.7","netmask":"255.255.255.128","gateways":["fd00::1"],"gateway":"fd00::1"` + yes, ips1, ``,
		},
		{
			`"update_nics":[{` + mac0 + `,"gateway":"10.0.0.2"}]`,
			`,"ips":["10.0.0.5/24"],"ip":"10.0.0.5","netmask":"255.255.255.0","gateways":["10.0.0.2"],"gateway":"10.0.0.2"` + yes, ips1, ``,
		},
		{`"update_nics":[{` + mac0 + `,"ips":null,"gateways":[]},{` + mac1 + `,"ip":null}]`, `,"ips":[]` + yes, `,"ips":[]`, ``},
		{`"update_nics":[{` + mac1 + `,"ip":"10.1.0.6","netmask":"255.0.0.0"}]`, ips0 + yes, `,"ips":["10.1.0.6/8"],"ip":"10.1.0.6","netmask":"255.0.0.0"`, ``},
		{`"update_nics":[{` + mac1 + `,"primary":"true"}]`, ips0, ips1 + yes, ``},
		{`"update_nics":[{` + mac0 + `,"primary":false}]`, ips0 + yes, ips1, ``},
		{`"update_nics":[{` + mac0 + `,"primary":true}]`, ips0 + yes, ips1, ``},
		{
			`"add_nics":[{"mac":"02:00:00:00:00:02","ip":"10.2.0.5","netmask":"255.255.0.0","primary":1}]`,
			ips0, ips1, `,{"mac":"02:00:00:00:00:02","ip":"10.2.0.5","netmask":"255.255.0.0","primary":true,"ips":["10.2.0.5/16"],"interface":"net2"}`,
		},
		{`"remove_nics":["02:00:00:00:00:00"],"add_nics":[{"mac":"02:00:00:00:00:00","interface":"net0"}]`, `-`, ips1 + yes, `,` + nic("0", `,"ips":[]`)},
		{`"remove_nics":"02:00:00:00:00:00"`, `-`, ips1 + yes, ``},
		{`"alias":"x"`, ips0 + yes, ips1, ``},
	} {
		st := vmtest.NewStamp()
		e := vmtest.Small(t, st, before).Edit()
		if err := payload.Update(e, []byte(`{`+c.patch+`}`), st, vm.DefaultLimits); err != nil {
			t.Errorf("%s: %v", c.patch, err)
			continue
		}
		nics, _ := e.VM().Prop(vm.PropNICs)
		want := `[` + nic("0", c.nic0) + "," + nic("1", c.nic1) + c.more + `]`
		if c.nic0 == "-" {
			want = `[` + nic("1", c.nic1) + c.more + `]`
		}
		vmtest.Diff(t, c.patch, sorted(t, nics.AppendJSON(nil)), sorted(t, []byte(want)))
		after := e.VM()
		if err := payload.Update(e, []byte(`{`+c.patch+`}`), st, vm.DefaultLimits); err == nil && e.VM() != after && !strings.Contains(c.patch, "remove") {
			t.Errorf("%s: done again it changed %s", c.patch, vmtest.Whole(e.VM()))
		}
	}
	for _, c := range []struct{ patch, text string }{
		{`"update_nics":[{` + mac1 + `,"ip":"10.1.0.6"}]`, `update_nics.0.ips: has ["10.1.0.5/24","fd00::5/64"]: an ip or a netmask alone can change a single IPv4 address only`},
		{`"update_nics":[{` + mac0 + `,"netmask":"1.2.3.4"}]`, "update_nics.0.netmask: must be a netmask"},
		{`"update_nics":[{"ip":"10.1.0.6"}]`, "update_nics: mac: missing"},
		{`"update_nics":[{` + mac0 + `,"primary":true},{` + mac1 + `,"primary":true}]`, "only one NIC can be primary"},
		{`"update_nics":[{` + mac1 + `,"primary":true}],"add_nics":[{"primary":true}]`, "only one NIC can be primary"},
		{`"update_nics":[{` + mac1 + `,"interface":"net0"}]`, `interface: "net0" is there twice`},
		{`"add_nics":[{"ip":"10.2.0.5"}]`, "add_nics.0.netmask: missing for ip 10.2.0.5"},
		{`"update_nics":[{` + mac0 + `,"mtu":"big"}]`, "update_nics.0.mtu: must be an integer"},
	} {
		st := vmtest.NewStamp()
		e := vmtest.Small(t, st, before).Edit()
		vmtest.WantError(t, payload.Update(e, []byte(`{`+c.patch+`}`), st, vm.DefaultLimits), errs.Invalid, c.text)
	}
}

// TestUpdateOfOldNICs: what an update does not name stays as an older version wrote
// it, whatever the rules are now; what it names is made whole.
func TestUpdateOfOldNICs(t *testing.T) {
	const old = `"nics":[{"mac":"02:00:00:00:00:00","ip":"10.0.0.5"},{"ip":"10.1.0.5","netmask":"255.255.255.0","primary":1}],"routes":{"x":"y"},"ram":"lots"`
	st := vmtest.NewStamp()
	e := vmtest.Small(t, st, strings.Replace(old, `"lots"`, `"1024"`, 1)).Edit()
	v := e.VM()
	v.Props[v.Props.Index("ram")].Value.Text = "lots" // no rule let this in
	if err := payload.Update(e, []byte(`{"alias":"x"}`), st, vm.DefaultLimits); err != nil {
		t.Fatal(err)
	}
	vmtest.Diff(t, "alias", vmtest.Whole(e.VM()), `{"uuid":"`+vmtest.UUID+`",`+old+`,"alias":"x"}`)
	if err := payload.Update(e, []byte(`{"update_nics":[{"mac":"02:00:00:00:00:00","ip":"10.0.0.6"}]}`), st, vm.DefaultLimits); err == nil {
		t.Error("an address without a netmask was taken for good")
	}
	if err := payload.Update(e, []byte(`{"update_nics":[{"mac":"02:00:00:00:00:00","mtu":1400}]}`), st, vm.DefaultLimits); err != nil {
		t.Error(err)
	}
	if err := payload.Update(e, []byte(`{"update_nics":[{"mac":"02:00:00:00:00:00","netmask":"255.255.255.0"}],"set_routes":{"10.0.0.0/8":"10.0.0.1"}}`), st, vm.DefaultLimits); err != nil {
		t.Fatal(err)
	}
	nics, _ := e.VM().Prop(vm.PropNICs)
	want := `[{"mac":"02:00:00:00:00:00","ip":"10.0.0.5","mtu":1400,"interface":"net0","netmask":"255.255.255.0","ips":["10.0.0.5/24"]},` +
		`{"ip":"10.1.0.5","netmask":"255.255.255.0","primary":true,"ips":["10.1.0.5/24"],"mac":"MAC","interface":"net1"}]`
	want = strings.Replace(want, "MAC", nics.Items[1].Members.Text("mac"), 1)
	vmtest.Diff(t, "nics", string(nics.AppendJSON(nil)), want)
}

// sorted is JSON with the members of objects in order of their names.
func sorted(t *testing.T, b []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
