//go:build !guest

package main

import (
	"strings"
	"testing"
)

// TestMendsHealth: what is to be mended is what ctl's health is about, whatever else is wrong.
func TestMendsHealth(t *testing.T) {
	for health, want := range map[string]string{
		"the disk is broken": "restart meta9d",
		"fleet: VM x is not served, a record of it in etcd is damaged": "from a snapshot of etcd",
	} {
		e := &examination{status: status{{"health", health}, {"fleet_etcd", "ok"}, {"fleet_damaged", "1"}}}
		e.checkDaemon(t.Context())
		if len(e.Findings) == 0 || !strings.Contains(e.Findings[0].Mend, want) {
			t.Errorf("%s: %+v", health, e.Findings)
		}
	}
}
