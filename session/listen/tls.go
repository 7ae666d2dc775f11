package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"meta9/fs"
	"meta9/fs/vm"
)

// LoadTLS reads the PEM files of the daemon's certificate and key, and of the
// authorities that sign the clients'. The error names the file.
func LoadTLS(cert, key, ca string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("tls certificate %s, key %s: %w", cert, key, err)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("tls authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls authorities: no certificate in %s", ca)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		MinVersion:   tls.VersionTLS12,
		// Connections are few and long, and a certificate is looked at anew each time.
		SessionTicketsDisabled: true,
	}, nil
}

// proveTLS is the principal that the client's certificate names.
func (cfg Config) proveTLS(ctx context.Context, c net.Conn) (fs.Principal, error) {
	tc, ok := c.(*tls.Conn)
	if !ok {
		return fs.Principal{}, fmt.Errorf("%T is no tls connection", c)
	}
	if err := tc.HandshakeContext(ctx); err != nil {
		return fs.Principal{}, err
	}
	chain := tc.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return fs.Principal{}, errors.New("no client certificate")
	}
	return cfg.named(chain[0])
}

// named finds the one principal among a certificate's names: its CN, and its
// alternative names that are DNS names or URIs (urn:uuid:UUID, or as it is). Two
// of them would leave open who is there.
func (cfg Config) named(cert *x509.Certificate) (fs.Principal, error) {
	names := append([]string{cert.Subject.CommonName}, cert.DNSNames...)
	for _, u := range cert.URIs {
		names = append(names, strings.TrimPrefix(u.String(), "urn:uuid:"))
	}
	var who fs.Principal
	for _, name := range names {
		p := cfg.principal(name)
		if !p.Nobody() && !who.Nobody() && p != who {
			return fs.Principal{}, fmt.Errorf("the certificate names both %s and %s", who, p)
		}
		if !p.Nobody() {
			who = p
		}
	}
	if who.Nobody() {
		return who, fmt.Errorf("the certificate of %q names neither a VM that is here nor the admin", cert.Subject.CommonName)
	}
	return who, nil
}

// principal is whom one name names; a VM must be here, or its UUID is nobody's.
func (cfg Config) principal(name string) fs.Principal {
	if name != "" && name == cfg.Admin {
		return fs.Principal{Admin: true}
	}
	if uuid, err := vm.ParseUUID(name); err == nil && cfg.VM(uuid) != nil {
		return fs.Principal{VM: uuid}
	}
	return fs.Principal{}
}
