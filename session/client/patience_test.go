package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"meta9/session/client"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// outages is a host of 9P2000.e.n whose transports a test cuts, in a synctest bubble. It
// keeps the session, and answers no request.
type outages struct {
	t    *testing.T
	c    *client.Client
	away atomic.Bool
	peer *redialtest.Peer // the last transport, greeted
	came chan *redialtest.Peer
}

// newOutages makes one, and a client with a change that waits.
func newOutages(t *testing.T, patience time.Duration) (o *outages, change chan error) {
	t.Helper()
	o = &outages{t: t, came: make(chan *redialtest.Peer, 10)}
	dialled := 0
	c, err := client.Dial(t.Context(), "outages", client.Options{Patience: patience, Dial: func(context.Context) (net.Conn, error) {
		if o.away.Load() {
			return nil, syscall.ECONNREFUSED
		}
		ours, theirs := net.Pipe()
		p := &redialtest.Peer{T: t, NC: ours}
		go func(resumed bool) {
			p.Accept(wire.EN, resumed)
			if resumed {
				m := p.Want(wire.Tresume)
				states := make([]uint8, len(m.Numbers))
				for i := range states {
					states[i] = wire.Running
				}
				p.Send(&wire.Msg{Type: wire.Rresume, Tag: m.Tag, States: states})
			} else {
				p.Reply(p.Want(wire.Tattach))
			}
			o.came <- p
		}(dialled > 0)
		dialled++
		return theirs, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	o.c, o.peer = c, <-o.came
	change = make(chan error, 1)
	go func() { change <- c.WriteFile(t.Context(), "a", nil) }()
	o.peer.Want(wire.Tswrite)
	return o, change
}

// cut ends the transport, and with it the server for so long.
func (o *outages) cut(long time.Duration) {
	o.t.Helper()
	o.away.Store(true)
	o.peer.NC.Close()
	time.Sleep(long)
	o.away.Store(false)
	o.peer = <-o.came
}

func (o *outages) close() {
	o.away.Store(true)
	o.peer.NC.Close()
	if err := o.c.Close(); err != nil {
		o.t.Error(err)
	}
}

// ended tells whether a request is over.
func ended(request chan error) bool {
	synctest.Wait()
	return len(request) > 0
}

// Patience counts from the loss of a transport that was of use. Its timer may be that of
// an earlier outage, which is over, or over and followed by this one.
func TestPatienceOfAnEarlierOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, change := newOutages(t, time.Minute)
		o.cut(30 * time.Second)
		time.Sleep(45 * time.Second) // past the end of its patience; the server is probed meanwhile
		if ended(change) {
			t.Fatalf("ended by an outage that was over: %v", <-change)
		}
		o.close()
	})
	synctest.Test(t, func(t *testing.T) {
		o, change := newOutages(t, time.Minute)
		o.cut(30 * time.Second)
		time.Sleep(12 * time.Second) // so that it was of use
		o.away.Store(true)
		o.peer.NC.Close()
		time.Sleep(59 * time.Second)
		if ended(change) {
			t.Fatalf("ended by the timer of an earlier outage: %v", <-change)
		}
		time.Sleep(2 * time.Second)
		if !ended(change) {
			t.Fatal("patience has no end")
		}
		if err := <-change; !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, client.ErrUnknown) {
			t.Error(err)
		}
		o.close()
	})
}

// Transports on which nobody gets an answer do not renew patience.
func TestPatienceOverUselessTransports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, change := newOutages(t, time.Minute)
		begin := time.Now()
		for o.peer.NC.Close(); !ended(change); time.Sleep(time.Millisecond) {
			select {
			case o.peer = <-o.came:
				o.peer.NC.Close()
			default:
			}
			if time.Since(begin) > 2*time.Minute {
				t.Fatal("patience has no end")
			}
		}
		if err := <-change; !errors.Is(err, client.ErrUnavailable) || time.Since(begin) < time.Minute {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		for o.away.Store(true); len(o.came) > 0; {
			(<-o.came).NC.Close()
		}
		o.close()
	})
}

// Where nobody numbers requests, those without an answer end with their transport, whether
// there will be another or not.
func TestUnnumberedEndsAtOnce(t *testing.T) {
	f := newFake(t)
	f.put("keys/a", []byte("v"))
	c := f.dial(client.Options{Patience: -1})
	f.next(wire.Tremove, hang)
	change := make(chan error, 1)
	go func() { change <- c.Remove(t.Context(), "keys/a") }()
	until(t, "the change hangs", func() bool { return f.count("Tremove") == 1 })
	f.with(func() { f.down = true })
	f.drop()
	select {
	case err := <-change:
		if !errors.Is(err, client.ErrUnknown) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the change waits for a transport")
	}
}

// After the end of patience no request begins, neither one that looks for a transport nor
// one of an operation that is in the middle; with the transport they do.
func TestNothingBeginsAfterPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, change := newOutages(t, time.Minute)
		begun, err := o.c.Begun(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o.away.Store(true)
		o.peer.NC.Close()
		time.Sleep(time.Minute + time.Second)
		if err := <-change; !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, client.ErrUnknown) {
			t.Error(err)
		}
		ask := func() chan error {
			asked := make(chan error, 2)
			go func() { asked <- begun(&wire.Msg{Type: wire.Tstat}) }()
			go func() { asked <- second(o.c.ReadFile(t.Context(), "b")) }()
			return asked
		}
		asked := ask()
		if synctest.Wait(); len(asked) != 2 || <-asked == nil || <-asked == nil {
			t.Error("a request began after the end of patience")
		}
		o.away.Store(false)
		o.peer = <-o.came
		synctest.Wait() // until the client knows of it, too
		asked = ask()
		for _, typ := range []wire.Type{wire.Tflush, wire.Tstat, wire.Tsread} { // of the change, and these two
			if m := o.peer.Receive(); m.Type != typ && typ == wire.Tflush {
				t.Errorf("got %v, want %s", m, typ)
			}
		}
		o.close()
		<-asked
		<-asked
	})
}

// A File is closed without waiting while there is no transport, also where no tag is free,
// and where it had begun to wait for one; the server hears of it later.
func TestCloseOfFilesWhileDown(t *testing.T) {
	s := newRealServer(t, time.Hour)
	c := s.dial(client.Options{})
	s.create(c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	early := openFile(t, c, onceKeys+"a", os.O_RDWR|os.O_CREATE)
	late := openFile(t, c, onceKeys+"a", os.O_RDWR)
	events := openFile(t, c, "vms/"+realVM+"/events", os.O_RDONLY) // after what makes events
	waiting := s.readers(ctx, events)
	closed := make(chan error, 1)
	isClosed := func() {
		t.Helper()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Close waits for a transport")
		}
	}
	go func() { closed <- early.Close() }()
	select {
	case <-closed:
		t.Error("Close had a tag")
	case <-time.After(20 * time.Millisecond): // it waits for one
	}
	s.drop(true)
	isClosed()
	until(t, "the loss is noticed", func() bool { return c.Dialect() == "" })
	go func() { closed <- late.Close() }()
	isClosed()
	s.back()
	cancel()
	for range cap(waiting) {
		<-waiting
	}
	(&pending{realServer: s, c: c}).allTags()
}
