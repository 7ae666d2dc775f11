package keep

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

const (
	// maxCalls is how many requests Calls may have without an answer: each may have its
	// Tflush.
	maxCalls = redial.MaxRequests / 2

	// flushBit makes a request's tag that of its Tflush, so that this never waits for one.
	flushBit uint16 = 0x8000

	// finalPause is the time between two calls of Interrupt.Final.
	finalPause = 200 * time.Millisecond
)

// ErrInterrupted is what a request ends with whose caller has given up, and that the
// server has forgotten or never had.
var ErrInterrupted = errors.New("interrupted")

// Calls is a client of a Keeper in this process, which speaks 9P2000.L. Its methods may
// be called from any goroutine.
type Calls struct {
	k    *Keeper
	tags chan uint16   // those that are free
	dead chan struct{} // closed by Close
	end  sync.Once

	mu      sync.Mutex                    // guards waiting; nothing is waited for with it held
	waiting map[uint16]func(frame []byte) // by tag, who gets the reply; frame is valid only during the call
}

// Interrupt is how the caller of a request is interrupted.
type Interrupt struct {
	// C is closed, or something can be received from it, when the caller was interrupted;
	// nil: never.
	C <-chan struct{}
	// Final tells whether the caller gives up. After C it is called again and again, until it
	// does or the reply has come. nil: the caller gives up at once.
	Final func() bool
}

// Calls begins to carry requests of this process's, in place of Serve, until Close or
// until ctx ends.
func (k *Keeper) Calls(ctx context.Context) *Calls {
	c := &Calls{k: k, tags: make(chan uint16, maxCalls), dead: make(chan struct{}), waiting: make(map[uint16]func([]byte))}
	for tag := range uint16(maxCalls) {
		c.tags <- tag
	}
	k.deliver, k.begun = c.deliver, true
	go k.conn.Run(ctx)
	return c
}

// Close ends the session, and what waits with errs.IO.
func (c *Calls) Close() {
	c.end.Do(func() {
		close(c.dead)
		c.k.end()
	})
}

// Dead is closed by Close.
func (c *Calls) Dead() <-chan struct{} { return c.dead }

// Watch has f called when the transport is lost, and when there is another; resumed: with
// the same session, so that nothing is missing. f must not wait.
func (c *Calls) Watch(f func(up, resumed bool)) {
	c.k.conn.Lock()
	defer c.k.conn.Unlock()
	c.k.watch = f
}

// Msize is the largest frame in bytes.
func (c *Calls) Msize() uint32 {
	c.k.conn.Lock()
	defer c.k.conn.Unlock()
	_, msize, _ := c.k.conn.Session()
	return msize
}

// Call sends m and waits for its reply, whatever becomes of transports. An error that
// the server or the Keeper answers is a *redial.Refusal.
func (c *Calls) Call(in Interrupt, m *wire.Msg) (*wire.Msg, error) {
	tag, err := await(c, in, c.tags)
	if err != nil {
		return nil, err
	}
	m.Tag = tag
	reply := make(chan []byte, 1)
	if err := c.enter(m, func(frame []byte) { reply <- bytes.Clone(frame) }); err != nil {
		c.tags <- tag
		return nil, err
	}
	frame, err := await(c, in, reply)
	if errors.Is(err, ErrInterrupted) {
		frame, err = c.flush(tag, reply)
	}
	if err == nil || errors.Is(err, ErrInterrupted) {
		c.tags <- tag // nothing more comes under it
	}
	if err != nil {
		return nil, err
	}
	return decode(frame)
}

// await receives from ch. ErrInterrupted: the caller has given up; errs.IO: Close was called.
func await[T any](c *Calls, in Interrupt, ch <-chan T) (v T, err error) {
	select {
	case v := <-ch:
		return v, nil
	case <-c.dead:
		return v, errs.IO
	case <-in.C:
	}
	for in.Final != nil && !in.Final() {
		select {
		case v := <-ch:
			return v, nil
		case <-c.dead:
			return v, errs.IO
		case <-time.After(finalPause):
		}
	}
	return v, ErrInterrupted
}

// flush flushes the request under a tag. Its reply may have come before.
func (c *Calls) flush(tag uint16, reply <-chan []byte) (frame []byte, err error) {
	flushed := make(chan struct{})
	if err := c.enter(&wire.Msg{Type: wire.Tflush, Tag: tag | flushBit, Oldtag: tag}, func([]byte) { close(flushed) }); err != nil {
		return nil, err
	}
	if _, err := await(c, Interrupt{}, flushed); err != nil { // nothing more comes under either tag
		return nil, err
	}
	c.mu.Lock()
	delete(c.waiting, tag)
	c.mu.Unlock()
	select {
	case frame := <-reply:
		return frame, nil
	default:
		return nil, ErrInterrupted
	}
}

// Start sends m, whose reply nobody needs; done is called when it has come. It waits for
// nothing but a tag.
func (c *Calls) Start(m *wire.Msg, done func()) {
	select {
	case m.Tag = <-c.tags:
	case <-c.dead:
		return
	}
	err := c.enter(m, func([]byte) {
		c.tags <- m.Tag
		done()
	})
	if err != nil {
		c.tags <- m.Tag
	}
}

// enter sends m, which has a tag; take gets the reply, and must not wait.
func (c *Calls) enter(m *wire.Msg, take func(frame []byte)) error {
	const most = 64 // bytes of most frames, but for their data
	frame, err := wire.Append(make([]byte, 0, most+len(m.Data)), m, wire.L)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.waiting[m.Tag] = take
	c.mu.Unlock()
	answer, err := c.k.addRequest(&redial.Request{Tag: m.Tag, Type: m.Type, Frame: frame})
	if err != nil {
		c.mu.Lock()
		delete(c.waiting, m.Tag)
		c.mu.Unlock()
		return err
	}
	c.k.answer(answer)
	return nil
}

// deliver gives each frame to who waits for it.
func (c *Calls) deliver(frames []byte) {
	for len(frames) >= wire.HeaderLen {
		size, _, tag, _ := wire.Split(frames)
		frame := frames[:size]
		frames = frames[size:]
		c.mu.Lock()
		take := c.waiting[tag]
		delete(c.waiting, tag)
		c.mu.Unlock()
		if take != nil {
			take(frame)
		}
	}
}

// decode is the reply in a frame, which it keeps.
func decode(frame []byte) (*wire.Msg, error) {
	m := new(wire.Msg)
	if err := wire.Decode(m, frame, wire.L); err != nil {
		return nil, err
	}
	if r := redial.Refused(m); r != nil {
		return nil, r
	}
	return m, nil
}
