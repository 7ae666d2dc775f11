package session

import (
	"sync"

	"meta9/fs"
	"meta9/fs/budget"
	"meta9/fs/cpu"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// request is a T-message whose reply has to wait: a change, which ends by itself
// and has a reply function; something that can be cancelled, which has cancel and
// mostly an again function (a read that blocks, and what has to ask somebody else); or a
// Tflush, which ends with the change that it names.
//
// A change is never cancelled, not by Tflush either: it may be durable already, and
// a reply that says otherwise would be a lie. The fields that say what became of
// it are written by the goroutine that calls its done function, and read after
// handOver.
type request struct {
	c    *conn     // the monitor guards it: a session takes its requests along
	done *doneList // of the session
	asked
	tag     uint16
	fid     *fid
	flushes []*request // the Tflushes that wait for it, in order

	// A change.
	reply  func(r *request) // writes the reply; the monitor is held
	answer wire.Type        // of that, when all went well
	size   int              // bytes of data and names that it holds
	n      int              // what became of it: set before the request is put
	err    error
	ref    *fs.Ref
	handle fs.Handle
	over   bool // it is in no list any more, and its reply is to be made; done.mu guards it
	receipt

	// What can be cancelled.
	again  func(r *request) // goes on with it; the monitor is held
	cancel func()
	off    uint64
	count  int

	// What is done again: once somebody else was asked, or there is room for its reply,
	// or in another process. nil: a Tread of a stream.
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
	stalled []*request // woken ones that go on once replies are sent
	serving bool       // whoever has the monitor will collect before he gives it up
}

// doneList is where those who end requests leave them.
type doneList struct {
	mu     sync.Mutex
	to     *conn // who collects; nil: nobody for now, the session is carried
	list   []*request
	served bool // somebody will collect, or is on his way to
}

// handOver gives r to whoever has the monitor next. It waits for nobody, so that
// the store's committer may call it, and the holder of the monitor too: served
// decides, under one lock, between a goroutine that will look at the list anyhow
// and a new one, and take clears it only when the list is empty.
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

// detach lets what ends from now on lie until attach.
func (d *doneList) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to, d.served = nil, true
}

// attach makes c, whose monitor is held by one who will collect, the one to do so.
func (d *doneList) attach(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to, d.served = c, true
}

// serve is the short life of the goroutine that put starts. By the time that it
// has the monitor the connection may have ended, and its requests be another's.
func (c *conn) serve() {
	var p cpu.Place
	p.Take(c.share.Load()) // in vain or not: replies to what was begun go out
	c.mu.Lock()
	c.serving = true
	c.send(&p)
	c.mu.Unlock()
	p.Give()
}

// willCollect says that the holder of the monitor will collect, so that a request
// that ends at once needs no goroutine.
func (c *conn) willCollect() {
	if c.serving {
		return
	}
	c.serving = true
	c.done.mu.Lock()
	c.done.served = true
	c.done.mu.Unlock()
}

// collect finishes the requests that were put, and those that end while it does.
// The View is settled first: a reply to a change says that reads see it.
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

// mayWait refuses a request that would wait when too many do already. Tclunk,
// Tremove and Tflush do not ask: they must not fail, and overloaded keeps them
// few.
func (c *conn) mayWait() error {
	if len(c.waiting) >= c.srv.cfg.Limits.Waiting {
		return errs.New(errs.Quota, "%d requests wait on this connection already", len(c.waiting))
	}
	return nil
}

// enter makes r one of the requests that wait.
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

// keptWaiting is how many requests a table may have had to be kept when it is
// empty: maps do not shrink, and an idle connection shall be small.
const keptWaiting = 16

// rest lets go of what a connection that has nothing to do does not need.
func (c *conn) rest() {
	if len(c.waiting) == 0 && c.most > keptWaiting {
		c.waiting, c.most = nil, 0
	}
	c.waits.settleBill()
}

// begin enters a change of f, which may be nil, and runs it as soon as the
// earlier changes of f let it. alone: it waits for all of them.
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

// retire ends a change whose reply was written: what waited for it goes on.
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

// settle gives the monitor up until no change waits.
func (c *conn) settle() {
	if c.changes > 0 {
		c.place.Give()
	}
	for c.collect(); c.changes > 0; c.collect() {
		c.moved.Wait()
	}
}

// goOnWithStalled goes on with the reads that had no room, as far as there is some now.
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
