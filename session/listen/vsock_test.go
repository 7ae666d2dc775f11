package listen_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/mdlayher/vsock"

	"meta9/fs"
	"meta9/session/listen"
)

// piped is a net.Listener whose connections and errors the test makes.
type piped struct {
	conns chan net.Conn
	errs  chan error
	done  chan struct{}
}

func newPiped() *piped {
	return &piped{make(chan net.Conn), make(chan error), make(chan struct{})}
}

func (p *piped) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *piped) Close() error   { close(p.done); return nil }
func (p *piped) Addr() net.Addr { return &vsock.Addr{ContextID: 2, Port: 564} }

// guest is a connection that comes from a guest.
type guest struct {
	net.Conn
	from vsock.Addr
}

func (g guest) RemoteAddr() net.Addr { return &g.from }

func TestVsock(t *testing.T) {
	d, log, p := newDesk(t), &logs{}, newPiped()
	s := newVMs(t, vmJSON(vm1, `,"vsock_cid":5`), vmJSON(vm2, `,"vsock_cid":6,"vsock_unprivileged":true`))
	cfg := listen.Config{Handle: d.handle, VM: s.get, ByCID: s.byCID, Log: log.logger()}
	l := cfg.Serve(p, listen.Addr{Net: listen.Vsock, Port: 564})
	defer l.Close()
	for _, c := range []struct {
		cid, port uint32
		want      string // "": refused
	}{
		{5, 1023, vm1},
		{5, 1024, ""},
		{6, 1023, vm2},
		{6, 4000000000, vm2},
		{7, 1, ""},
		{2, 1, ""}, // the host itself
	} {
		far, near := net.Pipe()
		p.conns <- guest{near, vsock.Addr{ContextID: c.cid, Port: c.port}}
		if c.want == "" {
			closed(t, far)
			d.none()
			continue
		}
		got := d.next()
		if got.who != (fs.Principal{VM: c.want}) || got.via != "vsock:564" || got.addr != "" {
			t.Errorf("%+v: handed over %+v", c, got)
		}
		far.Close()
	}
	if s := log.String(); log.lines() != 1 || !strings.Contains(s, "vsock_unprivileged") {
		t.Errorf("log: %s", s)
	}
}

// TestVsockGoesOn: a connection that a live update hands over goes on as the VM's that has its
// CID; where that is another VM's by now, it ends.
func TestVsockGoesOn(t *testing.T) {
	s, p, in := newVMs(t, vmJSON(vm1, `,"vsock_cid":5`)), newPiped(), new(listen.Inherited)
	var ends []net.Conn
	for _, cid := range []uint32{5, 6} {
		far, near := net.Pipe()
		c := guest{near, vsock.Addr{ContextID: cid, Port: 700}}
		in.Conn("vsock:564", listen.Adopted{Conn: c, Who: fs.Principal{VM: vm1}, Run: func(ended func()) {
			defer ended()
			_, _ = io.Copy(c, c)
		}})
		ends = append(ends, far)
	}
	l := listen.Config{VM: s.get, ByCID: s.byCID, Inherited: in, Log: (&logs{}).logger()}.Serve(p, listen.Addr{Net: listen.Vsock, Port: 564})
	defer l.Close()
	b := []byte("a")
	if _, err := ends[0].Write(b); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(ends[0], b); err != nil || string(b) != "a" {
		t.Errorf("%q, %v", b, err)
	}
	closed(t, ends[1])
	if err := ends[0].Close(); err != nil {
		t.Error(err)
	}
}
