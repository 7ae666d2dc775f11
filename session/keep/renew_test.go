package keep_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/hugelgupf/p9/linux"

	"meta9/session/wire"
)

// TestVersionWhileGreeting: a Tversion that comes while the keeper greets a server is
// answered when there is a session of its own, in which nothing of the old one is.
func TestVersionWhileGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan struct{})
		c, servers := scripted(t, func(n int, s *raw) {
			if n == 1 {
				<-asked
			}
			s.Accept(wire.LE, n == 1)
		})
		server := <-servers
		attach := &wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, NUname: wire.NoUID}
		go c.Send(attach)
		server.Reply(server.Want(wire.Tattach))
		c.Want(wire.Rattach)
		server.NC.Close()
		synctest.Wait()
		c.Dialect = wire.None
		c.Send(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 4096, Version: "9P2000.L"})
		synctest.Wait()
		close(asked)
		server = <-servers
		server.Reply(server.Want(wire.Tresume))
		v := server.Want(wire.Tversion) // which ends that session
		server.Send(&wire.Msg{Type: wire.Rversion, Tag: v.Tag, Version: v.Version})
		server = <-servers
		if v := c.Want(wire.Rversion); v.Msize != 4096 {
			t.Error(v)
		}
		c.Dialect = wire.L
		go c.Send(&wire.Msg{Type: wire.Tgetattr, Tag: 2, Fid: 5})
		server.Reply(server.Want(wire.Tgetattr)) // and no Tattach before it
		c.Want(wire.Rgetattr)
		c.NC.Close()
		synctest.Wait() // the keeper knows that its client is gone, and does not come again
		server.NC.Close()
	})
}

// TestStaleAgain: sessions are lost one after the other while a client asks on, also of
// what could not be restored the first time, and of what cannot be this time.
func TestStaleAgain(t *testing.T) {
	h, c, restart := lost(t)
	c.walk(1, "keys", "removed")
	c.open(2, rdwr, "keys", "kept")
	const rounds, asks, first = 5, 300, 50
	for i := range rounds {
		h.put(fmt.Sprint(i), "")
		c.walk(first+uint32(i), "keys", fmt.Sprint(i))
	}
	h.remove("removed")
	restart()
	for round := range rounds {
		h.remove(fmt.Sprint(round))
		fids := []uint32{1, 2, first + uint32(round)}
		sent := make(chan bool)
		go func() {
			defer close(sent)
			for tag := range uint16(asks) {
				c.Send(&wire.Msg{Type: wire.Tgetattr, Tag: tag, Fid: fids[tag%3]})
			}
		}()
		restart()
		<-sent
		for range asks {
			r := c.Receive()
			ok := r.Errno == uint32(linux.ESTALE)
			switch r.Tag % 3 {
			case 1:
				ok = r.Type == wire.Rgetattr
			case 2: // or it was asked before
				ok = ok || r.Errno == uint32(linux.ENOENT)
			}
			if !ok {
				t.Errorf("fid %d: got %v", fids[r.Tag%3], r)
			}
		}
	}
}
