package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"meta9/session/listen/certtest"
	"meta9/tests/daemon"
)

// certificate makes one that is its own authority, in a file with its key, for 127.0.0.1.
func certificate(t *testing.T, dir, name string) (file string) {
	t.Helper()
	file = filepath.Join(dir, name+".pem")
	certtest.Write(t, certtest.Make(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: certtest.Local}), file, file)
	return file
}

// TestElsewhere: the command line at a host that has not the VM says which one has it, and goes
// there where it has a certificate.
func TestElsewhere(t *testing.T) {
	dir := folder(t)
	e := started(t, dir)
	settings := e.settingsOf(t, dir) + "ttl = \"1m\"\n"
	pem := certificate(t, dir, "fleet-admin")
	addrs, err := daemon.FreeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	addr := "tls:" + addrs[0]
	a := &proc{t: t, run: filepath.Join(dir, "a"), gone: make(chan struct{})}
	file := filepath.Join(dir, "a.toml")
	text := fmt.Sprintf("data = \"\"\nrun = %q\nlisten = [%q]\n[tls]\ncert = %q\nkey = %[3]q\nca = %[3]q\nadmin = \"fleet-admin\"\n[cluster]\nhost = \"a\"\n%s", a.run, addr, pem, settings)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a.start(file, dir)
	b := begin(t, dir, "b", settings)
	for _, h := range []*proc{a, b} {
		h.until("fleet_etcd ok", "cat", "/ctl")
	}
	a.create(`{"uuid":"` + vm + `","alias":"web0","customer_metadata":{"motd":"hello"}}`)
	for _, args := range [][]string{
		{"cat", "/names/web0/keys/motd"},
		{"cat", "vms/" + vm + "/keys/motd"},
		{"put", "names/web0/keys/motd", "x"},
		{"ls", "/vms/" + vm + "/keys"},
		{"stat", "/names/web0"},
		{"rm", "/names/web0/keys/motd"},
		{"vm", "get", vm},
		{"vm", "get", "web0"},
		{"vm", "update", "web0", "alias=x"},
		{"export", "web0"},
		{"watch", "names/web0"},
		{"watch", "vms/" + vm + "/events"},
		{"vm", "events", "web0"},
		{"vm", "events", vm},
		{"nocloud-image", "web0", filepath.Join(dir, "seed")},
	} {
		out, err := b.meta9(args...)
		if err == nil || !strings.Contains(out, `VM `+vm+` is at the host "a"`) || !strings.Contains(out, addr) {
			t.Errorf("meta9 %s says not where the VM is: %v\n%s", args, err, out)
		}
	}
	for _, args := range [][]string{{"cat", "/names/web1/keys/motd"}, {"vm", "get", uuidOf(1)}} {
		if out, err := b.meta9(args...); err == nil || strings.Contains(out, "is at the host") {
			t.Errorf("meta9 %s of a VM that no host has: %v\n%s", args, err, out)
		}
	}
	if out := b.must("fleet", "where", "web0"); !strings.HasPrefix(out, vm+" a ") {
		t.Errorf("fleet where by the alias: %s", out)
	}
	for _, c := range []struct {
		args []string
		says string
	}{{[]string{"expect"}, ": expected\n"}, {[]string{"expect", "--undo"}, ": expected no longer\n"}} {
		if out := b.must(slices.Concat([]string{"fleet"}, c.args, []string{"web0"})...); out != vm+c.says {
			t.Errorf("fleet %s says %s", c.args, out)
		}
	}
	with := []string{"--cert", pem, "--ca", pem}
	b.must(append(with, "put", "names/web0/keys/motd", "from b")...)
	for _, args := range [][]string{{"cat", "/names/web0/keys/motd"}, {"vm", "get", "web0"}, {"cat", "/vms/" + vm + "/keys/motd"}} {
		if out := b.must(append(with, args...)...); !strings.Contains(out, "from b") {
			t.Errorf("meta9 %s: %s", args, out)
		}
	}
	if out, err := a.meta9("cat", "/names/web0/keys/none"); err == nil || strings.Contains(out, "is at the host") {
		t.Errorf("a file that is not there, of a VM that is: %s", out)
	}
	a.must("fleet", "release", "web0")
	if out := b.must("fleet", "where"); out != vm+" -\n" {
		t.Errorf("fleet where of a VM that is nobody's: %s", out)
	}
	if out := b.must("fleet", "where", "-o", "json"); out != "{\n  \"uuid\": \""+vm+"\",\n  \"host\": \"\"\n}\n" {
		t.Errorf("fleet where -o json of a VM that is nobody's: %s", out)
	}
	if out := b.must("fleet", "status"); !strings.Contains(out, "\nclaimable    VMs: 1 that are nobody's (") {
		t.Errorf("fleet status then:\n%s", out)
	}
	if out, err := b.meta9("cat", "/names/web0/keys/motd"); err == nil || !strings.Contains(out, vm+" is no host's") {
		t.Errorf("of a VM that nobody has: %v\n%s", err, out)
	}
	b.must("fleet", "claim", "web0")
	if out := b.must("cat", "/names/web0/keys/motd"); out != "from b" {
		t.Errorf("after the claim: %s", out)
	}
	c := begin(t, dir, "c", settings)
	c.until("fleet_etcd ok", "cat", "/ctl")
	c.stop()
	if out, err := c.meta9("backup", filepath.Join(dir, "copy")); err == nil || !strings.Contains(out, "admin.sock") || strings.Contains(out, "vminfo.sock") {
		t.Errorf("a backup of a meta9d that does not run: %v\n%s", err, out)
	}
	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	out, err := a.meta9("fleet", "claim", vm, "--timeout=5s")
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != 1 || !strings.Contains(out, "the host b was asked for it and has not answered") {
		t.Errorf("a claim of a VM whose host stands still: %v\n%s", err, out)
	}
}
