package main

import (
	"os"
	"reflect"
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

// TestSettingsOfBefore: who goes on after a live update that has failed has its own
// settings, whatever the file says now.
func TestSettingsOfBefore(t *testing.T) {
	c := command{config: defaults(), file: "/nowhere.toml"}
	c.config.Data, c.config.Trace, c.config.Listen = t.TempDir(), true, []string{"tcp:127.0.0.1:0"}
	c.config.Sockets.Enabled = false // what is false by choice, and true by default
	c.config.LogLevel = "error"
	f, err := settingsFile(&c.config)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := &handover{Settings: int(f.Fd()), Tally: tally{Error: "it failed"}}
	got, err := h.settings(command{config: defaults(), file: c.file})
	if err != nil {
		t.Fatal(err)
	}
	if d := differences("", reflect.ValueOf(c.config), reflect.ValueOf(got.config)); len(d) > 0 {
		t.Errorf("these are others: %v", d)
	}
	h.Tally.Error = ""
	if _, err := h.settings(c); err == nil {
		t.Error("the next program does not read the file")
	}
}
