package interop

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"

	"meta9/tests/certs"
	"meta9/tests/testenv"
)

// relay listens on tcp for programs that speak no TLS, and takes what they say to
// meta9d's tls listener under a certificate.
func relay(t *testing.T, i *certs.Issuer, srv *testenv.Server, cert tls.Certificate) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer near.Close()
				far, err := i.Dial(srv, cert)
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
