package client

import (
	"context"
	"errors"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

const (
	// maxCalls is how many requests may wait for their replies at once: each may have
	// its Tflush.
	maxCalls = redial.MaxRequests / 2

	// flushBit makes a call's tag that of its Tflush, so that a flush never waits
	// for a tag.
	flushBit uint16 = 0x8000

	// flushGrace is how long a change whose context has ended waits for the server
	// to say what became of it.
	flushGrace = time.Second
)

// session is an attach, and the requests that wait below it. Where both sides number
// them it outlives its transport. Elsewhere it ends with it, and what was not answered is
// lost.
type session struct {
	conn    *redial.Conn
	fids    *fids
	dialect wire.Dialect
	msize   uint32
	epoch   uint64 // which attach its fids belong to
	root    redial.Root

	tags chan uint16   // those that are free
	dead chan struct{} // closed when it has ended

	// conn guards the rest.
	calls  map[uint16]*call // by tag, until nothing more can come for it
	down   chan struct{}    // closed while there is no transport
	gaveUp chan struct{}    // closed while there has been none for longer than Patience
	why    error            // why the last transport ended
	ended  bool
}

// call is a request that waits for its reply. Where it is in the Background nobody waits
// for it, or nobody any more, and settle sees to its fid.
type call struct {
	redial.Request
	fid     uint32          // that Twalk makes or Tclunk ends; rootFid: none
	done    chan struct{}   // closed when it is over
	over    bool            // who waits has been told how it ended
	pending bool            // the server has yet to answer
	flush   *redial.Request // its Tflush, while that is unanswered
	reply   wire.Msg
	err     error
}

// newSession is an attach that was made, or, where nobody numbers requests, found again.
// conn is held.
func (c *Client) newSession(d wire.Dialect, msize uint32, epoch uint64, root p9.QID) *session {
	s := &session{
		conn: c.conn, fids: &c.fids, dialect: d, msize: msize, epoch: epoch, root: redial.Root{Fid: rootFid, QID: root},
		tags: make(chan uint16, maxCalls), dead: make(chan struct{}), calls: make(map[uint16]*call),
		down: make(chan struct{}), gaveUp: make(chan struct{}),
	}
	for tag := range uint16(maxCalls) {
		s.tags <- tag
	}
	return s
}

// rpc sends m, which changes nothing, and waits for its reply. When ctx ends it
// returns at once, and the server's answer is dealt with when it comes. On error
// the fid that a Twalk would have made is seen to.
func (s *session) rpc(ctx context.Context, m *wire.Msg) (*wire.Msg, error) {
	c, err := s.send(ctx, m)
	if err != nil {
		if fid := fidOf(m); fid != rootFid {
			s.fids.put(fid)
		}
		return nil, err
	}
	select {
	case <-c.done:
		if c.err != nil {
			s.abandon(c)
		}
		return c.result()
	case <-ctx.Done():
		s.abandon(c)
		return nil, context.Cause(ctx)
	}
}

// ask is rpc for a caller's ctx.
func (s *session) ask(ctx context.Context) redial.Ask {
	return func(m *wire.Msg) (*wire.Msg, error) { return s.rpc(ctx, m) }
}

// change sends m, which changes something, and waits for its reply. The error
// has ErrUnknown in its chain when it may have happened.
func (s *session) change(ctx context.Context, m *wire.Msg) (*wire.Msg, error) {
	c, err := s.send(ctx, m)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if !s.outcome(c) {
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
func (s *session) outcome(c *call) bool {
	s.conn.Lock()
	s.flush(c)
	s.conn.Unlock()
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
func (s *session) release(fid uint32) {
	s.conn.Lock()
	down := s.down
	s.conn.Unlock()
	select {
	case tag := <-s.tags:
		s.conn.Lock()
		defer s.conn.Unlock()
		s.clunkAs(tag, fid)
	case <-down:
		s.lose(fid)
	}
}

// clunk is release that waits for nothing: without a tag the fid stays with the
// server until the next transport. conn is held.
func (s *session) clunk(fid uint32) {
	select {
	case tag := <-s.tags:
		s.clunkAs(tag, fid)
	default:
		s.lose(fid)
	}
}

// clunkAs is clunk with a tag; conn is held.
func (s *session) clunkAs(tag uint16, fid uint32) {
	m := wire.Msg{Type: wire.Tclunk, Tag: tag, Fid: fid}
	frame, _ := s.frame(&m) // which always has one
	if c, err := s.enqueue(&m, frame); err != nil {
		s.lose(fid)
	} else {
		c.Background = true
	}
}

func (s *session) lose(fid uint32) { s.fids.lose(stray{fid, s.epoch}) }

// send queues m under a free tag. It waits for nothing but a tag.
func (s *session) send(ctx context.Context, m *wire.Msg) (*call, error) {
	select {
	case m.Tag = <-s.tags:
	default:
		if err := s.await(ctx, &m.Tag); err != nil {
			return nil, err
		}
	}
	frame, err := s.frame(m)
	if err != nil {
		s.tags <- m.Tag
		return nil, err
	}
	s.conn.Lock()
	defer s.conn.Unlock()
	return s.enqueue(m, frame)
}

// await waits for a tag.
func (s *session) await(ctx context.Context, tag *uint16) error {
	s.conn.Lock()
	gaveUp := s.gaveUp
	s.conn.Unlock()
	select {
	case *tag = <-s.tags:
		return nil
	case <-s.dead:
	case <-gaveUp:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.conn.Lock()
	defer s.conn.Unlock()
	return &lost{cause: s.why}
}

// enqueue makes m, which has a tag and a frame, a call; conn is held.
func (s *session) enqueue(m *wire.Msg, frame []byte) (*call, error) {
	if s.ended || closed(s.gaveUp) {
		s.tags <- m.Tag
		return nil, &lost{cause: s.why}
	}
	c := &call{fid: fidOf(m), pending: true, done: make(chan struct{})}
	c.Request = redial.Request{Tag: m.Tag, Type: m.Type, Frame: frame}
	s.calls[c.Tag] = c
	s.conn.Send(&c.Request)
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
func (s *session) frame(m *wire.Msg) ([]byte, error) {
	const most = 64 // bytes of most frames, but for their data
	frame, err := wire.Append(make([]byte, 0, most+len(m.Data)), m, s.dialect)
	if err != nil {
		return nil, err
	}
	if len(frame) > int(s.msize) {
		return nil, errs.New(errs.TooBig, "a request of %d bytes, the server takes %d", len(frame), s.msize)
	}
	return frame, nil
}

// flush asks the server to forget c, or does so itself while c has not left; conn is
// held.
func (s *session) flush(c *call) {
	if !c.pending || c.flush != nil {
		return
	}
	m := wire.Msg{Type: wire.Tflush, Tag: c.Tag | flushBit, Oldtag: c.Tag}
	frame, _ := s.frame(&m) // which always has one
	r := &redial.Request{Tag: m.Tag, Type: m.Type, Frame: frame, Old: &c.Request, Background: true}
	if s.conn.Flush(r) {
		s.settled(c, errFlushed)
	} else {
		c.flush = r
	}
}

// abandon flushes c if it is not over; nobody waits for it any more.
func (s *session) abandon(c *call) {
	s.conn.Lock()
	defer s.conn.Unlock()
	s.flush(c)
	c.Background = true
	if c.over {
		s.settle(c)
	}
}

// giveUp ends the requests of a session that has no transport, and refuses others
// until it has one: why is why there is none. Nobody wants their answers any more,
// so that they are flushed if the session is resumed after all. conn is held.
func (s *session) giveUp(why error) {
	if s.ended || closed(s.gaveUp) {
		return
	}
	close(s.gaveUp)
	for _, c := range s.calls {
		if !c.Background && !c.over {
			s.finish(c, &lost{sent: c.Number != 0, cause: unavailable(why)})
			s.flush(c)
		}
	}
}

// fail ends the session because of err, and every request of it; conn is held.
func (s *session) fail(err error) {
	if s.ended {
		return
	}
	s.ended, s.why = true, err
	close(s.dead)
	for _, c := range s.calls {
		c.pending, c.flush = false, nil
		s.finish(c, &lost{sent: c.Number != 0, cause: err})
	}
	clear(s.calls)
}

// reply takes the reply to a call, or to its Tflush. An error ends the transport. conn is
// held.
func (s *session) reply(r *redial.Request, frame []byte) error {
	c := s.calls[r.Tag&^flushBit]
	if r == c.flush {
		s.flushed(c, frame)
		return nil
	}
	if err := wire.Decode(&c.reply, frame, s.dialect); err != nil {
		return err
	}
	if refusal := redial.Refused(&c.reply); refusal != nil {
		s.settled(c, refusal)
	} else {
		s.settled(c, nil)
	}
	return nil
}

// flushed takes the answer to c's Tflush. After Rflush nothing more comes for c. A server
// that knows no Tflush refuses it (LING does) and answers c in its own time.
func (s *session) flushed(c *call, frame []byte) {
	c.flush = nil
	if _, typ, _, _ := wire.Split(frame); typ == wire.Rflush {
		s.settled(c, errFlushed)
	} else {
		s.retire(c)
	}
}

// settled ends c, for which nothing more comes but the answer to its Tflush; conn is held.
func (s *session) settled(c *call, err error) {
	c.pending = false
	s.finish(c, err)
	s.retire(c)
}

// finish ends c with err, or with the reply that it has; conn is held.
func (s *session) finish(c *call, err error) {
	if c.over {
		return
	}
	c.over, c.err = true, err
	if c.Background {
		s.settle(c)
	}
	close(c.done)
}

// retire frees c's tag when no more can come for it; conn is held.
func (s *session) retire(c *call) {
	if !c.pending && c.flush == nil {
		delete(s.calls, c.Tag)
		s.tags <- c.Tag
	}
}

// settle sees to the fid of c, which is over and nobody waits for; conn is held. The
// runner may be here, who must not wait for a tag.
func (s *session) settle(c *call) {
	switch {
	case c.fid == rootFid:
	case isLost(c.err):
		s.lose(c.fid)
	case c.Type == wire.Tclunk || c.err != nil:
		s.fids.put(c.fid)
	default:
		s.clunk(c.fid)
	}
}

// result is how c ended.
func (c *call) result() (*wire.Msg, error) {
	if c.err != nil {
		return nil, c.err
	}
	return &c.reply, nil
}
