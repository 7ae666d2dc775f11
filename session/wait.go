package session

import (
	"sync"

	"meta9/fs"
	"meta9/fs/budget"
	"meta9/fs/cpu"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// request is a T-message whose reply has to wait. It is one of three kinds. A change ends
// by itself, and has a reply function. A request that can be cancelled has cancel, and
// mostly an again function: a read that blocks, or a request about which another service
// has to be asked. A Tflush ends with the change that it names.
//
// A change is never cancelled, not by Tflush either: it may be durable already, and a
// reply that says otherwise would be a lie. The goroutine that calls its done function
// writes the fields with its result; they are read after handOver.
type request struct {
	c    *conn     // the monitor guards it: requests move with their session
	done *doneList // of the session
	asked
	tag     uint16
	fid     *fid
	flushes []*request // the Tflushes that wait for it, in order

	// A change.
	reply  func(r *request) // writes the reply; the monitor is held
	answer wire.Type        // its type, if the change was done
	size   int              // bytes of data and names that it holds
	n      int              // result: set before handOver
	err    error
	ref    *fs.Ref
	handle fs.Handle
	over   bool // it was taken from done.list, and its reply will be made; done.mu guards it
	receipt

	// What can be cancelled.
	again  func(r *request) // goes on with it; the monitor is held
	cancel func()
	off    uint64
	count  int

	// The request, to be handled again: when another service has answered, or there is room
	// for its reply, or in another process. nil: a Tread of a stream.
	msg     *wire.Msg
	answers []*fs.Pending
	room    *budget.Wait // nil: that is not what it waits for
}

// waits are the requests of a connection that wait. The monitor guards it.
type waits struct {
	waiting map[uint16]*request
	most    int        // the largest len(waiting) since the map was made
	changes int        // how many of waiting are changes
	flushes int        // how many are Tflushes: each ends with a change
	held    int        // bytes of data and names that the changes hold
	bill    bill       // for what waits
	stalled []*request // reads that were woken, and go on when replies are sent
	serving bool       // the holder of the monitor will collect before it releases it
}

// doneList holds the requests that have ended and are not answered yet.
type doneList struct {
	mu     sync.Mutex
	to     *conn // the connection that collects; nil: none now, the session is parked
	list   []*request
	served bool // some goroutine will collect
}

// handOver gives r to the next holder of the monitor. It does not wait, so the store's
// committer may call it, and the holder of the monitor too. served decides, under one
// lock, whether some goroutine will look at the list anyhow, or a new one must be started;
// take clears it only when the list is empty.
func (r *request) handOver() {
	d := r.done
	d.mu.Lock()
	d.list = append(d.list, r)
	to, start := d.to, !d.served
	d.served = true
	d.mu.Unlock()
	if start {
		go to.serve()
	}
}

// detach lets requests that end stay in the list until attach.
func (d *doneList) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to, d.served = nil, true
}

// attach makes c the connection that collects. Its monitor is held, by a goroutine that
// will collect.
func (d *doneList) attach(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to, d.served = c, true
}

// serve is the goroutine that handOver starts. When it gets the monitor, the connection
// may have ended, and its requests may belong to another one.
func (c *conn) serve() {
	var p cpu.Place
	p.Take(c.share.Load()) // also without a place: replies to requests that were begun must go out
	c.mu.Lock()
	c.serving = true
	c.send(&p)
	c.mu.Unlock()
	p.Give()
}

// willCollect notes that the holder of the monitor will collect, so that a request that
// ends at once needs no goroutine.
func (c *conn) willCollect() {
	if c.serving {
		return
	}
	c.serving = true
	c.done.mu.Lock()
	c.done.served = true
	c.done.mu.Unlock()
}

// collect answers the requests that have ended, and those that end meanwhile. First it
// settles the View: a reply to a change says that reads see the change.
func (c *conn) collect() {
	for c.serving {
		list := c.takeEnded()
		if len(list) > 0 && c.sess != nil && c.sess.view != nil {
			c.sess.view.Settle()
		}
		for _, r := range list {
			c.finish(r)
		}
	}
}

// takeEnded empties the list of those that have ended; once it is empty, the next handOver starts a goroutine.
func (c *conn) takeEnded() []*request {
	c.done.mu.Lock()
	defer c.done.mu.Unlock()
	list := c.done.list
	c.done.list = nil
	for _, r := range list {
		r.over = true
	}
	if len(list) == 0 {
		c.done.served, c.serving = false, false
	}
	return list
}

func (c *conn) finish(r *request) {
	if r.again == nil {
		r.reply(r)
		c.sess.ended(r) // before retire, which may have the journal note the reply
		c.retire(r)
		return
	}
	if c.waiting[r.tag] == r {
		r.again(r)
	}
	c.sess.ended(r)
}

// mayWait refuses a request that would wait when too many wait already. Tclunk, Tremove
// and Tflush do not ask: they must not fail, and overloaded keeps them few.
func (c *conn) mayWait() error {
	if len(c.waiting) >= c.srv.cfg.Limits.Waiting {
		return errs.New(errs.Quota, "%d requests wait on this connection already", len(c.waiting))
	}
	return nil
}

// enter adds r to the requests that wait.
func (c *conn) enter(r *request) {
	if c.waiting == nil {
		c.waiting = make(map[uint16]*request)
	}
	r.c, r.done = c, c.done
	if r.tag == c.nowTag {
		r.asked = c.now
	}
	c.waiting[r.tag] = r
	c.most = max(c.most, len(c.waiting))
	c.willCollect()
}

// keptWaiting is up to how many requests a table may have had to be kept when it is empty:
// maps do not shrink, and an idle connection must be small.
const keptWaiting = 16

// rest frees what an idle connection does not need.
func (c *conn) rest() {
	if len(c.waiting) == 0 && c.most > keptWaiting {
		c.waiting, c.most = nil, 0
	}
	c.waits.settleBill()
}

// begin adds a change of f, which may be nil, and runs it when the earlier changes of f
// allow that. alone: it waits for all of them.
func (c *conn) begin(r *request, alone bool, run func()) {
	if n := int64(r.size); c.in.sc != nil && c.in.sc.ahead.paid > 0 && n > smallFrame {
		c.in.sc.ahead.give(&c.waits.bill, n)
	}
	c.enter(r)
	c.changes++
	c.held += r.size
	c.noteBefore(r)
	if f := r.fid; f == nil || f.free(alone) {
		start(r, run)
	} else {
		f.queue = append(f.queue, queued{alone: alone, r: r, run: run})
	}
}

func start(r *request, run func()) {
	if f := r.fid; f != nil {
		f.running++
	}
	r.c.submit(r, run)
	if f := r.fid; f != nil && !r.keys {
		f.unsure++
	}
}

// retire ends a change whose reply was written, and lets go on what has waited for it.
func (c *conn) retire(r *request) {
	delete(c.waiting, r.tag)
	c.changes--
	c.held -= r.size
	c.waits.settleBill()
	c.flushed(r)
	if f := r.fid; f != nil {
		f.running--
		if !r.keys {
			f.unsure--
		}
		f.advance()
	}
	c.moved.Broadcast()
}

// flushed answers the Tflushes that waited for r, and those that waited for
// these.
func (c *conn) flushed(r *request) {
	for _, f := range r.flushes {
		delete(c.waiting, f.tag)
		c.flushes--
		c.empty(wire.Rflush, f.tag)
		c.flushed(f)
	}
}

// cancelReads ends what can be cancelled, without a reply.
func (c *conn) cancelReads() {
	for tag, r := range c.waiting {
		if r.cancel != nil {
			r.cancel()
			delete(c.waiting, tag)
		}
	}
}

// settle releases the monitor until no change waits.
func (c *conn) settle() {
	if c.changes > 0 {
		c.place.Give()
	}
	for c.collect(); c.changes > 0; c.collect() {
		c.moved.Wait()
	}
}

// goOnWithStalled goes on with the stalled reads, as far as there is room now.
func (c *conn) goOnWithStalled() {
	list := c.stalled
	c.stalled = nil
	for _, r := range list {
		c.finish(r)
	}
}

// ended is the done function of most changes.
func (r *request) ended(err error) {
	r.err = err
	r.handOver()
}

// wrote is the done function of a write.
func (r *request) wrote(n int, err error) {
	r.n, r.err = n, err
	r.handOver()
}

// made is the done function of a create.
func (r *request) made(ref *fs.Ref, h fs.Handle, err error) {
	r.ref, r.handle, r.err = ref, h, err
	r.handOver()
}

// woken is the wake function of what can be cancelled.
func (r *request) woken() { r.handOver() }
