package etcd

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"meta9/fs/errs"
)

// TestOpenEnds: an Open with a user, whose etcd takes connections and says nothing, ends when it is told to.
func TestOpenEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan net.Conn, 16)
	go func() {
		defer close(came)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came <- c
		}
	}()
	defer func() {
		l.Close()
		for c := range came {
			c.Close()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := Open(ctx, Config{Endpoints: []string{"http://" + l.Addr().String()}, Host: "a", User: "meta9", Password: "x"})
		ended <- err
	}()
	for range 2 { // the second one is gRPC's
		select {
		case c := <-came:
			defer c.Close()
		case err := <-ended:
			t.Fatalf("it has ended: %v", err)
		}
	}
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it is open")
		}
	case <-time.After(2 * time.Second):
		t.Error("it goes on for 2 s after it was told to end")
	}
}

// TestAwayAtOnce: where nobody listens, it is known at once, with a user, too.
func TestAwayAtOnce(t *testing.T) {
	from := time.Now()
	_, err := Open(t.Context(), Config{Endpoints: []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, Host: "a", User: "meta9", Password: "x"})
	if errs.KindOf(err) != errs.Busy || !strings.Contains(err.Error(), "http://127.0.0.1:") {
		t.Error(err)
	}
	if took := time.Since(from); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestNoUser: a host that etcd knows by its certificate has no name in the settings.
func TestNoUser(t *testing.T) {
	c := Config{Prefix: "/m9/", Cert: "/etc/host.crt"}
	if err := c.explain(rpctypes.ErrPermissionDenied); strings.Contains(err.Error(), `""`) || !strings.Contains(err.Error(), "/etc/host.crt") {
		t.Error(err)
	}
}

// TestExplainNew: a cluster that has just begun refuses all requests for a moment. The host waits.
func TestExplainNew(t *testing.T) {
	if err := new(Config).explain(rpctypes.ErrGRPCNotCapable); errs.KindOf(err) != errs.Busy {
		t.Errorf("%v", err)
	}
}
