package hostile

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// TestDescriptors: a guest that takes every descriptor that it can get, by all of its
// sockets, leaves the last 64 to the admin, who gets in on his sockets; what a start with
// so few means is said in one line. When the guest has gone, others are served again.
func TestDescriptors(t *testing.T) {
	const limit, reserved = 140, 64
	srv := testenv.Start(t, daemon.Options{Wrap: []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, limit), "sh"}})
	for i := range 2 {
		srv.NewVM(testenv.UUID(i), fmt.Sprintf(`{"uuid":%q,"customer_metadata":{"key":%q}}`, testenv.UUID(i), value))
	}
	if n := strings.Count(srv.Log(), "more descriptors may be needed than the system allows"); n != 1 {
		t.Errorf("said %d times at the start:\n%s", n, srv.Log())
	}
	dir := strings.TrimSuffix(srv.VM(testenv.UUID(attacker)), "9p.sock")
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	take := func() {
		for _, name := range []string{"9p.sock", "link.sock", "mdata.sock"} {
			for range 100 {
				c, err := net.DialTimeout("unix", dir+name, time.Second)
				if err != nil {
					break // its queue is full
				}
				held = append(held, c)
			}
		}
	}
	take()
	testenv.Eventually(t, "the guest has all but the last", func() bool {
		n, err := srv.FDs()
		return err == nil && n >= limit-reserved-1
	})
	for i := range 20 {
		if n, err := srv.FDs(); err != nil || n > limit-reserved+8 {
			t.Fatalf("%d of %d descriptors are in use, %v", n, limit, err)
		}
		admin, err := srv.Dial("")
		if err != nil {
			t.Fatalf("the admin, time %d: %v", i, err)
		}
		if _, err := admin.Sread(0, "ctl"); err != nil {
			t.Errorf("the admin reads: %v", err)
		}
		if err := admin.Swrite(0, []byte("x"), "vms", testenv.UUID(innocent), "keys", "key"); err != nil {
			t.Errorf("the admin writes: %v", err)
		}
		admin.Close()
	}
	if n := strings.Count(srv.Log(), "the last 64 are the admin's"); n != 1 { // three sockets that run dry, hundreds of times
		t.Errorf("%d lines say that the descriptors have run out", n)
	}
	if n := strings.Count(srv.Log(), "\n"); n > 30 {
		t.Errorf("%d lines of log:\n%.4000s", n, srv.Log())
	}
	for _, c := range held {
		c.Close()
	}
	held = nil
	g := &target{Server: srv, t: t}
	g.attached(innocent)
}
