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

// transport is one transport that was greeted. Conn guards all but nc, frames and over.
type transport struct {
	nc     net.Conn
	frames *Frames
	over   chan struct{} // closed when it has ended

	why    error       // it has ended; nil: not yet
	heard  time.Time   // when something came last
	watch  *time.Timer // looks whether the server is silent; nil: no answer is due
	ending bool        // the session is to end
	ofUse  bool        // somebody got an answer
}

func newTransport(nc net.Conn, fresh bool) *transport {
	f := NewFrames(nc)
	f.fresh = fresh
	return &transport{nc: nc, frames: f, over: make(chan struct{})}
}

// fail closes the transport because of err. The lock is held.
func (t *transport) fail(err error) {
	if t.why == nil {
		t.why = plain(err)
		t.nc.Close()
	}
}

// carry reads and writes t until it ends, and says why. ofUse: it is worth a quick
// return.
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
	c.more.Broadcast()
	c.Unlock()
	<-written
	close(t.over)
	return t.ofUse || time.Since(start) > goodLife, t.why
}

// endSession lets the session end, and the transport with it: by a second Tversion if
// the server keeps the session, since it need not. The lock is held.
func (c *Conn) endSession() {
	t := c.up
	switch {
	case t == nil || t.ending:
		return
	case c.kept:
		time.AfterFunc(endTime, func() { t.nc.Close() })
		c.more.Broadcast()
	default:
		t.nc.Close()
	}
	t.ending = true
}

// read takes replies until t ends.
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

// reply gives a reply to the Owner. An error ends the transport: a server that breaks
// the protocol cannot be understood from there on.
func (c *Conn) reply(t *transport, frame []byte) (pass []byte, err error) {
	_, typ, tag, _ := wire.Split(frame)
	c.Lock()
	defer c.Unlock()
	t.heard = time.Now()
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
	t.ofUse = t.ofUse || !r.Background
	c.Remove(r)
	switch {
	case r.Old == nil:
	case typ == wire.Rflush:
		c.Remove(r.Old)
	default: // a server that knows no Tflush (LING): what was to be flushed gets its answer
		r.Old.Flushed = false
	}
	return pass, nil
}

// write sends what is queued until t ends, all that has gathered in one write.
func (c *Conn) write(t *transport) {
	var buf []byte
	for last := false; !last; {
		var from uint64
		if buf, from, last = c.batch(t, small(buf)); len(buf) == 0 {
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

// small is b's storage for the next frames, unless it is large: an idle transport
// holds no large buffer.
func small(b []byte) []byte {
	if cap(b) > batchSize {
		return nil
	}
	return b[:0]
}

// batch waits for requests and gives their frames, of which from is the first's number;
// none when t has ended. They are in buf's storage, but for a large one, which is not
// copied. The last batch of a session that is to end is the Tversion that ends it, before
// whatever is queued.
func (c *Conn) batch(t *transport, buf []byte) (frames []byte, from uint64, last bool) {
	c.Lock()
	defer c.Unlock()
	for c.up == t && t.why == nil && !t.ending && len(c.Queued) == 0 {
		c.more.Wait()
	}
	from = c.Count + 1
	switch {
	case c.up != t || t.why != nil:
		return nil, 0, true
	case t.ending:
		m := wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: c.msize, Version: c.dialect.String()}
		frames, _ = wire.Append(buf, &m, c.dialect) // which always has a frame
		return frames, from, true
	case len(c.Queued[0].Frame) > batchSize:
		frames = c.next().Frame // which is not copied
	default:
		for frames = buf; len(c.Queued) > 0 && len(frames)+len(c.Queued[0].Frame) <= batchSize; {
			frames = append(frames, c.next().Frame...)
		}
	}
	c.guard(t)
	return frames, from, false
}

// guard sees to it that somebody looks whether the server is still there while an
// answer is due. The lock is held.
func (c *Conn) guard(t *transport) {
	if t.watch == nil {
		t.heard = time.Now()
		t.watch = time.AfterFunc(probeTime, func() { c.look(t) })
	}
}

// look probes a server that is silent, and gives it up in the end; not before it has had
// a while to answer a probe: we may have been the ones who stood still.
func (c *Conn) look(t *transport) {
	c.Lock()
	defer c.Unlock()
	silent := time.Since(t.heard)
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

// probe asks the server to forget a request that there is not, which it answers at
// once. It names NOTAG, not itself: there are servers that wait for themselves then.
func (c *Conn) probe() {
	frame, _ := wire.Append(nil, &wire.Msg{Type: wire.Tflush, Tag: probeTag, Oldtag: wire.NoTag}, c.dialect)
	c.Send(&Request{Tag: probeTag, Type: wire.Tflush, Frame: frame, Background: true, probe: true})
}
