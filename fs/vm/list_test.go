package vm

import "testing"

func TestCanonical(t *testing.T) {
	for id, want := range map[string]string{
		"02:08:20:AA:bb:0C": "02:08:20:aa:bb:0c", "2:8:20:aa:BB:c": "02:08:20:aa:bb:0c", "": "", "2": "02", "::": "::",
	} {
		if got := NICs.Canonical(id); got != want {
			t.Errorf("the MAC %q is %q, not %q", id, got, want)
		}
	}
	if got := Disks.Canonical("/A:b"); got != "/A:b" {
		t.Errorf("a disk's path is %q", got)
	}
}
