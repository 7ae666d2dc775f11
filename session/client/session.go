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

	// flushGrace is how long a change whose context has ended still waits for its outcome.
	flushGrace = time.Second
)

// session is an attach and its requests. Where both sides number requests it outlives its
// transport. Elsewhere it ends with it, and its unanswered requests are lost.
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
	calls  map[uint16]*call // by tag, until no more reply can come for it
	down   chan struct{}    // closed while there is no transport
	gaveUp chan struct{}    // closed while there was no transport for longer than Patience
	why    error            // why the last transport ended
	ended  bool
}

// call is a request that waits for its reply. In the Background it has no caller, or its
// caller has given up; then settleFid clunks or frees its fid.
type call struct {
	redial.Request
	fid     uint32          // that Twalk makes or Tclunk ends; rootFid: none
	done    chan struct{}   // closed when it is over
	ended   bool            // who waits has been told how it ended
	pending bool            // the server has yet to answer
	flush   *redial.Request // its Tflush, while that is unanswered
	reply   wire.Msg
	err     error
}

// newSession is a session for an attach that was made, or, in a dialect without numbers,
// resumed. conn is held.
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

// rpc sends m, which changes nothing, and waits for its reply. When ctx ends it returns at
// once, and flushes m. After an error the fid that a Twalk may have made is released.
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

// ask is rpc with ctx, as a redial.Ask.
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
	var gone *lostError
	switch {
	case errors.As(err, &gone) && gone.sent:
		return nil, unknown(err)
	case errors.Is(err, errFlushed):
		return nil, context.Cause(ctx)
	}
	return reply, err
}

// outcome flushes c and waits for at most flushGrace; false: no answer came.
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

// release clunks fid. It waits only for a tag, and not even for that while there is no
// transport, or where the session has ended, which frees no tags.
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
		s.addStray(fid)
	case <-s.dead:
		s.addStray(fid)
	}
}

// clunk clunks fid and does not wait: without a free tag the fid becomes a stray. conn is
// held.
func (s *session) clunk(fid uint32) {
	select {
	case tag := <-s.tags:
		s.clunkAs(tag, fid)
	default:
		s.addStray(fid)
	}
}

// clunkAs is clunk with a tag; conn is held.
func (s *session) clunkAs(tag uint16, fid uint32) {
	m := wire.Msg{Type: wire.Tclunk, Tag: tag, Fid: fid}
	frame, _ := s.frame(&m) // which always has one
	if c, err := s.enqueue(&m, frame); err != nil {
		s.addStray(fid)
	} else {
		c.Background = true
	}
}

func (s *session) addStray(fid uint32) { s.fids.addStray(stray{fid, s.epoch}) }

// send queues m under a free tag. It waits only for a tag.
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
	return &lostError{cause: s.why}
}

// enqueue makes a call of m, which has a tag and a frame; conn is held.
func (s *session) enqueue(m *wire.Msg, frame []byte) (*call, error) {
	if s.ended || closed(s.gaveUp) {
		s.tags <- m.Tag
		return nil, &lostError{cause: s.why}
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

// frame is m's frame, in storage of its own, since it may be sent again.
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

// flush sends a Tflush of c, or, if c was not sent yet, removes it; conn is held.
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
	if c.ended {
		s.settleFid(c)
	}
}

// giveUp ends the requests of a session without a transport because of why, and refuses
// others until it has one. The requests are flushed if the session is resumed after all.
// conn is held.
func (s *session) giveUp(why error) {
	if s.ended || closed(s.gaveUp) {
		return
	}
	close(s.gaveUp)
	for _, c := range s.calls {
		if !c.Background && !c.ended {
			s.finish(c, &lostError{sent: c.Number != 0, cause: unavailable(why)})
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
		s.finish(c, &lostError{sent: c.Number != 0, cause: err})
	}
	clear(s.calls)
}

// reply handles the reply to a call, or to its Tflush. An error ends the transport. conn is
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

// flushed handles the answer to c's Tflush. After Rflush no reply comes for c. A server
// that does not know Tflush (LING) refuses it and answers c when it is done.
func (s *session) flushed(c *call, frame []byte) {
	c.flush = nil
	if _, typ, _, _ := wire.Split(frame); typ == wire.Rflush {
		s.settled(c, errFlushed)
	} else {
		s.freeTag(c)
	}
}

// settled ends c: no reply comes for it, except to its Tflush; conn is held.
func (s *session) settled(c *call, err error) {
	c.pending = false
	s.finish(c, err)
	s.freeTag(c)
}

// finish ends c with err, or with its reply; conn is held.
func (s *session) finish(c *call, err error) {
	if c.ended {
		return
	}
	c.ended, c.err = true, err
	if c.Background {
		s.settleFid(c)
	}
	close(c.done)
}

// freeTag frees c's tag when no reply can come for it any more; conn is held.
func (s *session) freeTag(c *call) {
	if !c.pending && c.flush == nil {
		delete(s.calls, c.Tag)
		s.tags <- c.Tag
	}
}

// settleFid clunks or frees the fid of c, which has ended and has no caller; conn is held.
// The runner may call it, which must not wait for a tag.
func (s *session) settleFid(c *call) {
	switch {
	case c.fid == rootFid:
	case isLost(c.err):
		s.addStray(c.fid)
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
