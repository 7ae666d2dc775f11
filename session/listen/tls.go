package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
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
	return cfg.identify(tc)
}

// identify is the principal of a connection whose handshake is done.
func (cfg Config) identify(tc *tls.Conn) (fs.Principal, error) {
	state := tc.ConnectionState()
	if len(state.PeerCertificates) == 0 {
		return fs.Principal{}, errors.New("no client certificate")
	}
	cert := state.PeerCertificates[0]
	if cfg.Denied.has(state.VerifiedChains) {
		return fs.Principal{}, fmt.Errorf("the certificate of %q is denied", cert.Subject.CommonName)
	}
	return cfg.named(cert)
}

// named finds the one principal among a certificate's names: its CN, and its
// alternative names that are DNS names or URIs (urn:uuid:UUID, or as it is). Two
// of them would leave open who is there, also where one is a VM that is not here: it
// may be tomorrow. So would one name that different programs understand differently.
func (cfg Config) named(cert *x509.Certificate) (fs.Principal, error) {
	names := append(commonNames(cert), cert.DNSNames...)
	for _, u := range cert.URIs {
		names = append(names, strings.TrimPrefix(u.String(), "urn:uuid:"))
	}
	var who fs.Principal
	for _, name := range names {
		p, err := cfg.principal(name)
		switch {
		case err != nil:
			return fs.Principal{}, err
		case p.Nobody():
		case who.Nobody():
			who = p
		case p != who:
			return fs.Principal{}, fmt.Errorf("the certificate names both %s and %s", who, p)
		}
	}
	if who.Nobody() || who.VM != "" && cfg.VM(who.VM) == nil {
		return fs.Principal{}, fmt.Errorf("the certificate of %q names neither a VM that is here nor the admin", cert.Subject.CommonName)
	}
	return who, nil
}

// commonNames are all of the subject's: where there are more than one, programs take
// the first or the last.
func commonNames(cert *x509.Certificate) (names []string) {
	for _, a := range cert.Subject.Names {
		if name, ok := a.Value.(string); ok && a.Type.Equal(oidCommonName) {
			names = append(names, name)
		}
	}
	return names
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// principal is whom one name names, here or elsewhere. The error is of one that looks
// like a name of ours to a reader, or to a program that cuts names off at a NUL or
// compares them without case, and is another.
func (cfg Config) principal(name string) (fs.Principal, error) {
	if name != "" && name == cfg.Admin {
		return fs.Principal{Admin: true}, nil
	}
	if uuid, err := vm.ParseUUID(name); err == nil {
		return fs.Principal{VM: uuid}, nil
	}
	plain, _, _ := strings.Cut(name, "\x00")
	plain = strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(plain)), "urn:uuid:"), ".")
	_, err := vm.ParseUUID(plain)
	if err == nil || cfg.Admin != "" && plain == strings.ToLower(cfg.Admin) {
		return fs.Principal{}, fmt.Errorf("the certificate's name %.100q could mean %q", name, plain)
	}
	return fs.Principal{}, nil
}
