package session

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs/budget"
	"meta9/fs/cpu"
	"meta9/fs/errs"
	"meta9/session/packet"
	"meta9/session/wire"
)

// firstMsize bounds frames until an msize is agreed on: the length of the longest
// Tversion.
const firstMsize = wire.HeaderLen + 4 + 2 + 1<<16 - 1

// conn is one transport and what travels on it. Fields above mu are set before the
// loop starts, or are the loop's alone.
type conn struct {
	srv   *Server
	id    uint64 // for traces
	nc    net.Conn
	peer  Peer
	in    input       // the loop's
	place cpu.Place   // the loop's
	fresh bool        // the loop's: the store's data was not old at a moment of this burst
	clock *time.Timer // closes a connection whose peer does not prove who it is

	account atomic.Pointer[budget.Account] // the account that pays for this connection
	share   atomic.Pointer[cpu.Share]      // of the session's principal
	dead    atomic.Bool                    // this side closed the transport
	halts   atomic.Bool                    // the loop must end: FreezeVM
	waker   atomic.Pointer[chan struct{}]  // wakes the loop out of awaitRoom

	mu       sync.Mutex // the monitor of everything below, the session included
	moved    sync.Cond  // on mu: something went out, ended or was closed
	dialect  wire.Dialect
	resuming bool // Tresume must come next; until then nobody touches what the session carries
	leaving  bool // the transport goes to another process: nothing more is handled or sent here
	handed   bool // it is one of Server.handed; Server.mu guards it
	nobody   bool // it is one of Server.nobodies; Server.mu guards it
	msize    uint32
	seq      uint64 // frames that came
	first    uint64 // the seq of the first frame after Rversion, which may be Tsession
	sess     *session
	output
	waits
	done    *doneList
	handing *handing // nil: it does not go from one process to another
	now     asked    // the request that is handled
	nowTag  uint16   // its tag
	missed  int32    // wrong keys and MUMBLE messages
	work    *work    // in the loop's scratch, or askAgain's own

	try    *request // the MUMBLE message that was delayed last
	proved string   // the VM that MUMBLE proved on this connection; "": none
	vm     string   // the VM that this connection counts for; Server.mu guards it
	sleeper

	freezes *sync.WaitGroup // FreezeVM waits for it until the connection has ended; Server.mu guards it
}

// begins makes s the connection's session.
func (c *conn) begins(s *session) {
	c.sess = s
	c.works()
}

// works sets the share of the CPUs that the connection uses.
func (c *conn) works() { c.share.Store(c.srv.cfg.Tree.CPU(c.sess.who, c.sess.streams > 0)) }

// loop reads and handles until the transport ends. The error says why.
func (c *conn) loop() error {
	for {
		if err := c.in.fill(); err != nil {
			if err = c.sleep(err); err != nil {
				return err
			}
			continue
		}
		if err := c.bursts(); err != nil {
			return err
		}
	}
}

// bursts handles what was read, and waits for the room that it takes.
func (c *conn) bursts() error {
	err := c.burst()
	for err == nil && c.in.sc.wants.more > 0 {
		if err = c.awaitRoom(); err == nil {
			err = c.burst()
		}
	}
	return err
}

// awaitRoom waits until the account has enough for the frame at hand, or says that it will
// get nothing. Meanwhile it sends what the connection has to send.
func (c *conn) awaitRoom() error {
	ready := make(chan struct{}, 1)
	wake := func() {
		select {
		case ready <- struct{}{}:
		default:
		}
	}
	c.waker.Store(&ready)
	defer c.waker.Store(nil)
	want := c.in.sc.wants
	c.in.sc.wants = frameCost{}
	w := c.in.sc.bill.account.Wait(want.more, wake)
	defer w.End()
	if !c.dead.Load() && !c.halts.Load() { // else wake may have come before there was a waker
		select {
		case <-ready:
		case <-c.srv.quit:
			return os.ErrDeadlineExceeded // as the read that would follow
		}
	}
	switch {
	case c.dead.Load():
		return errClosed
	case c.halts.Load():
		return os.ErrDeadlineExceeded
	}
	if c.in.sc.refusal = w.Take(); c.in.sc.refusal == nil {
		c.in.paid(want)
	}
	return nil
}

// wake ends awaitRoom and sleep, after a close or before the end of all: a loop that reads
// gets the error from its read.
func (c *conn) wake() {
	if ready := c.waker.Load(); ready != nil {
		select {
		case *ready <- struct{}{}:
		default:
		}
	}
	c.srv.sleepers.wake(c.id)
}

// burst handles every whole frame in the input. It holds the monitor all the time, except
// during writes: one lock serves one request or a hundred.
func (c *conn) burst() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lend()
	c.fresh = false
	n, err := c.frames()
	c.srv.stats.Requests.Add(n) // before the replies go out
	c.flush()
	c.place.Give()
	c.takeBack()
	if c.closed && err == nil {
		err = errClosed
	}
	return err
}

// lend makes a part of the loop's scratch the output buffer, unless there is one already,
// with replies that another goroutine could not send yet.
func (c *conn) lend() {
	c.lent, c.work = true, &c.in.sc.work
	if c.out == nil {
		c.out, c.in.sc.out = c.in.sc.out, nil
	}
}

// takeBack undoes lend. Replies that another goroutine will send stay.
func (c *conn) takeBack() {
	c.lent = false
	if len(c.out) == 0 && c.out != nil {
		b := c.out
		c.out = nil
		if c.in.sc.out == nil && cap(b) == outSize {
			c.in.sc.out = b
		} else {
			discard(b)
		}
		c.settleOut()
	}
	c.rest()
}

// frames handles the frames that are whole and tells how many there were.
func (c *conn) frames() (n int64, err error) {
	for !c.closed && !c.leaving {
		frame, err := c.in.next(c.dialect, c.msize)
		switch {
		case err != nil:
			return n, err
		case frame != nil:
			err = c.handle(frame, c.turn(frame))
		case c.in.sc.refusal != nil:
			err = c.refuseFrame()
		default:
			return n, nil
		}
		n++
		if err != nil {
			return n, err
		}
		if len(c.out) >= sendSize {
			c.flush()
		}
		if c.overloaded() {
			c.awaitRelief()
		}
	}
	return n, nil
}

// atOnce are the requests that get a place even if others wait: a client that is held up
// ends with them what holds it up, and begins anew (v9fs waits for Rflush whatever
// happens, and the keeper sends a Tflush to see whether the server answers). If the VM has
// used more than its part, they wait too, for half a second at most; otherwise clients
// that send nothing else would get all CPUs.
var atOnce = [256]bool{
	wire.Tversion: true, wire.Tsession: true, wire.Tresume: true, wire.Tflush: true, wire.Tclunk: true,
}

// tells are the requests whose replies show data of the store.
var tells = [256]bool{
	wire.Twalk: true, wire.Topen: true, wire.Tlopen: true, wire.Tread: true, wire.Tstat: true, wire.Tsread: true,
	wire.Tgetattr: true, wire.Treaddir: true, wire.Tstatfs: true,
}

// mayTell refuses a request whose reply might show old data of a VM. It asks once in a burst:
// all its requests have come before, so that what was true then, and what the store has
// committed since, was true at some moment of each of them.
func (c *conn) mayTell(m *wire.Msg) error {
	fresh := c.srv.cfg.Fresh
	if fresh == nil || c.fresh || !tells[m.Type] || !c.ofVM(m) {
		return nil
	}
	err := fresh()
	c.fresh = err == nil
	return err
}

// ofVM reports whether the reply would show data of VMs.
func (c *conn) ofVM(m *wire.Msg) bool {
	f := c.sess.fids[m.Fid]
	return f != nil && !f.auth && f.ref.OfVM(m.Names)
}

// turn waits until the loop has a place for the frame. It gives up a place that the loop
// has had for long while others wait. It releases the monitor to wait. The error is the
// frame's.
func (c *conn) turn(frame []byte) error {
	switch {
	case c.place.Held() && !c.place.Over():
		return nil
	case atOnce[frame[4]] && !c.place.Held() && c.share.Load().Rest() == 0:
		c.place.Force(c.share.Load())
		return nil
	case !c.place.Held() && c.place.Try(c.share.Load()):
		return nil
	}
	c.flush()
	c.place.Give()
	c.mu.Unlock()
	defer c.mu.Lock()
	if atOnce[frame[4]] {
		c.place.TakeOrForce(c.share.Load())
		return nil
	}
	if !c.place.Take(c.share.Load()) {
		return errs.New(errs.Again, "the VM has not had its turn for %v", cpu.Longest)
	}
	return nil
}

// over is called after the loop has ended, unless another loop will come.
func (c *conn) over(err error) {
	if err == errAsleep {
		return
	}
	c.end(err)
	c.frozen()
	c.srv.running.Done()
	if c.ended != nil {
		c.ended()
	}
}

// end ends a connection: its requests end, or go on without a connection, and the session
// is parked or ends. The session always ends if the guest went back in time: the guest's
// program would use the numbers of fids that were opened later, which it knows nothing of,
// and write to the wrong files.
func (c *conn) end(err error) {
	if c.standsStill(err) {
		return
	}
	past := errors.Is(err, packet.ErrPast)
	c.known()
	c.mu.Lock()
	if c.carries() && !past {
		c.carry()
	} else {
		c.finishAll(err)
	}
	c.place.Give()
	c.place.Force(c.share.Load()) // Force: who holds a place may be waiting for the monitor
	c.shut()
	s := c.sess
	c.sess = nil
	c.waits.bill.keep(0)
	c.mu.Unlock()
	c.srv.dismiss(c)
	c.place.Take(c.share.Load()) // also without a place: what is there must be cleaned up
	c.srv.parkOrEnd(s, !past)
	c.srv.logEnd(c, s.who.String(), err)
	c.in.drop()
	c.account.Load().Close()
	c.place.Give()
}

// finishAll cancels what blocks, and waits for the changes that were begun. A client that
// has only stopped sending still gets its replies. Changes are waited for even if the
// session is not kept: a truncation that it holds must not be dropped before the write
// that follows it is computed, or only half of an "echo v > key" would be done.
func (c *conn) finishAll(err error) {
	c.place.Give()
	c.cancelReads()
	if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.shut()
	}
	c.settle()
	c.flush()
	for c.writing && !c.closed {
		c.moved.Wait()
	}
}

// kill closes the transport, and the loop ends by that. It needs no lock; Server.mu may be
// held.
func (c *conn) kill() {
	c.dead.Store(true)
	_ = c.nc.Close()
	c.wake()
}

// expectIdentity starts the timer of a connection whose peer has to prove who it is.
func (c *conn) expectIdentity() {
	c.clock = time.AfterFunc(c.srv.cfg.Limits.AuthTime, c.kill)
}
