package listen_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"meta9/fs"
	"meta9/session/listen"
)

// dry is a net.Listener of a process without file descriptors.
type dry struct {
	*piped
	asked atomic.Int32
}

func (d *dry) Accept() (net.Conn, error) {
	d.asked.Add(1)
	select {
	case <-d.done:
		return nil, net.ErrClosed
	default:
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: syscall.EMFILE}
	}
}

// TestAcceptErrors: a listener that cannot accept neither spins nor floods the
// log, and goes on.
func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := &logs{}, &dry{piped: newPiped()}
		l := listen.Config{Log: log.logger()}.Serve(p, listen.Addr{Net: listen.Vsock, Port: 1})
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if n := p.asked.Load(); n < 100 || n > 210 {
			t.Errorf("accept was tried %d times in 100 s, want once in half a second or a second, and a few times before", n)
		}
		if log.lines() != 2 || !strings.Contains(log.String(), "too many open files") {
			t.Errorf("log: %s", log)
		}
		l.Close()
	})
}

func TestAcceptGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := newDesk(t), newPiped()
		l := listen.Config{Handle: d.handle}.Serve(p, listen.Addr{Net: listen.TCP})
		for range 5 {
			p.errs <- syscall.ECONNABORTED
			far, near := net.Pipe()
			p.conns <- near
			if who := d.next().who; who != (fs.Principal{}) {
				t.Errorf("handed over %s", who)
			}
			far.Close()
		}
		l.Close()
	})
}

// TestSilentPeers: who does not say who it is gets ProveTime.
func TestSilentPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := newDesk(t), newPiped()
		cfg := listen.Config{Handle: d.handle, TLS: &tls.Config{}}
		l := cfg.Serve(p, listen.Addr{Net: listen.TLS})
		came := time.Now()
		for range listen.MaxProving {
			go func() {
				far, near := net.Pipe()
				p.conns <- tls.Server(near, cfg.TLS)
				far.Read(make([]byte, 1)) // until it is closed
				if waited := time.Since(came); waited != listen.ProveTime {
					t.Errorf("a silent peer was closed after %s", waited)
				}
				far.Close()
			}()
		}
		synctest.Wait()
		time.Sleep(listen.ProveTime)
		synctest.Wait()
		far, near := net.Pipe()
		p.conns <- tls.Server(near, cfg.TLS)
		l.Close() // does not wait for the handshake
		if waited := time.Since(came); waited != listen.ProveTime {
			t.Errorf("Close took until %s", waited)
		}
		far.Close()
		d.none()
	})
}

// TestSilentPeersHoldNobodyUp: while one source opens more connections than there are
// places and says nothing, it loses its own, the oldest first. A client of its own
// address and one of another get through at once.
func TestSilentPeersHoldNobodyUp(t *testing.T) {
	a, d := newAuthority(t), newDesk(t)
	addr := openTLS(t, a, d, &logs{})
	var silent []net.Conn
	for range listen.MaxProving + 40 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	began := time.Now()
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for what, dialer := range map[string]*net.Dialer{"the same address": {}, "another address": &other} {
		c, err := a.dialTLSFrom(dialer, addr, tls.VersionTLS13, *a.client(vm1, nil))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := d.next(); got.who != (fs.Principal{VM: vm1}) {
			t.Errorf("%s: handed over %s", what, got.who)
		}
		c.Close()
	}
	if waited := time.Since(began); waited >= listen.ProveTime {
		t.Errorf("two handshakes took %s, beside %d silent peers", waited, len(silent))
	}
	_ = silent[0].SetReadDeadline(time.Now().Add(listen.ProveTime / 2))
	if _, err := silent[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the first of the silent peers: %v, want that it is closed", err)
	}
	newest := silent[len(silent)-1]
	_ = newest.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := newest.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the newest of the silent peers: %v, want that it still has its time", err)
	}
}
