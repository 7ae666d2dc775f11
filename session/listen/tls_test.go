package listen_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/session/listen"
	"meta9/session/listen/certtest"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *tls.Certificate
}

func newAuthority(t *testing.T) *authority {
	return &authority{t, certtest.Make(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, KeyUsage: x509.KeyUsageCertSign})}
}

// client is a client's certificate.
func (a *authority) client(cn string, dns []string, uris ...string) *tls.Certificate {
	a.t.Helper()
	c := x509.Certificate{
		Subject: pkix.Name{CommonName: cn}, DNSNames: dns,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			a.t.Fatal(err)
		}
		c.URIs = append(c.URIs, u)
	}
	return certtest.Make(a.t, a.cert, c)
}

// files writes the daemon's certificate, its key and the authority as PEM.
func (a *authority) files(dir string) (cert, key, ca string) {
	a.t.Helper()
	cert, key, ca = join(dir, "cert.pem"), join(dir, "key.pem"), join(dir, "ca.pem")
	certtest.Write(a.t, certtest.Make(a.t, a.cert, x509.Certificate{
		DNSNames: []string{"meta9d"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}), cert, key)
	text, _ := certtest.PEM(a.t, a.cert)
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return cert, key, ca
}

// dialTLS connects as the certificate's owner. In TLS 1.3 a refusal comes only
// with the first read.
func (a *authority) dialTLS(addr string, max uint16, certs ...tls.Certificate) (*tls.Conn, error) {
	return a.dialTLSFrom(&net.Dialer{}, addr, max, certs...)
}

func (a *authority) dialTLSFrom(from *net.Dialer, addr string, max uint16, certs ...tls.Certificate) (*tls.Conn, error) {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert.Leaf)
	c, err := tls.DialWithDialer(from, "tcp", addr, &tls.Config{
		RootCAs: pool, ServerName: "meta9d", Certificates: certs,
		MinVersion: tls.VersionTLS10, MaxVersion: max,
	})
	if err == nil {
		a.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func openTLS(t *testing.T, a *authority, d *desk, log *logs) (addr string) {
	t.Helper()
	conf, err := listen.LoadTLS(a.files(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	cfg := listen.Config{
		Handle: d.handle, TLS: conf, Admin: "ops.example",
		VM: newVMs(t, vmJSON(vm1, ""), vmJSON(vm2, "")).get, Log: log.logger(),
	}
	l := open(t, cfg, "tls:127.0.0.1:0")
	return strings.TrimPrefix(l.String(), "tls:")
}

func TestTLSNames(t *testing.T) {
	a, d := newAuthority(t), newDesk(t)
	addr := openTLS(t, a, d, &logs{})
	admin, one := fs.Principal{Admin: true}, fs.Principal{VM: vm1}
	for what, c := range map[string]struct {
		cert *tls.Certificate
		want fs.Principal
	}{
		"CN is a VM":             {a.client(vm1, nil), one},
		"CN in upper case":       {a.client(strings.ToUpper(vm1), nil), one},
		"DNS name is a VM":       {a.client("guest", []string{"guest.example", vm1}), one},
		"URI is a VM":            {a.client("guest", nil, "urn:uuid:"+vm1), one},
		"the same VM throughout": {a.client(vm1, []string{vm1}, "urn:uuid:"+vm1), one},
		"CN is the admin":        {a.client("ops.example", nil), admin},
		"DNS name is the admin":  {a.client("", []string{"ops.example"}), admin},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if _, err := a.dialTLS(addr, version, *c.cert); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if got := d.next(); got.who != c.want || got.addr != "127.0.0.1" {
				t.Errorf("%s: handed over %+v, want %s", what, got, c.want)
			}
		}
	}
}

func TestTLSRefuses(t *testing.T) {
	a, other, d := newAuthority(t), newAuthority(t), newDesk(t)
	const stranger = "01b2c898-945f-11e1-a523-af1afbe22829"
	for what, c := range map[string]struct {
		cert   *tls.Certificate
		max    uint16
		reason string
	}{
		"no certificate":         {nil, 0, "client didn't provide a certificate"},
		"of another authority":   {other.client(vm1, nil), 0, "unknown authority"},
		"of no VM":               {a.client(stranger, nil), 0, "names neither"},
		"of nobody":              {a.client("", nil), 0, "names neither"},
		"of two VMs":             {a.client(vm1, []string{vm2}), 0, "names both"},
		"of a VM and the admin":  {a.client("ops.example", []string{vm1}), 0, "names both"},
		"TLS 1.1":                {a.client(vm1, nil), tls.VersionTLS11, "unsupported versions"},
		"a server's certificate": {serverCert(a), 0, "incompatible key usage"},
	} {
		log := &logs{}
		addr := openTLS(t, a, d, log)
		var certs []tls.Certificate
		if c.cert != nil {
			certs = append(certs, *c.cert)
		}
		if conn, err := a.dialTLS(addr, c.max, certs...); err == nil {
			closed(t, conn)
		}
		until(t, what, func() bool { return log.lines() == 1 })
		if !strings.Contains(log.String(), c.reason) {
			t.Errorf("%s: log %q, want %q", what, log, c.reason)
		}
		d.none()
	}
}

// serverCert names a VM, but is not made for clients.
func serverCert(a *authority) *tls.Certificate {
	return certtest.Make(a.t, a.cert, x509.Certificate{
		Subject: pkix.Name{CommonName: vm1}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// TestTLSWithoutAdmin: an empty name is nobody's.
func TestTLSWithoutAdmin(t *testing.T) {
	a, d, log := newAuthority(t), newDesk(t), &logs{}
	conf, err := listen.LoadTLS(a.files(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, listen.Config{Handle: d.handle, TLS: conf, VM: newVMs(t).get, Log: log.logger()}, "tls:127.0.0.1:0")
	conn, err := a.dialTLS(strings.TrimPrefix(l.String(), "tls:"), 0, *a.client("", nil))
	if err != nil {
		t.Fatal(err)
	}
	closed(t, conn)
	d.none()
}

// TestRefusalsAreLoggedRarely: a peer does not choose how much is logged.
func TestRefusalsAreLoggedRarely(t *testing.T) {
	a, d, log := newAuthority(t), newDesk(t), &logs{}
	addr := openTLS(t, a, d, log)
	for range 20 {
		c := dial(t, "tcp:"+addr)
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		closed(t, c)
	}
	if n := log.lines(); n != 1 {
		t.Errorf("%d lines:\n%s", n, log)
	}
}

func TestTLSNotConfigured(t *testing.T) {
	refuse(t, listen.Config{}, "tls:127.0.0.1:0", "cert, key and ca")
}

func TestLoadTLSNamesTheFile(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	cert, key, ca := a.files(dir)
	for what, files := range map[string][3]string{
		join(dir, "no.crt"):        {join(dir, "no.crt"), key, ca},
		join(dir, "no.key"):        {cert, join(dir, "no.key"), ca},
		join(dir, "no.ca"):         {cert, key, join(dir, "no.ca")},
		"no certificate in " + key: {cert, key, key},
	} {
		_, err := listen.LoadTLS(files[0], files[1], files[2])
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("error %v does not say %s", err, what)
		}
	}
}
