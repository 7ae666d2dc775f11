package client

import (
	"meta9/fs/errs"
	"meta9/session/greet"
	"meta9/session/wire"
)

// deliver gives a frame from t to the call that it answers. An error ends the
// transport: a server that breaks the protocol cannot be understood from there on.
func (l *link) deliver(t *line, frame []byte) error {
	_, _, tag, _ := wire.Split(frame)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls[tag&^flushBit]
	switch {
	case l.going && tag == wire.NoTag:
		return ErrClosed
	case c == nil, !c.asked(tag&flushBit != 0):
		return errs.New(errs.Protocol, "the server answered under tag %d, which asked nothing", tag)
	case tag&flushBit != 0:
		return l.deliverFlush(c, frame)
	}
	if err := wire.Decode(&c.reply, frame, l.dialect); err != nil {
		return err
	}
	refusal := greet.Refused(&c.reply)
	if refusal == nil && c.reply.Type != c.Type+1 {
		return errs.New(errs.Protocol, "the server answered %s with %s", c.Type, c.reply.Type)
	}
	t.answered = t.answered || !c.forgot
	if refusal != nil {
		l.settled(c, refusal)
	} else {
		l.settled(c, nil)
	}
	return nil
}

// asked tells whether the server may answer c, or its Tflush.
func (c *call) asked(flush bool) bool {
	if flush {
		return c.flush != nil && c.flush.Number != 0
	}
	return c.owed && c.Number != 0
}

// deliverFlush takes the answer to c's Tflush. After Rflush nothing more comes for
// c. A server that knows no Tflush refuses it (LING does) and answers c in its own
// time.
func (l *link) deliverFlush(c *call, frame []byte) error {
	var m wire.Msg
	if err := wire.Decode(&m, frame, l.dialect); err != nil {
		return err
	}
	if m.Type != wire.Rflush && m.Type != wire.Rerror {
		return errs.New(errs.Protocol, "the server answered Tflush with %s", m.Type)
	}
	l.window.Remove(c.flush)
	c.flush = nil
	if m.Type == wire.Rflush {
		l.settled(c, errFlushed)
	} else {
		c.Flushed = false
		l.retire(c)
	}
	return nil
}
