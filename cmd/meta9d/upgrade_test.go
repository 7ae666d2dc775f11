package main

import (
	"os"
	"strings"
	"testing"
)

// TestRefusedUpgrade: once the end has begun no program takes over, also none that was to.
func TestRefusedUpgrade(t *testing.T) {
	program := func() *os.File {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	d := &daemon{upgrades: newUpgrades()}
	u := d.upgrades
	if err := u.begin(program()); err != nil || !d.leaves() {
		t.Fatalf("it does not begin: %v", err)
	}
	u.refuse("the end")
	if s := d.upgradeStatus(); d.leaves() || !strings.Contains(s, "upgrades_failed 1\n") || !strings.Contains(s, "upgrade_error the end\n") {
		t.Errorf("leaves: %t, %q", d.leaves(), s)
	}
	f := program()
	if err := u.begin(f); err == nil || d.leaves() || f.Close() == nil {
		t.Errorf("begun after the end: %v", err)
	}
}
