package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"meta9/descriptors"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// facts are the lines of /ctl by which `meta9 doctor` finds the process, its folders and
// what only the daemon knows.
func (d *daemon) facts() string {
	var b strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&b, "%s %v\n", name, value) }
	line("pid", os.Getpid())
	line("run", absolute(d.cfg.Run))
	if d.cfg.Data != "" && d.cfg.Cluster.off() {
		line("data", absolute(d.cfg.Data))
	}
	line("vm_sockets", len(d.ownSockets()))
	if limit, err := descriptors.Limit(); err == nil {
		line("descriptors_limit", limit)
	}
	line("descriptors_needed", d.needs().sum())
	if until, ok := d.certified(); ok {
		line("tls_until", until.UTC().Format(time.RFC3339))
	}
	if n, one := d.shortSecrets(); n > 0 {
		line("mumble_secrets_short", n)
		line("mumble_secret_short_vm", one)
	}
	if d.hosts != nil {
		st := d.hosts.Stats()
		line("qemus", st.Connected)
		line("qemus_unresponsive", st.Unresponsive)
		if st.Silent != "" {
			line("qemu_unresponsive_socket", unbroken(st.Silent))
		}
	}
	return b.String()
}

// absolute is a folder for a reader in another one.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return unbroken(dir)
}

// unbroken is a path without line breaks: what follows one would be another line of ctl.
func unbroken(path string) string { return strings.ReplaceAll(path, "\n", "?") }

// certified is how long the certificate of the tls listeners holds.
func (d *daemon) certified() (until time.Time, ok bool) {
	conf := d.certs.Load()
	if conf == nil || len(conf.Certificates) == 0 || conf.Certificates[0].Leaf == nil {
		return until, false
	}
	return conf.Certificates[0].Leaf.NotAfter, true
}

// shortSecrets counts the VMs whose own MUMBLE secret is too short to sign anything; one
// of them is named.
func (d *daemon) shortSecrets() (n int, one string) {
	if d.cfg.Mumble.off() {
		return 0, ""
	}
	d.store.Cells(0, func(c *store.Cell) bool {
		if v := c.VM(); v != nil {
			if e := v.Get(vm.Internal, secretKey); e != nil && len(e.Value) < minSecret {
				n, one = n+1, v.UUID
			}
		}
		return true
	})
	return n, one
}
