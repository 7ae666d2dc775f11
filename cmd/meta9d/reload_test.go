package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hup sends SIGHUP, and returns the line of the log that answers it.
func (p *proc) hup() string {
	p.t.Helper()
	before := len(p.log.String())
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for line := range strings.Lines(p.log.String()[before:]) {
			if strings.Contains(line, "reloaded") && strings.HasSuffix(line, "\n") {
				return line
			}
		}
	}
	p.t.Fatalf("nothing says that it was reloaded, or not:\n%s", &p.log)
	return ""
}

// TestReload: what can change does, at once; what cannot is named; flags win, as at the
// start; and settings that cannot be used change nothing.
func TestReload(t *testing.T) {
	dir := shortDir(t)
	file := settings(t, "log_level = \"error\"\ninsecure = true\n")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, dir, "--config", file, "--insecure=false")
	ask := func() { p.connect("meta9-run/admin.sock").get("ctl") }

	write("trace = true\nlog_level = \"debug\"\nlibvirt = \"\"\n[limits]\nvalue = 4096\n[qmp]\nvms = 0\n")
	if line := p.hup(); !strings.Contains(line, `"changed":["log_level","trace"],"want_restart":["libvirt","qmp.vms","limits.value"]`) {
		t.Errorf("after a change: %s", line)
	}
	before := len(p.log.String())
	ask()
	p.logs(before, "Tversion")
	for text, why := range map[string]string{
		"log_level = \"warn\"\n[limits]\nvalues = 1\n":           "unknown: limits.values",
		"log_level = \"warn\"\n[mumble]\nsecret_file = \"/x/y\"": "mumble.secret_file: open /x/y",
		"log_level = ":                           "line 1",
		"admin_group = \"no-such-group\"":        "admin_group: ",
		"[tls]\ncert=\"a\"\nkey=\"b\"\nca=\"c\"": "tls certificate a",
	} {
		write(text)
		if line := p.hup(); !strings.Contains(line, "not reloaded; everything is as it was") || !strings.Contains(line, why) {
			t.Errorf("%q: %s", text, line)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if line := p.hup(); !strings.Contains(line, "not reloaded") {
		t.Error(line)
	}
	before = len(p.log.String())
	ask()
	p.logs(before, "Tversion") // a trace that was on goes on
	write("log_level = \"error\"\n")
	if line := p.hup(); !strings.Contains(line, `"changed":["log_level","trace"],"want_restart":[]`) {
		t.Errorf("after a change: %s", line)
	}
	before = len(p.log.String())
	ask()
	if now := p.log.String()[before:]; now != "" {
		t.Errorf("it says %s", now)
	}
	if code, log := p.stop(); code != 0 {
		t.Errorf("exit %d, log:\n%s", code, log)
	}
}

// TestReloadCertificate: a new certificate is shown to who connects after the reload.
func TestReloadCertificate(t *testing.T) {
	dir := shortDir(t)
	cert, key := selfSigned(t, dir, vmUUID)
	config := settings(t, "[tls]\ncert = \""+cert+"\"\nkey = \""+key+"\"\nca = \""+cert+"\"\n")
	p := start(t, dir, "--listen", "tls:127.0.0.1:0", "--config", config)
	shown := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", p.listener("tls:"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String() + c.ConnectionState().PeerCertificates[0].NotAfter.String() + string(c.ConnectionState().PeerCertificates[0].Signature)
	}
	was := shown()
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	cert2, key2 := selfSigned(t, other, vmUUID)
	if err := os.Rename(key2, key); err != nil {
		t.Fatal(err)
	}
	if line := p.hup(); !strings.Contains(line, "not reloaded") { // a key of another certificate
		t.Error(line)
	}
	if shown() != was {
		t.Error("the certificate is another after a reload that was refused")
	}
	if err := os.Rename(cert2, cert); err != nil {
		t.Fatal(err)
	}
	if line := p.hup(); !strings.Contains(line, `"message":"reloaded"`) {
		t.Error(line)
	}
	if shown() == was {
		t.Error("the certificate is the old one")
	}
}

// TestCheckConfig: what a start would refuse is said, and nothing is opened.
func TestCheckConfig(t *testing.T) {
	dir := shortDir(t)
	if code, out, errs := call(t, dir, "--check-config", "--config", settings(t, "listen = [\"vsock:564\"]\n")); code != 0 || out != "the settings can be used\n" || errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("made %v, %v", left, err)
	}
	for text, why := range map[string]string{
		"listen = [\"vsock:x\"]":                 "vsock:x",
		"[mumble]\nsecret_file = \"/x/y\"":       "/x/y",
		"[sockets]\ngroup = \"no-such-group\"":   "sockets.group",
		"[tls]\ncert=\"a\"\nkey=\"b\"\nca=\"c\"": "tls certificate a",
	} {
		oneLineWith(t, 2, why, dir, "--check-config", "--config", settings(t, text))
	}
	oneLineWith(t, 2, "/nowhere", dir, "--check-config", "--config", "/nowhere/meta9d.toml")
}
