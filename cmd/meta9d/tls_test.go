package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/session/listen/certtest"
)

// selfSigned writes a certificate that is its own authority, for a server that is
// reached at 127.0.0.1 and for a client that has a name.
func selfSigned(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	certtest.Write(t, certtest.Make(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{"meta9d"}}), cert, key)
	return cert, key
}

// TestTLS: the certificates of the settings decide who is there, and 9P goes
// over TLS as it does over a socket.
func TestTLS(t *testing.T) {
	for name, path := range map[string]string{"ops": "names/web/keys/hostname", vmUUID: "keys/hostname"} {
		dir := shortDir(t)
		cert, key := selfSigned(t, dir, name)
		p := start(t, dir, "--listen", "tls:127.0.0.1:0", "--config", settings(t,
			"[tls]\ncert = \""+cert+"\"\nkey = \""+key+"\"\nca = \""+cert+"\"\nadmin = \"ops\"\n"))
		p.connect("meta9-run/admin.sock").put("ctl", "create "+payload)
		c, _ := dialTLS(t, p, cert, key)
		if v := newClient(t, c).get(path); v != "web1" {
			t.Errorf("%s reads %q", name, v)
		}
		if code, log := p.stop(); code != 0 {
			t.Errorf("exit %d, log:\n%s", code, log)
		}
	}
}

// dialTLS connects with the certificate, which is also the authority of the server's,
// for the length of the test.
func dialTLS(t *testing.T, p *proc, cert, key string) (net.Conn, *x509.Certificate) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	c, err := tls.Dial("tcp", p.listener("tls:"), &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "meta9d",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, pair.Leaf
}

// TestDeniedTLS: SIGHUP reads the list of denied certificates again, and ends the
// connection that is open with one of them; a list that cannot be read is said at the
// start, and changes nothing later.
func TestDeniedTLS(t *testing.T) {
	dir := shortDir(t)
	cert, key := selfSigned(t, dir, vmUUID)
	list := filepath.Join(dir, "denied")
	config := settings(t, "[tls]\ncert = \""+cert+"\"\nkey = \""+key+"\"\nca = \""+cert+"\"\ndeny = \""+list+"\"\n")
	oneLineWith(t, 2, "tls.deny", dir, "--listen", "tls:127.0.0.1:0", "--config", config)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	p := start(t, dir, "--listen", "tls:127.0.0.1:0", "--config", config)
	p.connect("meta9-run/admin.sock").put("ctl", "create "+payload)
	c, leaf := dialTLS(t, p, cert, key)
	client := newClient(t, c)
	client.get("keys/hostname")
	write("nonsense")
	if line := p.hup(); !strings.Contains(line, "not reloaded") || !strings.Contains(line, "line 1") {
		t.Error(line)
	}
	client.get("keys/hostname")
	write(fmt.Sprintf("%x\n", sha256.Sum256(leaf.Raw)))
	if line := p.hup(); !strings.Contains(line, `"denied":1`) {
		t.Error(line)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the open connection: %v", err)
	}
	if code, log := p.stop(); code != 0 {
		t.Errorf("exit %d, log:\n%s", code, log)
	}
}
