package main

import (
	"net/netip"
	"testing"
)

func TestPublicAddress(t *testing.T) {
	of := publicAddress(netip.Addr.Is4)
	for nics, want := range map[string]string{
		`[{"ip":"10.0.0.1"},{"ips":["8.8.4.4/24"]}]`: "8.8.4.4",
		`[{"ips":["100.64.0.1/10","100.127.255.255","198.18.0.1","198.19.255.255","192.0.2.1","198.51.100.1","203.0.113.1","0.1.2.3","240.0.0.1","255.255.255.255","169.254.1.1","127.0.0.1"]},{"ip":"9.9.9.9","primary":true}]`: "9.9.9.9",
		`[{"ips":["100.64.0.1/10","198.19.0.1","192.0.2.1"]}]`: "",
		`[{"ips":["100.63.255.255","1.1.1.1"]}]`:               "100.63.255.255",
		`[{"ips":["dhcp"]}]`:                                   "",
	} {
		if got, err := of([]byte(nics)); string(got) != want || err != nil {
			t.Errorf("%s has %q, %v; want %q", nics, got, err, want)
		}
	}
	of = publicAddress(netip.Addr.Is6)
	if got, err := of([]byte(`[{"ips":["fe80::1","fd00::1","2001:db8::1/64","2a01::1/64"]}]`)); string(got) != "2a01::1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
