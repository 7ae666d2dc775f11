// Package link is the way from a host to a member of etcd, which tests cut.
package link

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// Link is a TCP proxy that can be cut, and can hold what is sent. Its methods may be called from any
// goroutine.
type Link struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	freed *sync.Cond // on mu
	state state
	conns map[net.Conn]bool
	until string        // the request that has this in it is held, and all after it; "": none is
	came  chan struct{} // closed when that request has come
}

type state int

const (
	open state = iota
	cut        // there is no way: connections end, and new ones do
	held       // nothing passes, and no side hears of it
)

// New makes a link to an endpoint of etcd (http://HOST:PORT), which ends with the test.
func New(t testing.TB, endpoint string) *Link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &Link{l: l, to: strings.TrimPrefix(endpoint, "http://"), conns: make(map[net.Conn]bool)}
	k.freed = sync.NewCond(&k.mu)
	go k.serve()
	t.Cleanup(func() {
		_ = l.Close()
		k.Cut()
	})
	return k
}

// URL is the endpoint that a host has in place of the member's.
func (k *Link) URL() string { return "http://" + k.l.Addr().String() }

// Cut ends all connections, and those that come.
func (k *Link) Cut() { k.set(cut) }

// Hold lets nothing pass until Open, and then all that was sent.
func (k *Link) Hold() { k.set(held) }

// HoldAt is Hold from the next request on that has part in it. The channel is closed when that
// has come.
func (k *Link) HoldAt(part string) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until, k.came = part, make(chan struct{})
	return k.came
}

// Open undoes Cut and Hold.
func (k *Link) Open() { k.set(open) }

func (k *Link) set(s state) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
	if s == cut {
		for c := range k.conns {
			_ = c.Close()
		}
	}
	k.freed.Broadcast()
}

func (k *Link) serve() {
	for {
		from, err := k.l.Accept()
		if err != nil {
			return
		}
		go k.pass(from)
	}
}

// enter notes a connection, if there is a way.
func (k *Link) enter(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == cut {
		_ = c.Close()
		return false
	}
	k.conns[c] = true
	return true
}

func (k *Link) leave(c net.Conn) {
	_ = c.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
}

func (k *Link) pass(from net.Conn) {
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
		k.copy(from, to, func([]byte) {})
		close(back)
	}()
	k.copy(to, from, k.watched())
	<-back
}

// watched looks for HoldAt's request in what a host sends by one connection; it is called with Link.mu
// held.
func (k *Link) watched() func(sent []byte) {
	var seen []byte // the request may have begun in it
	return func(sent []byte) {
		if k.until == "" {
			return
		}
		seen = append(seen, sent...)
		if strings.Contains(string(seen), k.until) {
			k.until, k.state = "", held
			close(k.came)
		}
		seen = seen[max(0, len(seen)-len(k.until)):]
	}
}

// copy copies until one side ends, and ends the other. It shows look all that it has read, with
// Link.mu held.
func (k *Link) copy(to, from net.Conn, look func(sent []byte)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		k.mu.Lock()
		look(buf[:n])
		for k.state == held {
			k.freed.Wait()
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
