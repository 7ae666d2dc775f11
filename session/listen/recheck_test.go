package listen_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/vsock"

	"meta9/fs"
	"meta9/session/listen"
	"meta9/session/listen/certtest"
)

// reading is a Handler that serves its connections until they end, as real ones do.
func (d *desk) reading(c net.Conn, who fs.Principal, via, addr string, ended func()) {
	defer ended()
	d.handle(c, who, via, addr, func() {})
	_, _ = io.Copy(io.Discard, c)
	c.Close()
}

// TestDenied: a certificate on the list is refused, its open connection ends when the
// list is read again, and another's stays.
func TestDenied(t *testing.T) {
	a, d, log := newAuthority(t), newDesk(t), &logs{}
	conf, err := listen.LoadTLS(a.files(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	file := join(t.TempDir(), "denied")
	deny := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	deny("# none yet\n\n")
	denied := new(listen.Denied)
	_, err = denied.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, listen.Config{
		Handle: d.reading, TLS: conf, Denied: denied,
		VM: newVMs(t, vmJSON(vm1, ""), vmJSON(vm2, "")).get, Log: log.logger(),
	}, "tls:127.0.0.1:0")
	addr := strings.TrimPrefix(l.String(), "tls:")
	bad, good := a.client(vm1, nil), a.client(vm2, nil)
	connect := func(cert *tls.Certificate) *tls.Conn {
		t.Helper()
		c, err := a.dialTLS(addr, 0, *cert)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	open, other := connect(bad), connect(good)
	d.next()
	d.next()

	sum := sha256.Sum256(bad.Certificate[0])
	digits := hex.EncodeToString(sum[:])
	var pairs []string
	for i := 0; i < len(digits); i += 2 {
		pairs = append(pairs, strings.ToUpper(digits[i:i+2]))
	}
	for _, form := range []string{digits, "sha256 Fingerprint=" + strings.Join(pairs, ":") + " # lost with its host"} {
		deny("\n" + form + "\n")
		if n, err := denied.Load(file); n != 1 || err != nil {
			t.Fatalf("%q: %d, %v", form, n, err)
		}
		l.Recheck()
		if open != nil {
			closed(t, open)
			open = nil
		}
		closed(t, connect(bad))
		d.none()
	}
	for _, text := range []string{"x", digits[1:], digits + "00", strings.Replace(digits, digits[:1], "g", 1)} {
		deny(digits + "\n" + text + "\n")
		if _, err := denied.Load(file); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := denied.Load(file); err == nil {
		t.Error("a list that is not there was read")
	}
	closed(t, connect(bad)) // what cannot be read changes nothing
	if _, err := other.Write([]byte("x")); err != nil {
		t.Errorf("the other's connection: %v", err)
	}
	connect(good)
	d.next()
	if !strings.Contains(log.String(), "is denied") {
		t.Errorf("log: %s", log)
	}
}

// TestDeniedAuthority: with an authority between, all that it has signed are denied.
func TestDeniedAuthority(t *testing.T) {
	root, d := newAuthority(t), newDesk(t)
	between := &authority{t, certtest.Make(t, root.cert, x509.Certificate{
		Subject: pkix.Name{CommonName: "between"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	})}
	der := between.cert.Leaf.Raw
	cert := between.client(vm1, nil)
	cert.Certificate = append(cert.Certificate, der)
	file := join(t.TempDir(), "denied")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%x\n", sha256.Sum256(der)), 0o600); err != nil {
		t.Fatal(err)
	}
	denied := new(listen.Denied)
	_, err := denied.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := listen.LoadTLS(root.files(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, listen.Config{Handle: d.handle, TLS: conf, Denied: denied, VM: newVMs(t, vmJSON(vm1, "")).get}, "tls:127.0.0.1:0")
	c, err := root.dialTLS(strings.TrimPrefix(l.String(), "tls:"), 0, *cert)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, c)
	d.none()
}

// TestNamesOfTwo: a certificate is refused when it, or one of its names, could be taken
// for another principal's: by a program that reads it otherwise, or tomorrow.
func TestNamesOfTwo(t *testing.T) {
	a, d := newAuthority(t), newDesk(t)
	const absent = "01b2c898-945f-11e1-a523-af1afbe22829"
	two := func(cns ...string) *tls.Certificate {
		c := x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		for _, cn := range cns {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: cn})
		}
		return certtest.Make(t, a.cert, c)
	}
	for what, cert := range map[string]*tls.Certificate{
		"two CNs, the last a VM":      two(vm2, vm1),
		"a CN of the admin and a VM":  two("ops.example", vm1),
		"a VM and one that is absent": a.client(vm1, []string{absent}),
		"an absent VM and one here":   a.client(absent, []string{vm1}),
		"a NUL after another's name":  a.client(vm2+"\x00.example", []string{vm1}),
		"a NUL after its own name":    a.client(vm1+"\x00.example", []string{vm1}),
		"a blank before":              a.client(" "+vm2, []string{vm1}),
		"a dot behind":                a.client("x", []string{vm2 + ".", vm1}),
		"urn twice":                   a.client(vm1, nil, "urn:uuid:urn:uuid:"+vm2),
		"the admin's in capitals":     a.client("OPS.example", []string{vm1}),
	} {
		log := &logs{}
		addr := openTLS(t, a, d, log)
		c, err := a.dialTLS(addr, 0, *cert)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		closed(t, c)
		d.none()
		until(t, what, func() bool { return log.lines() == 1 })
		if s := log.String(); !strings.Contains(s, "names both") && !strings.Contains(s, "could mean") {
			t.Errorf("%s: %s", what, s)
		}
	}
}

// TestVsockMoves: a VM that gets another vsock_cid, or loses the right of its guest's
// users, loses the connections that it would not be let in by any more.
func TestVsockMoves(t *testing.T) {
	d, p := newDesk(t), newPiped()
	s := newVMs(t, vmJSON(vm1, `,"vsock_cid":5`), vmJSON(vm2, `,"vsock_cid":6,"vsock_unprivileged":true`))
	cfg := listen.Config{Handle: d.reading, VM: s.get, ByCID: s.byCID}
	l := cfg.Serve(p, listen.Addr{Net: listen.Vsock, Port: 564})
	defer l.Close()
	connect := func(cid, port uint32) net.Conn {
		far, near := net.Pipe()
		t.Cleanup(func() { far.Close() })
		p.conns <- guest{near, vsock.Addr{ContextID: cid, Port: port}}
		d.next()
		return far
	}
	moved, root, user := connect(5, 1023), connect(6, 1023), connect(6, 2000)
	alive := func(c net.Conn) bool {
		_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, err := c.Write([]byte("x"))
		return err == nil
	}
	l.Recheck()
	for i, c := range []net.Conn{moved, root, user} {
		if !alive(c) {
			t.Errorf("connection %d ended, and nothing has changed", i)
		}
	}
	s.put(vmJSON(vm1, `,"vsock_cid":7`))
	s.put(vmJSON(vm2, `,"vsock_cid":6`))
	l.Recheck()
	closed(t, moved)
	closed(t, user)
	if !alive(root) {
		t.Error("root's connection ended, too")
	}
	// The CID is another VM's now: it is nobody's business who had it.
	s.put(vmJSON(vm1, `,"vsock_cid":6`))
	s.put(vmJSON(vm2, `,"vsock_cid":5`))
	l.Recheck()
	closed(t, root)
}
