package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
)

const (
	// maxCalls is how many requests may wait for their replies at once; it is also
	// what a numbered dialect allows.
	maxCalls = wire.MaxNumbers

	// flushBit makes a call's tag that of its Tflush, so that a flush never waits
	// for a tag.
	flushBit uint16 = 0x8000

	// stallTime is how long a peer may leave a frame half sent, or not take what is
	// written to it, before the transport counts as lost. A parked session lives for
	// 30 s by default.
	stallTime = 20 * time.Second

	// flushGrace is how long a change whose context has ended waits for the server
	// to say what became of it.
	flushGrace = time.Second

	// readBuffer is what a link reads ahead, in bytes; larger frames are read in
	// place.
	readBuffer = 16 << 10
)

// link is one transport and the requests that wait on it. It lives from a greeting
// until its first error, and knows nothing of sessions: what was not answered when
// it ends is lost.
type link struct {
	conn     net.Conn
	rd       *bufio.Reader
	fids     *fids
	dialect  wire.Dialect
	msize    uint32
	epoch    uint64 // which attach its fids belong to
	keyed    bool   // the server keeps a session for it
	answered bool   // somebody got an answer; the reader's

	tags chan uint16   // those that are free
	kick chan struct{} // to the writer: out has frames
	dead chan struct{} // closed when err is set

	mu     sync.Mutex
	calls  map[uint16]*call // by tag; a flushed one until its Rflush
	out    []byte           // frames for the writer
	queued uint64           // bytes ever appended to out
	taken  uint64           // of these, what the writer has taken
	err    error            // why the link ended
	going  bool             // bye was said
}

// Whether somebody waits for a call.
const (
	awaited   = false
	forgotten = true
)

// call is a request that waits for its reply.
type call struct {
	tag      uint16
	typ      wire.Type
	fid      uint32        // that Twalk makes or Tclunk ends; rootFid: none
	at       uint64        // link.queued before its frame
	done     chan struct{} // closed when it is over
	over     bool
	flushing bool // a Tflush is out: the tag stays taken until its answer
	forgot   bool // nobody waits, or nobody any more: settle sees to its fid
	reply    wire.Msg
	err      error
}

func newLink(conn net.Conn, f *fids) *link {
	l := &link{
		conn: conn, rd: bufio.NewReaderSize(conn, readBuffer), fids: f,
		tags: make(chan uint16, maxCalls), kick: make(chan struct{}, 1), dead: make(chan struct{}),
		calls: make(map[uint16]*call),
	}
	for tag := range uint16(maxCalls) {
		l.tags <- tag
	}
	return l
}

// rpc sends m, which changes nothing, and waits for its reply. When ctx ends it
// returns at once, and the server's answer is dealt with when it comes. On error
// the fid that a Twalk would have made is seen to.
func (l *link) rpc(ctx context.Context, m *wire.Msg) (*wire.Msg, error) {
	c, err := l.send(ctx, m, awaited)
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
	c, err := l.send(ctx, m, awaited)
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
	l.flush(c)
	grace := time.NewTimer(flushGrace)
	defer grace.Stop()
	select {
	case <-c.done:
		return true
	case <-grace.C:
		return false
	}
}

// release tells the server to forget fid, and waits for nothing but a tag.
func (l *link) release(fid uint32) {
	m := wire.Msg{Type: wire.Tclunk, Fid: fid}
	if _, err := l.send(context.Background(), &m, forgotten); err != nil {
		l.fids.lose(stray{fid, l.epoch})
	}
}

// send queues m under a free tag. It waits for nothing but a tag.
func (l *link) send(ctx context.Context, m *wire.Msg, forgot bool) (*call, error) {
	select {
	case m.Tag = <-l.tags:
	case <-l.dead:
		return nil, &lost{cause: l.cause()}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.enqueue(m, forgot)
}

// enqueue makes m, whose tag is set, a call; mu is held.
func (l *link) enqueue(m *wire.Msg, forgot bool) (*call, error) {
	if l.err != nil {
		return nil, &lost{cause: l.err}
	}
	c := &call{tag: m.Tag, typ: m.Type, fid: fidOf(m), at: l.queued, forgot: forgot, done: make(chan struct{})}
	if err := l.queue(m); err != nil {
		l.tags <- m.Tag
		return nil, err
	}
	l.calls[c.tag] = c
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

// queue appends m's frame to what the writer sends; mu is held.
func (l *link) queue(m *wire.Msg) error {
	out, err := wire.Append(l.out, m, l.dialect)
	if err != nil {
		return err
	}
	size := len(out) - len(l.out)
	if size > int(l.msize) {
		return errs.New(errs.TooBig, "a request of %d bytes, the server takes %d", size, l.msize)
	}
	l.out, l.queued = out, l.queued+uint64(size)
	select {
	case l.kick <- struct{}{}:
	default:
	}
	return nil
}

// flush asks the server to forget c.
func (l *link) flush(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.over && !c.flushing {
		c.flushing = l.queue(&wire.Msg{Type: wire.Tflush, Tag: c.tag | flushBit, Oldtag: c.tag}) == nil
	}
}

// forget flushes c if it is not over; nobody waits for it any more.
func (l *link) forget(c *call) {
	l.flush(c)
	l.mu.Lock()
	defer l.mu.Unlock()
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
	l.going = true
	err := l.queue(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: l.msize, Version: l.dialect.String()})
	l.mu.Unlock()
	if err != nil {
		return
	}
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
	l.conn.Close()
	for _, c := range l.calls {
		l.finish(c, &lost{sent: c.at < l.taken, cause: err})
	}
	clear(l.calls)
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

// settle sees to the fid of c, which is over and nobody waits for; mu is held. The
// reader may be here, who must not wait for a tag: without one the fid stays with
// the server until the next link.
func (l *link) settle(c *call) {
	switch {
	case c.fid == rootFid:
	case isLost(c.err):
		l.fids.lose(stray{c.fid, l.epoch})
	case c.typ == wire.Tclunk || c.err != nil:
		l.fids.put(c.fid)
	default:
		m := wire.Msg{Type: wire.Tclunk, Fid: c.fid}
		select {
		case m.Tag = <-l.tags:
			_, err := l.enqueue(&m, forgotten)
			if err == nil {
				return
			}
		default:
		}
		l.fids.lose(stray{c.fid, l.epoch})
	}
}

// result is how c ended.
func (c *call) result() (*wire.Msg, error) {
	if c.err != nil {
		return nil, c.err
	}
	return &c.reply, nil
}

// write is the writer's loop: it sends all that has gathered in one write.
func (l *link) write() {
	var frames []byte
	for {
		select {
		case <-l.kick:
		case <-l.dead:
			return
		}
		frames = l.take(kept(frames))
		if len(frames) == 0 { // they went with the last write
			continue
		}
		l.conn.SetWriteDeadline(time.Now().Add(stallTime))
		if _, err := l.conn.Write(frames); err != nil {
			l.fail(err)
			return
		}
	}
}

// take gives what has gathered, and lets it gather in spare from now on.
func (l *link) take(spare []byte) (frames []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	frames, l.out, l.taken = l.out, spare[:0], l.queued
	return frames
}

// kept is b's storage for the next frames, unless it is large: an idle link holds
// no large buffer.
func kept(b []byte) []byte {
	if cap(b) > 4*readBuffer {
		return nil
	}
	return b
}

// read is the reader's loop: it gives each reply to its call until the link ends.
func (l *link) read() {
	for {
		frame, err := l.next()
		if err == nil {
			err = l.deliver(frame)
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

// next reads one frame, for whose beginning it waits as long as it takes. Each has
// storage of its own, so that a reply's data is not copied again.
func (l *link) next() ([]byte, error) {
	header, err := l.rd.Peek(wire.HeaderLen)
	if err != nil {
		return nil, ended(err)
	}
	size, _, _, _ := wire.Split(header)
	if size < wire.HeaderLen || size > l.msize {
		return nil, errs.New(errs.Protocol, "the server sent a frame of %d bytes, msize is %d", size, l.msize)
	}
	if l.rd.Buffered() < int(size) {
		l.conn.SetReadDeadline(time.Now().Add(stallTime))
		defer l.conn.SetReadDeadline(time.Time{})
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(l.rd, frame); err != nil {
		return nil, ended(err)
	}
	return frame, nil
}

// ended says in words what io.EOF means here.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server closed it")
	}
	return err
}
