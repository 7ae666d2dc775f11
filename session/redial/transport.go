package redial

import (
	"context"
	"net"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// batchSize is how many bytes of frames are written at once. A larger frame goes by
// itself.
const batchSize = 64 << 10

// probeTag is the tag of the Conn's own Tflush.
const probeTag = wire.NoTag - 1

// transport is one transport after its greeting. Conn's lock guards all but nc, frames and
// ended.
type transport struct {
	nc     net.Conn
	frames *Frames
	ended  chan struct{} // closed when it has ended

	why       error       // why it has ended; nil: it has not
	lastHeard time.Time   // when the last byte came
	watch     *time.Timer // calls checkSilence; nil: no answer is due
	ending    bool        // the session is to end
	useful    bool        // a request that is not in the Background got an answer
}

func newTransport(nc net.Conn, fresh bool) *transport {
	f := NewFrames(nc)
	f.fresh = fresh
	return &transport{nc: nc, frames: f, ended: make(chan struct{})}
}

// fail ends the transport because of err. The lock is held.
func (t *transport) fail(err error) {
	if t.why == nil {
		t.why = inWords(err)
		t.nc.Close()
	}
}

// carry reads and writes t until it ends, and returns why. useful: it was worth a new
// attempt without a pause.
func (c *Conn) carry(t *transport) (ofUse bool, why error) {
	defer context.AfterFunc(c.ctx, func() { t.nc.Close() })()
	start := time.Now()
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write(t)
	}()
	err := c.read(t)
	c.Lock()
	t.fail(err)
	c.up = nil
	if t.watch != nil {
		t.watch.Stop()
	}
	c.work.Broadcast()
	c.Unlock()
	<-written
	close(t.ended)
	return t.useful || time.Since(start) > usefulAfter, t.why
}

// endSession ends the session, and the transport with it. If the server keeps the session,
// a second Tversion ends it there. The lock is held.
func (c *Conn) endSession() {
	t := c.up
	switch {
	case t == nil || t.ending:
		return
	case c.kept:
		time.AfterFunc(endTime, func() { t.nc.Close() })
		c.work.Broadcast()
	default:
		t.nc.Close()
	}
	t.ending = true
}

// read reads replies until t ends.
func (c *Conn) read(t *transport) error {
	for {
		frame, err := t.frames.Next(c.msize)
		if err != nil {
			return err
		}
		pass, err := c.reply(t, frame)
		if err != nil {
			return err
		}
		if len(pass) > 0 {
			c.cfg.Owner.Pass(pass)
		}
	}
}

// reply passes a reply to the Owner. An error ends the transport: after a violation of
// the protocol nothing that follows can be trusted.
func (c *Conn) reply(t *transport, frame []byte) (pass []byte, err error) {
	_, typ, tag, _ := wire.Split(frame)
	c.Lock()
	defer c.Unlock()
	t.lastHeard = time.Now()
	r := c.Get(tag)
	switch {
	case t.ending && tag == wire.NoTag:
		return nil, errEnded
	case r == nil || r.Number == 0:
		return nil, errs.New(errs.Protocol, "the server answered under tag %d, which asked nothing", tag)
	case typ != r.Type+1 && typ != wire.Rerror && typ != wire.Rlerror:
		return nil, errs.New(errs.Protocol, "the server answered %s with %s", r.Type, typ)
	}
	if !r.probe {
		if pass, err = c.cfg.Owner.Reply(r, frame); err != nil {
			return nil, err
		}
	}
	t.useful = t.useful || !r.Background
	c.Remove(r)
	switch {
	case r.Old == nil:
	case typ == wire.Rflush:
		c.Remove(r.Old)
	default: // a server that does not know Tflush (LING): the other request gets its answer
		r.Old.Flushed = false
	}
	return pass, nil
}

// write sends queued requests until t ends, all that have gathered in one write.
func (c *Conn) write(t *transport) {
	var buf []byte
	for last := false; !last; {
		var from uint64
		if buf, from, last = c.batch(t, reusable(buf)); len(buf) == 0 {
			return
		}
		_ = t.nc.SetWriteDeadline(time.Now().Add(silenceTime))
		if n, err := t.nc.Write(buf); err != nil {
			c.Lock()
			if n == 0 {
				c.unsend(from)
			}
			t.fail(err)
			c.Unlock()
			return
		}
	}
}

// reusable is b's storage for the next frames, or nil if it is large: an idle transport
// keeps no large buffer.
func reusable(b []byte) []byte {
	if cap(b) > batchSize {
		return nil
	}
	return b[:0]
}

// batch waits for requests and returns their frames, and the number of the first; none
// when t has ended. The frames are in buf's storage; a large one is returned by itself and
// not copied. The last batch of a session that ends is a Tversion, before all that is
// queued.
func (c *Conn) batch(t *transport, buf []byte) (frames []byte, from uint64, last bool) {
	c.Lock()
	defer c.Unlock()
	for c.up == t && t.why == nil && !t.ending && len(c.Queued) == 0 {
		c.work.Wait()
	}
	from = c.Count + 1
	switch {
	case c.up != t || t.why != nil:
		return nil, 0, true
	case t.ending:
		m := wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: c.msize, Version: c.dialect.String()}
		frames, _ = wire.Append(buf, &m, c.dialect) // a Tversion always fits
		return frames, from, true
	case len(c.Queued[0].Frame) > batchSize:
		frames = c.next().Frame // large: not copied
	default:
		for frames = buf; len(c.Queued) > 0 && len(frames)+len(c.Queued[0].Frame) <= batchSize; {
			frames = append(frames, c.next().Frame...)
		}
	}
	c.watchSilence(t)
	return frames, from, false
}

// watchSilence starts the timer for checkSilence if an answer is due. The lock is held.
func (c *Conn) watchSilence(t *transport) {
	if t.watch == nil {
		t.lastHeard = time.Now()
		t.watch = time.AfterFunc(probeTime, func() { c.checkSilence(t) })
	}
}

// checkSilence probes a silent server, and ends the transport when the probe is not answered
// either. It always leaves time for an answer after the probe: if this machine was
// suspended, the silence is ours.
func (c *Conn) checkSilence(t *transport) {
	c.Lock()
	defer c.Unlock()
	silent := time.Since(t.lastHeard)
	switch {
	case c.up != t:
	case len(c.Sent) == 0:
		t.watch = nil
	case silent < probeTime:
		t.watch.Reset(probeTime - silent)
	case c.Get(probeTag) == nil:
		c.probe()
		t.watch.Reset(probeTime)
	case silent < silenceTime:
		t.watch.Reset(min(probeTime, silenceTime-silent))
	default:
		t.fail(errSilent)
	}
}

// probe sends a Tflush of a request that does not exist, which a server answers at once.
// It names NOTAG and not its own tag: some servers would wait for themselves.
func (c *Conn) probe() {
	frame, _ := wire.Append(nil, &wire.Msg{Type: wire.Tflush, Tag: probeTag, Oldtag: wire.NoTag}, c.dialect)
	c.Send(&Request{Tag: probeTag, Type: wire.Tflush, Frame: frame, Background: true, probe: true})
}
