package client

import (
	"meta9/fs/errs"
	"meta9/session/wire"
)

// deliver gives frame to the call that it answers. An error ends the link: a
// server that breaks the protocol cannot be understood from there on.
func (l *link) deliver(frame []byte) error {
	_, _, tag, _ := wire.Split(frame)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls[tag&^flushBit]
	switch {
	case l.going && tag == wire.NoTag:
		return ErrClosed
	case c == nil, tag&flushBit != 0 && !c.flushing, tag&flushBit == 0 && c.over:
		return errs.New(errs.Protocol, "the server answered under tag %d, which asked nothing", tag)
	case tag&flushBit != 0:
		return l.deliverFlush(c, frame)
	}
	if err := wire.Decode(&c.reply, frame, l.dialect); err != nil {
		return err
	}
	switch c.reply.Type {
	case wire.Rerror:
		l.finish(c, answered(&c.reply))
	case c.typ + 1:
		l.finish(c, nil)
	default:
		return errs.New(errs.Protocol, "the server answered %s with %s", c.typ, c.reply.Type)
	}
	l.answered = l.answered || !c.forgot
	l.retire(c)
	return nil
}

// deliverFlush takes the answer to c's Tflush. After Rflush nothing more comes for
// c. A server that knows no Tflush refuses it (LING does) and answers c in its own
// time.
func (l *link) deliverFlush(c *call, frame []byte) error {
	var m wire.Msg
	if err := wire.Decode(&m, frame, l.dialect); err != nil {
		return err
	}
	switch m.Type {
	case wire.Rflush:
		l.finish(c, errFlushed)
	case wire.Rerror:
	default:
		return errs.New(errs.Protocol, "the server answered Tflush with %s", m.Type)
	}
	c.flushing = false
	l.retire(c)
	return nil
}

// retire frees c's tag when no more can come for it.
func (l *link) retire(c *call) {
	if c.over && !c.flushing {
		delete(l.calls, c.tag)
		l.tags <- c.tag
	}
}
