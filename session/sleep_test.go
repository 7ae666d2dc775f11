package session_test

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meta9/session"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// asleep waits until n connections have no goroutine.
func (w *world) asleep(n int) {
	w.t.Helper()
	w.until("sleep", func() bool { return w.server.Stats().Asleep == n })
}

// sleeper is a client of the first VM's whose connection sleeps, and the server's end.
func (w *world) sleeper() (*client, net.Conn) {
	w.t.Helper()
	server, end := redialtest.Pair(w.t)
	c := w.client(end)
	c.resume()
	w.serve(server, peers["vm"])
	c.hello("9P2000")
	w.asleep(1)
	return c, server
}

// part sends bytes that are no whole frame, and waits until they are read and the
// connection sleeps again.
func (c *client) part(w *world, server net.Conn, b []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatal(err)
	}
	raw, err := server.(syscall.Conn).SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	w.until("a read", func() (read bool) {
		_ = raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			read = n == 0 && err == nil
		})
		return read
	})
	w.asleep(1)
}

// tstat is the frame of a Tstat of fid 0.
func tstat(t *testing.T, tag uint16) []byte {
	t.Helper()
	frame, err := wire.Append(nil, &wire.Msg{Type: wire.Tstat, Tag: tag}, wire.Plain)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// TestSleep: a connection that is silent has no goroutine; it answers what comes, in
// parts as well, and sleeps again. A read that blocks does not keep it awake, and is
// answered while it sleeps.
func TestSleep(t *testing.T) {
	w := newWorld(t, nil)
	w.put("color", "blue")
	server, end := redialtest.Pair(t)
	c := w.client(end)
	c.resume()
	returned, ended := make(chan struct{}), make(chan struct{})
	go func() {
		w.server.Go(server, peers["vm"], func() { close(ended) })
		close(returned)
	}()
	c.hello("9P2000")
	<-returned
	for range 3 {
		w.asleep(1)
		c.do(&wire.Msg{Type: wire.Tstat, Tag: 1}, wire.Rstat)
	}
	frame := tstat(t, 2)
	w.asleep(1)
	for i := range len(frame) - 1 {
		c.part(w, server, frame[i:i+1])
	}
	c.write(frame[len(frame)-1:])
	if m := c.receive(); m == nil || m.Type != wire.Rstat || m.Tag != 2 {
		t.Fatalf("%v", m)
	}
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"events"}}, wire.Rwalk)
	c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1}, wire.Ropen)
	c.send(&wire.Msg{Type: wire.Tread, Tag: 9, Fid: 1, Count: 1000})
	w.asleep(1)
	w.put("color", "red")
	if m := c.receive(); m == nil || m.Type != wire.Rread || m.Tag != 9 {
		t.Fatalf("%v", m)
	}
	w.asleep(1)
	select {
	case <-ended:
		t.Fatal("it has ended")
	default:
	}
	end.Close()
	<-ended
	if n := w.server.Stats().Conns; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestSleepEnds: whatever ends a connection ends one that sleeps.
func TestSleepEnds(t *testing.T) {
	for what, end := range map[string]func(w *world, c *client, server net.Conn){
		"the client closes":  func(_ *world, c *client, _ net.Conn) { c.nc.Close() },
		"its VM is gone":     func(w *world, _ *client, _ net.Conn) { w.server.DropVM(vmOne) },
		"the server drains":  func(w *world, _ *client, _ net.Conn) { drain(w, patient) },
		"no time to drain":   func(w *world, _ *client, _ net.Conn) { drain(w, 0) },
		"the server freezes": func(w *world, _ *client, _ net.Conn) { w.freeze()() },
		"its listener ends it": func(w *world, _ *client, server net.Conn) {
			raw, err := server.(syscall.Conn).SyscallConn()
			if err == nil {
				err = raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
			}
			if err != nil {
				w.t.Error(err)
			}
		},
		"half a frame, then the end": func(w *world, c *client, server net.Conn) {
			c.part(w, server, tstat(t, 1)[:3])
			c.nc.Close()
		},
		"bytes that are no frame": func(_ *world, c *client, _ net.Conn) { c.write([]byte("GET / HTTP/1.1\r\n\r\n")) },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, nil)
			c, server := w.sleeper()
			end(w, c, server)
			w.until("the end", func() bool { return w.server.Stats().Conns == 0 })
			for c.receive() != nil {
			}
		})
	}
}

func drain(w *world, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_ = w.server.Drain(ctx)
}

// TestSleepTakeOver: a session is taken from a connection that sleeps.
func TestSleepTakeOver(t *testing.T) {
	w := newWorld(t, nil)
	a := w.numbered(wire.EN, 1, nil)
	a.walk(1, "keys")
	w.asleep(1)
	b := w.numbered(wire.EN, 1, a)
	b.resume(nil)
	b.walk(2, "keys")
	if m := a.receive(); m != nil {
		t.Errorf("the old connection got %s", m)
	}
}

// TestSleepHandOver: connections that sleep are handed over, with what they have read.
func TestSleepHandOver(t *testing.T) {
	w := newWorld(t, nil)
	c, server := w.sleeper()
	frame := tstat(t, 2)
	c.part(w, server, frame[:5])
	next := w.handOver()()
	c.write(frame[5:])
	if m := c.receive(); m == nil || m.Type != wire.Rstat || m.Tag != 2 {
		t.Fatalf("%v", m)
	}
	if n := next.server.Stats().Conns; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestSleepStorm: connections that fall asleep all the time, while their clients ask,
// stop in the middle of a frame and go, lose no request and leave nothing.
func TestSleepStorm(t *testing.T) {
	w := newWorld(t, func(cfg *session.Config) { cfg.Silence = 500 * time.Microsecond })
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			r, frame := rand.New(rand.NewPCG(1, uint64(i))), tstat(t, 1)
			for range 5 {
				c := w.dial("unix", peers["admin"])
				c.hello("9P2000")
				for range 20 {
					cut := r.IntN(len(frame))
					c.write(frame[:cut])
					time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
					c.write(frame[cut:])
					if m := c.receive(); m == nil || m.Type != wire.Rstat {
						t.Errorf("%v", m)
						return
					}
					time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
				}
				if r.IntN(2) == 0 {
					c.write([]byte{9, 0})
				}
				c.nc.Close()
			}
		})
	}
	all.Wait()
	w.until("the end of all", func() bool { return w.server.Stats().Conns == 0 && w.server.Stats().Asleep == 0 })
}
