package payload_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
	"pgregory.net/rapid"
)

// member draws `,"name":VALUE`, or nothing.
func member(t *rapid.T, name string, values ...string) string {
	v := rapid.SampledFrom(append(values, "", "")).Draw(t, name)
	if v == "" {
		return ""
	}
	return fmt.Sprintf(`,%q:%s`, name, v)
}

// drawNIC draws the members of a NIC, right and wrong ones, without its mac.
func drawNIC(t *rapid.T) string {
	return member(t, "ip", `"10.0.0.5"`, `"10.1.2.3"`, `"dhcp"`, `null`, `"x"`) +
		member(t, "netmask", `"255.255.255.0"`, `"255.0.0.0"`, `null`, `"1.2.3.4"`) +
		member(t, "ips", `["10.2.0.5/16"]`, `"dhcp,addrconf"`, `["fd00::5/64","10.3.0.5/8"]`, `[]`, `null`, `["addrconf"]`) +
		member(t, "gateway", `"10.0.0.1"`, `"fd00::1"`, `null`, `"x"`) +
		member(t, "gateways", `["10.0.0.2","10.0.0.3"]`, `"fd00::2"`, `null`, `[]`) +
		member(t, "primary", `true`, `"1"`, `false`, `0`, `null`) +
		member(t, "interface", `"net0"`, `"net1"`, `"eth5"`, `null`) +
		member(t, "mtu", `1400`, `"9000"`, `null`)
}

// drawMAC draws one of few, so that NICs meet.
func drawMAC(t *rapid.T) string {
	return fmt.Sprintf("02:00:00:00:00:%02x", rapid.IntRange(1, 3).Draw(t, "mac"))
}

func drawNICs(t *rapid.T, named bool) string {
	var list []string
	for range rapid.IntRange(0, 3).Draw(t, "nics") {
		mac := `"x":1`
		if named || rapid.Bool().Draw(t, "named") {
			mac = fmt.Sprintf(`"mac":%q`, drawMAC(t))
		}
		list = append(list, "{"+mac+drawNIC(t)+"}")
	}
	return "[" + strings.Join(list, ",") + "]"
}

// checkNICs checks what must be true of the NICs of every VM.
func checkNICs(t *rapid.T, v *vm.VM) {
	nics, _ := v.Prop(vm.PropNICs)
	macs, names, primaries := map[string]bool{}, map[string]bool{}, 0
	for i, nic := range nics.Items {
		m := nic.Members
		mac, name := m.Text("mac"), m.Text("interface")
		if mac == "" || macs[mac] || name == "" || names[name] {
			t.Fatalf("NIC %d: mac %q or interface %q is missing or there twice", i, mac, name)
		}
		macs[mac], names[name] = true, true
		if p, there := m.Get("primary"); there {
			if p.Kind != ordjson.True {
				t.Fatalf("NIC %d: primary is %s", i, p.AppendJSON(nil))
			}
			primaries++
		}
		ips, ok := m.Get("ips")
		if !ok || ips.Kind != ordjson.Array {
			t.Fatalf("NIC %d has no ips", i)
		}
		ip, mask := m.Text("ip"), m.Text("netmask")
		switch {
		case ip == "dhcp" || ip == "":
			if mask != "" {
				t.Fatalf("NIC %d: ip %q has the netmask %s", i, ip, mask)
			}
			four := func(s string) bool { p, err := netip.ParsePrefix(s); return err == nil && p.Addr().Is4() }
			for _, s := range ips.Texts() {
				if ip == "" && (four(s) || s == "dhcp") {
					t.Fatalf("NIC %d has no ip, and %s in ips", i, s)
				}
			}
		default:
			found := false
			for _, s := range ips.Texts() {
				p, err := netip.ParsePrefix(s)
				found = found || err == nil && p.Addr().String() == ip
			}
			if !found || mask == "" {
				t.Fatalf("NIC %d: ip %s, netmask %q, ips %v", i, ip, mask, ips.Texts())
			}
		}
		list, _ := m.Get("gateways")
		if gateways := list.Texts(); len(gateways) > 0 != (m.Text("gateway") != "") || len(gateways) > 0 && gateways[0] != m.Text("gateway") {
			t.Fatalf("NIC %d: gateway %q, gateways %v", i, m.Text("gateway"), gateways)
		}
	}
	if len(nics.Items) > 0 && primaries != 1 {
		t.Fatalf("%d primary NICs", primaries)
	}
}

// TestNICModel: whatever payloads and updates say, what comes of them that is taken
// is a VM whose NICs are whole, and that another create makes again.
func TestNICModel(t *testing.T) {
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		st := vmtest.NewStamp()
		v, _, err := payload.Create([]byte(`{"uuid":"`+vmtest.UUID+`","nics":`+drawNICs(t, false)+`}`), st, vm.DefaultLimits)
		if err != nil {
			return
		}
		checkNICs(t, v)
		for range 4 {
			patch := "{" + rapid.SampledFrom([]string{
				`"update_nics":` + drawNICs(t, true), `"add_nics":` + drawNICs(t, false), `"nics":` + drawNICs(t, false),
				fmt.Sprintf(`"remove_nics":[%q]`, drawMAC(t)), `"alias":"x"`,
			}).Draw(t, "patch") + "}"
			e := v.Edit()
			if err := payload.Update(e, []byte(patch), st, vm.DefaultLimits); err != nil {
				continue
			}
			taken++
			v = e.VM()
			checkNICs(t, v)
		}
		again, _, err := payload.Create([]byte(vmtest.Whole(v)), vmtest.NewStamp(), vm.DefaultLimits)
		if err != nil || vmtest.Whole(again) != vmtest.Whole(v) {
			t.Fatalf("%s made %v, %v", vmtest.Whole(v), again, err)
		}
	})
	want := 20
	if testing.Short() { // a fifth of the payloads
		want = 4
	}
	if taken < want {
		t.Errorf("only %d updates were taken", taken)
	}
}
