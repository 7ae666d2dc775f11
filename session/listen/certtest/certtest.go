// Package certtest makes certificates for tests of TLS: those of meta9d, of its clients and of
// their authorities. It keeps nothing; its functions may be called from any goroutine that
// may end the test.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// Local is the address of this machine, for the IPAddresses of a server's certificate.
var Local = []net.IP{net.IPv4(127, 0, 0, 1)}

// Make makes a certificate of c, with a new key. signer signs it; nil: it is its own
// authority. What c leaves out: it began an hour ago, ends in an hour, and is good for a
// server, a client, and to sign.
func Make(t testing.TB, signer *tls.Certificate, c x509.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.SerialNumber = big.NewInt(now.UnixNano())
	if c.NotBefore.IsZero() {
		c.NotBefore = now.Add(-time.Hour)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = now.Add(time.Hour)
	}
	c.BasicConstraintsValid = true
	if c.KeyUsage == 0 {
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign
	}
	if c.ExtKeyUsage == nil {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if signer == nil {
		c.IsCA = true
		signer = &tls.Certificate{PrivateKey: key, Leaf: &c}
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, signer.Leaf, &key.PublicKey, signer.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// PEM is the certificate, without those of its authorities, and its key, in PEM.
func PEM(t testing.TB, c *tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Leaf.Raw})
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Write writes the certificate and its key to files that only this user can read; to the
// same file if both are one.
func Write(t testing.TB, c *tls.Certificate, certFile, keyFile string) {
	t.Helper()
	cert, key := PEM(t, c)
	if certFile == keyFile {
		cert = append(cert, key...)
	} else if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(certFile, cert, 0o600); err != nil {
		t.Fatal(err)
	}
}
