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

// firstMsize bounds frames before an msize is agreed on: the longest Tversion.
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
	clock *time.Timer // closes a connection that stays nobody's

	account atomic.Pointer[budget.Account] // whose bytes are taken here
	share   atomic.Pointer[cpu.Share]      // of whose sess is
	dead    atomic.Bool                    // the transport was closed from here
	halts   atomic.Bool                    // the loop is to end: FreezeVM
	waker   atomic.Pointer[chan struct{}]  // wakes the loop out of await

	mu       sync.Mutex // the monitor of everything below, the session included
	moved    sync.Cond  // on mu: something went out, ended or was closed
	dialect  wire.Dialect
	resuming bool // Tresume is to come; what the session carries lies until then
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
	missed  int32    // keys and MUMBLE messages that were wrong
	work    *work    // the loop's scratch has it, or askAgain

	try    *request // the MUMBLE message that was delayed last
	proved string   // the VM that MUMBLE proved on this connection; "": none
	vm     string   // the VM that this connection counts for; Server.mu guards it
	sleeper

	freezes *sync.WaitGroup // who waits for its end: FreezeVM; Server.mu guards it
}

// begins makes s the connection's session.
func (c *conn) begins(s *session) {
	c.sess = s
	c.works()
}

// works finds whose share of the CPUs the connection has.
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

// awaitRoom waits until the account has what the frame at hand needs, or says that it gets
// nothing. What the connection has to send goes out meanwhile.
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

// burst handles every frame that is there, in one critical section but for the
// writes: the monitor costs the same for one request as for a hundred.
func (c *conn) burst() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lend()
	n, err := c.frames()
	c.srv.stats.Requests.Add(n) // whoever reads his reply finds it counted
	c.flush()
	c.place.Give()
	c.takeBack()
	if c.closed && err == nil {
		err = errClosed
	}
	return err
}

// lend makes the loop's scratch buffer the output buffer, unless there is one
// already: replies that another goroutine could not send yet.
func (c *conn) lend() {
	c.lent, c.work = true, &c.in.sc.work
	if c.out == nil {
		c.out, c.in.sc.out = c.in.sc.out, nil
	}
}

// takeBack undoes lend. Replies that another goroutine is to send stay.
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
			err = c.handle(frame, c.mayTell(frame, c.turn(frame)))
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

// atOnce are the requests that get a place whoever waits: a client that is held up ends with
// them what holds it up (v9fs waits for Rflush whatever happens, and the keeper asks with a
// Tflush whether the server is there), and begins anew. Where a VM has used more than its
// part they wait for half a second at most, or those who send nothing else would have all
// CPUs.
var atOnce = [256]bool{
	wire.Tversion: true, wire.Tsession: true, wire.Tresume: true, wire.Tflush: true, wire.Tclunk: true,
}

// tells are the requests that are answered with what the store has.
var tells = [256]bool{
	wire.Twalk: true, wire.Topen: true, wire.Tlopen: true, wire.Tread: true, wire.Tstat: true, wire.Tsread: true,
	wire.Tgetattr: true, wire.Treaddir: true,
}

// mayTell refuses a request that would be told something old. It is asked right before the
// request is done: what is true then is true at a moment of the request.
func (c *conn) mayTell(frame []byte, refused error) error {
	if fresh := c.srv.cfg.Fresh; fresh != nil && refused == nil && tells[frame[4]] {
		return fresh()
	}
	return refused
}

// turn sees to it that the loop has a place for the frame, and gives up the one that it
// has had for long while others wait. It gives the monitor up to wait. The error is
// for the frame.
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

// over is what follows the loop, unless another one will come.
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

// end is the end of a connection: the requests end, or go on without a connection,
// and the session is parked or ends. It always ends where the guest went back in time:
// under the numbers of its fids its program would find what it opened later, which it
// knows nothing of, and write there.
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
	c.place.Force(c.share.Load()) // whoever has a place may wait for the monitor
	c.shut()
	s := c.sess
	c.sess = nil
	c.waits.bill.keep(0)
	c.mu.Unlock()
	c.srv.dismiss(c)
	c.place.Take(c.share.Load()) // in vain or not: what was there must go
	c.srv.parkOrEnd(s, !past)
	c.srv.logEnd(c, s.who.String(), err)
	c.in.drop()
	c.account.Load().Close()
	c.place.Give()
}

// finishAll cancels what blocks and awaits what was begun. A client that only
// stopped sending still gets its replies. A session is awaited even if it is not
// kept, since a truncation that it holds must not be dropped before the write that
// follows it is computed: half an "echo v > key" would be left.
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

// kill closes the transport; the loop notices. It needs no lock, and Server.mu may be held.
func (c *conn) kill() {
	c.dead.Store(true)
	_ = c.nc.Close()
	c.wake()
}

// expectIdentity starts the clock of a connection that has to say who it is.
func (c *conn) expectIdentity() {
	c.clock = time.AfterFunc(c.srv.cfg.Limits.AuthTime, c.kill)
}
