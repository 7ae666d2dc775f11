// Package certs makes the certificates of a tls listener of meta9d's, and of those who
// connect to it, for the tests. An Issuer belongs to one goroutine.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/tests/testenv"
)

// Admin is the name in the admin's certificate; a VM's has its UUID.
const Admin = "ops.example"

// Issuer issues the certificates.
type Issuer struct {
	t    testing.TB
	dir  string
	pool *x509.CertPool
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New is an issuer, and meta9d's own certificate by it, in a temporary folder.
func New(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	pair := i.Issue("issuer")
	i.cert, i.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	i.pool.AddCert(i.cert)
	i.write("ca.pem", "CERTIFICATE", i.cert.Raw)
	server := i.Issue("meta9d")
	i.write("cert.pem", "CERTIFICATE", server.Leaf.Raw)
	der, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	i.write("key.pem", "PRIVATE KEY", der)
	return i
}

func (i *Issuer) write(name, kind string, der []byte) {
	i.t.Helper()
	if err := os.WriteFile(filepath.Join(i.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		i.t.Fatal(err)
	}
}

// Settings are meta9d's, for a tls listener.
func (i *Issuer) Settings() string {
	return fmt.Sprintf("[tls]\ncert = %q\nkey = %q\nca = %q\nadmin = %q\n",
		filepath.Join(i.dir, "cert.pem"), filepath.Join(i.dir, "key.pem"), filepath.Join(i.dir, "ca.pem"), Admin)
}

// Issue makes a certificate of that name; the first is the issuer's own.
func (i *Issuer) Issue(name string) tls.Certificate {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: i.cert == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		i.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
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
