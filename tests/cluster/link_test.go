package cluster

import (
	"net"
	"sync"
	"testing"
)

// link is the way from a host to a member: a TCP proxy that can be cut, and can hold what
// is sent.
type link struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	free  *sync.Cond // on mu
	cut   bool       // there is no way
	held  bool       // nothing passes, and no side hears of it
	conns map[net.Conn]bool
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{l: l, to: to, conns: make(map[net.Conn]bool)}
	k.free = sync.NewCond(&k.mu)
	go k.serve()
	t.Cleanup(func() {
		_ = l.Close()
		k.set(true, false)
	})
	return k
}

func (k *link) url() string { return "http://" + k.l.Addr().String() }

// set cuts the link, or lets it hold what is sent, or neither.
func (k *link) set(cut, held bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut, k.held = cut, held
	if cut {
		for c := range k.conns {
			_ = c.Close()
		}
	}
	k.free.Broadcast()
}

func (k *link) serve() {
	for {
		from, err := k.l.Accept()
		if err != nil {
			return
		}
		go k.pass(from)
	}
}

// enter notes a connection, if there is a way.
func (k *link) enter(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cut {
		_ = c.Close()
		return false
	}
	k.conns[c] = true
	return true
}

func (k *link) leave(c net.Conn) {
	_ = c.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
}

func (k *link) pass(from net.Conn) {
	if !k.enter(from) {
		return
	}
	defer k.leave(from)
	to, err := net.Dial("tcp", k.to)
	if err != nil || !k.enter(to) {
		return
	}
	defer k.leave(to)
	back := make(chan struct{})
	go func() {
		k.copy(from, to)
		close(back)
	}()
	k.copy(to, from)
	<-back
}

// copy copies until one side ends, and ends the other.
func (k *link) copy(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		k.mu.Lock()
		for k.held && !k.cut {
			k.free.Wait()
		}
		k.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
}
