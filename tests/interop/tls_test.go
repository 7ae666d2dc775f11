package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/tests/testenv"
)

// adminName is in the admin's certificate.
const adminName = "ops.example"

// issuer makes the certificates of a tls listener and of those who connect to it.
type issuer struct {
	t    *testing.T
	dir  string
	pool *x509.CertPool
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	pair := i.issue("issuer")
	i.cert, i.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	i.pool.AddCert(i.cert)
	i.write("ca.pem", "CERTIFICATE", i.cert.Raw)
	server := i.issue("meta9d")
	i.write("cert.pem", "CERTIFICATE", server.Leaf.Raw)
	der, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	i.write("key.pem", "PRIVATE KEY", der)
	return i
}

func (i *issuer) write(name, kind string, der []byte) {
	i.t.Helper()
	if err := os.WriteFile(filepath.Join(i.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		i.t.Fatal(err)
	}
}

// settings are meta9d's, for a tls listener.
func (i *issuer) settings() string {
	return fmt.Sprintf("[tls]\ncert = %q\nkey = %q\nca = %q\nadmin = %q\n",
		filepath.Join(i.dir, "cert.pem"), filepath.Join(i.dir, "key.pem"), filepath.Join(i.dir, "ca.pem"), adminName)
}

// issue makes a certificate of that name; the first is the issuer's own.
func (i *issuer) issue(name string) tls.Certificate {
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

// relay listens on tcp for programs that speak no TLS, and takes what they say to
// meta9d's tls listener under a certificate.
func (i *issuer) relay(srv *testenv.Server, cert tls.Certificate) (addr string) {
	i.t.Helper()
	_, rest, ok := strings.Cut(srv.Log(), `"via":"tls:`)
	to, _, _ := strings.Cut(rest, `"`)
	if !ok {
		i.t.Fatalf("no tls listener:\n%s", srv.Log())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		i.t.Fatal(err)
	}
	var running sync.WaitGroup
	i.t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	conf := &tls.Config{RootCAs: i.pool, ServerName: "meta9d", Certificates: []tls.Certificate{cert}}
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer near.Close()
				far, err := tls.Dial("tcp", to, conf)
				if err != nil {
					return
				}
				defer far.Close()
				running.Go(func() {
					_, _ = io.Copy(far, near)
					far.Close()
				})
				_, _ = io.Copy(near, far)
			})
		}
	})
	return l.Addr().String()
}
