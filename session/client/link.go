package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"meta9/fs/errs"
	"meta9/session/greet"
	"meta9/session/wire"
)

const (
	// maxCalls is how many requests may wait for their replies at once: each may
	// have its Tflush, and so many numbers fit a Tresume.
	maxCalls = wire.MaxNumbers / 2

	// flushBit makes a call's tag that of its Tflush, so that a flush never waits
	// for a tag.
	flushBit uint16 = 0x8000

	// flushGrace is how long a change whose context has ended waits for the server
	// to say what became of it.
	flushGrace = time.Second
)

// link is an attach, and the requests that wait below it. Where both sides number
// them it outlives its transport: the next one takes it over (resume.go). Elsewhere
// it ends with it, and what was not answered is lost.
type link struct {
	fids    *fids
	dialect wire.Dialect
	msize   uint32
	epoch   uint64 // which attach its fids belong to
	keyed   bool   // the server keeps a session for it

	tags chan uint16   // those that are free
	kick chan struct{} // to the writer: there is something to send
	dead chan struct{} // closed when err is set

	mu     sync.Mutex
	line   *line            // the transport, up or the last
	calls  map[uint16]*call // by tag, until nothing more can come for it
	window greet.Window     // their requests, and the Tflushes
	last   []byte           // the frame that ends the session; nil: not yet, or sent
	going  bool             // bye was said
	tired  chan struct{}    // closed while there has been no transport for too long
	err    error            // why the link ended
}

// Whether somebody waits for a call.
const (
	awaited   = false
	forgotten = true
)

// call is a request that waits for its reply.
type call struct {
	greet.Request
	fid    uint32         // that Twalk makes or Tclunk ends; rootFid: none
	done   chan struct{}  // closed when it is over
	over   bool           // who waits has been told how it ended
	owed   bool           // the server has yet to answer
	flush  *greet.Request // its Tflush, while that is unanswered
	forgot bool           // nobody waits, or nobody any more: settle sees to its fid
	reply  wire.Msg
	err    error
}

// newLink is the attach that t has made, or, without numbers, come back to; old is
// the one before it, or nil.
func (c *Client) newLink(t *greet.Talk, old *link) *link {
	if old != nil {
		old.fail(old.why())
	}
	l := &link{
		fids: &c.fids, dialect: t.Dialect, msize: t.Msize, epoch: c.keep.epoch, keyed: c.keep.known,
		window: greet.Window{Count: t.Count},
		tags:   make(chan uint16, maxCalls), kick: make(chan struct{}, 1), dead: make(chan struct{}), tired: make(chan struct{}),
		calls: make(map[uint16]*call),
	}
	for tag := range uint16(maxCalls) {
		l.tags <- tag
	}
	return l
}

// lasting tells whether the link can outlive its transport.
func (l *link) lasting() bool { return l.keyed && l.dialect.Numbered() }

// rpc sends m, which changes nothing, and waits for its reply. When ctx ends it
// returns at once, and the server's answer is dealt with when it comes. On error
// the fid that a Twalk would have made is seen to.
func (l *link) rpc(ctx context.Context, m *wire.Msg) (*wire.Msg, error) {
	c, err := l.send(ctx, m)
	if err != nil {
		if fid := fidOf(m); fid != rootFid {
			l.fids.put(fid)
		}
		return nil, err
	}
	select {
	case <-c.done:
		if c.err != nil {
			l.forget(c)
		}
		return c.result()
	case <-ctx.Done():
		l.forget(c)
		return nil, context.Cause(ctx)
	}
}

// change sends m, which changes something, and waits for its reply. The error
// has ErrUnknown in its chain when it may have happened.
func (l *link) change(ctx context.Context, m *wire.Msg) (*wire.Msg, error) {
	c, err := l.send(ctx, m)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if !l.outcome(c) {
			return nil, unknown(context.Cause(ctx))
		}
	}
	reply, err := c.result()
	var gone *lost
	switch {
	case errors.As(err, &gone) && gone.sent:
		return nil, unknown(err)
	case errors.Is(err, errFlushed):
		return nil, context.Cause(ctx)
	}
	return reply, err
}

// outcome flushes c and waits a little for what became of it; false: the server
// did not say.
func (l *link) outcome(c *call) bool {
	l.mu.Lock()
	l.flush(c)
	l.mu.Unlock()
	grace := time.NewTimer(flushGrace)
	defer grace.Stop()
	select {
	case <-c.done:
		return true
	case <-grace.C:
		return false
	}
}

// release tells the server to forget fid, and waits for nothing but a tag; while
// there is no transport, not for that either.
func (l *link) release(fid uint32) {
	select {
	case tag := <-l.tags:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.clunkAs(tag, fid)
	case <-l.down():
		l.lose(fid)
	}
}

// clunk is release that waits for nothing: without a tag the fid stays with the
// server until the next transport. mu is held.
func (l *link) clunk(fid uint32) {
	select {
	case tag := <-l.tags:
		l.clunkAs(tag, fid)
	default:
		l.lose(fid)
	}
}

// clunkAs is clunk with a tag; mu is held.
func (l *link) clunkAs(tag uint16, fid uint32) {
	m := wire.Msg{Type: wire.Tclunk, Tag: tag, Fid: fid}
	frame, _ := l.frame(&m) // which always has one
	if _, err := l.enqueue(&m, frame, forgotten); err != nil {
		l.lose(fid)
	}
}

func (l *link) lose(fid uint32) { l.fids.lose(stray{fid, l.epoch}) }

// send queues m under a free tag. It waits for nothing but a tag.
func (l *link) send(ctx context.Context, m *wire.Msg) (*call, error) {
	select {
	case m.Tag = <-l.tags:
	default:
		if err := l.await(ctx, &m.Tag); err != nil {
			return nil, err
		}
	}
	frame, err := l.frame(m)
	if err != nil {
		l.tags <- m.Tag
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.enqueue(m, frame, awaited)
}

// await waits for a tag.
func (l *link) await(ctx context.Context, tag *uint16) error {
	l.mu.Lock()
	tired := l.tired
	l.mu.Unlock()
	select {
	case *tag = <-l.tags:
		return nil
	case <-l.dead:
	case <-tired:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return &lost{cause: l.why()}
}

// enqueue makes m, which has a tag and a frame, a call; mu is held.
func (l *link) enqueue(m *wire.Msg, frame []byte, forgot bool) (*call, error) {
	why := l.err
	if why == nil && closed(l.tired) {
		why = l.line.err
	}
	if why != nil {
		l.tags <- m.Tag
		return nil, &lost{cause: why}
	}
	c := &call{fid: fidOf(m), forgot: forgot, owed: true, done: make(chan struct{})}
	c.Request = greet.Request{Tag: m.Tag, Type: m.Type, Frame: frame}
	l.calls[c.Tag] = c
	l.queue(&c.Request)
	return c, nil
}

// fidOf is the fid that m makes or ends.
func fidOf(m *wire.Msg) uint32 {
	switch {
	case m.Type == wire.Twalk && m.Newfid != m.Fid:
		return m.Newfid
	case m.Type == wire.Tclunk:
		return m.Fid
	}
	return rootFid
}

// frame is m's, in storage of its own, since it may have to be sent again.
func (l *link) frame(m *wire.Msg) ([]byte, error) {
	const most = 64 // bytes of most frames, but for their data
	frame, err := wire.Append(make([]byte, 0, most+len(m.Data)), m, l.dialect)
	if err != nil {
		return nil, err
	}
	if len(frame) > int(l.msize) {
		return nil, errs.New(errs.TooBig, "a request of %d bytes, the server takes %d", len(frame), l.msize)
	}
	return frame, nil
}

// queue gives r to the writer; mu is held.
func (l *link) queue(r *greet.Request) {
	l.window.Queued = append(l.window.Queued, r)
	l.wake()
}

// wake sees to it that the writer looks.
func (l *link) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// flush asks the server to forget c, or does so itself while c has not left; mu
// is held.
func (l *link) flush(c *call) {
	switch {
	case !c.owed || c.flush != nil:
	case c.Number == 0:
		l.settled(c, errFlushed)
	default:
		m := wire.Msg{Type: wire.Tflush, Tag: c.Tag | flushBit, Oldtag: c.Tag}
		frame, _ := l.frame(&m) // which always has one
		c.Flushed, c.flush = true, &greet.Request{Tag: m.Tag, Type: m.Type, Frame: frame}
		l.queue(c.flush)
	}
}

// forget flushes c if it is not over; nobody waits for it any more.
func (l *link) forget(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush(c)
	c.forgot = true
	if c.over {
		l.settle(c)
	}
}

// byeTime is how long bye waits for its answer.
const byeTime = time.Second

// bye ends the session, by a second Tversion, and then the link: the server need
// not keep what nobody will come back to.
func (l *link) bye() {
	if !l.keyed {
		return
	}
	l.mu.Lock()
	m := wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: l.msize, Version: l.dialect.String()}
	l.last, _ = l.frame(&m)
	l.going = true
	l.wake()
	l.mu.Unlock()
	late := time.NewTimer(byeTime)
	defer late.Stop()
	select {
	case <-l.dead:
	case <-late.C:
	}
}

// cause is why the link ended; nil while it lives.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// fail ends the link, and every request on it.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	close(l.dead)
	l.line.end(err)
	for _, c := range l.calls {
		c.owed, c.flush = false, nil
		l.finish(c, &lost{sent: c.Number != 0, cause: err})
	}
	clear(l.calls)
}

// settled ends c, for which the server owes nothing more; mu is held.
func (l *link) settled(c *call, err error) {
	l.window.Remove(&c.Request)
	c.owed = false
	l.finish(c, err)
	l.retire(c)
}

// finish ends c with err, or with the reply that it has; mu is held.
func (l *link) finish(c *call, err error) {
	if c.over {
		return
	}
	c.over, c.err = true, err
	if c.forgot {
		l.settle(c)
	}
	close(c.done)
}

// retire frees c's tag when no more can come for it; mu is held.
func (l *link) retire(c *call) {
	if !c.owed && c.flush == nil {
		delete(l.calls, c.Tag)
		l.tags <- c.Tag
	}
}

// settle sees to the fid of c, which is over and nobody waits for; mu is held. The
// reader may be here, who must not wait for a tag.
func (l *link) settle(c *call) {
	switch {
	case c.fid == rootFid:
	case isLost(c.err):
		l.lose(c.fid)
	case c.Type == wire.Tclunk || c.err != nil:
		l.fids.put(c.fid)
	default:
		l.clunk(c.fid)
	}
}

// result is how c ended.
func (c *call) result() (*wire.Msg, error) {
	if c.err != nil {
		return nil, c.err
	}
	return &c.reply, nil
}
