package listen_test

import (
	"crypto/tls"
	"net"
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
		if n := p.asked.Load(); n < 100 || n > 110 {
			t.Errorf("accept was tried %d times in 100 s, want once a second and a few times before", n)
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

// TestSilentPeers: who does not say who it is gets ProveTime, and no more than
// MaxProving get that at once.
func TestSilentPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := newDesk(t), newPiped()
		cfg := listen.Config{Handle: d.handle, TLS: &tls.Config{}}
		l := cfg.Serve(p, listen.Addr{Net: listen.TLS})
		came := time.Now()
		silent := func() {
			far, near := net.Pipe()
			p.conns <- tls.Server(near, cfg.TLS)
			far.Read(make([]byte, 1)) // until it is closed
			if waited := time.Since(came); waited != listen.ProveTime {
				t.Errorf("a silent peer was closed after %s", waited)
			}
			far.Close()
		}
		for range listen.MaxProving {
			go silent()
		}
		synctest.Wait()
		far, near := net.Pipe()
		p.conns <- tls.Server(near, cfg.TLS) // waits for a slot
		if waited := time.Since(came); waited != listen.ProveTime {
			t.Errorf("the next one was accepted after %s", waited)
		}
		l.Close() // does not wait for the handshake
		if waited := time.Since(came); waited != listen.ProveTime {
			t.Errorf("Close took until %s", waited)
		}
		far.Close()
		d.none()
	})
}
