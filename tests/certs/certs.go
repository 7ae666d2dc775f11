// Package certs makes the certificates of a tls listener of meta9d's, and of those who
// connect to it, for the tests. An Issuer belongs to one goroutine.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta9/session/listen/certtest"
	"meta9/tests/testenv"
)

// Admin is the name in the admin's certificate; a VM's has its UUID.
const Admin = "ops.example"

// Issuer issues the certificates.
type Issuer struct {
	t    testing.TB
	dir  string
	pool *x509.CertPool
	cert *tls.Certificate // its own
}

// New is an issuer, and meta9d's own certificate by it, in a temporary folder.
func New(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	own := i.Issue("issuer")
	i.cert = &own
	i.pool.AddCert(own.Leaf)
	text, _ := certtest.PEM(t, i.cert)
	if err := os.WriteFile(filepath.Join(i.dir, "ca.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	server := i.Issue("meta9d")
	certtest.Write(t, &server, filepath.Join(i.dir, "cert.pem"), filepath.Join(i.dir, "key.pem"))
	return i
}

// Settings are meta9d's, for a tls listener.
func (i *Issuer) Settings() string {
	return fmt.Sprintf("[tls]\ncert = %q\nkey = %q\nca = %q\nadmin = %q\n",
		filepath.Join(i.dir, "cert.pem"), filepath.Join(i.dir, "key.pem"), filepath.Join(i.dir, "ca.pem"), Admin)
}

// Issue makes a certificate of that name; the first is the issuer's own.
func (i *Issuer) Issue(name string) tls.Certificate {
	i.t.Helper()
	return *certtest.Make(i.t, i.cert, x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}})
}

// Dial connects to the tls listener of srv, of which there is one, under a certificate.
func (i *Issuer) Dial(srv *testenv.Server, cert tls.Certificate) (*tls.Conn, error) {
	log := srv.Log()
	at := strings.LastIndex(log, `"via":"tls:`) // it is another one after a restart
	if at < 0 {
		return nil, fmt.Errorf("no tls listener:\n%s", log)
	}
	to, _, _ := strings.Cut(log[at+len(`"via":"tls:`):], `"`)
	return tls.Dial("tcp", to, &tls.Config{RootCAs: i.pool, ServerName: "meta9d", Certificates: []tls.Certificate{cert}})
}
