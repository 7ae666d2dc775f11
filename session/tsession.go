package session

import (
	"time"

	"meta9/fs/cpu"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session/packet"
	"meta9/session/wire"
)

// foreign tells that the channel does not prove its peer, so that a key is all that the
// client can show.
func (c *conn) foreign() bool { return !c.peer.Resumes || c.peer.Who.Nobody() }

// tsession resumes the session that the key leads to, or makes the key that of this
// connection's session (9P2000.e, docs/protocol.md). It releases the monitor while an old
// transport is closed. The loop waits until that is over, because the next requests are
// for the session that is resumed.
func tsession(c *conn, m *wire.Msg) error {
	if c.seq != c.first || m.Tag != wire.NoTag {
		return errs.New(errs.Invalid, "Tsession comes right after Rversion, with the tag ~0")
	}
	k := keyOf(m)
	c.place.Give() // lookUp may wait
	if !c.foreign() {
		return c.lookUp(k)
	}
	if m.Draft || !k.set {
		return errs.CannotResume // the draft's four bytes could be guessed
	}
	if wait := c.tryDelay(); wait > 0 {
		c.lookUpLater(k, wait)
		return nil
	}
	return c.lookUp(k)
}

// tryDelay returns how long a key or a MUMBLE message of this connection waits before it
// is checked.
func (c *conn) tryDelay() time.Duration {
	wait := delay(int(c.missed))
	if c.peer.Addr != "" { // otherwise the channel has proved its peer
		wait = max(wait, c.srv.misses.delay(c.peer.Addr, c.srv.cfg.Now()))
	}
	return wait
}

// miss counts a wrong key or MUMBLE message.
func (c *conn) miss() {
	c.missed++
	if c.peer.Addr != "" {
		c.srv.misses.missed(c.peer.Addr, c.srv.cfg.Now())
	}
}

// lookUp answers a Tsession: the session is resumed, or the key is set. It releases the
// monitor.
func (c *conn) lookUp(k key) error {
	if !k.set {
		return c.announce(k)
	}
	blank, seq := c.sess, c.seq
	id, d := c.srv.indexer.id(&k, c.peer.Who, c.foreign()), c.dialect
	c.mu.Unlock()
	n, err := c.srv.claim(c, id, d)
	c.mu.Lock()
	switch {
	case err == errClosed && c.leaving:
		c.passes().put(asked{}, k.message())
		return nil
	case err == errClosed:
		c.shut()
		return nil
	case err != nil:
		return err
	case n == nil:
		return c.announce(k)
	case c.past():
		c.srv.parkOrEnd(n, false)
		c.srv.logEnd(c, n.who.String(), packet.ErrPast)
		return c.announce(k)
	case c.seq != seq || c.sess != blank: // the client has sent more without waiting
		c.srv.parkOrEnd(n, true)
		return errs.CannotResume
	}
	blank.close()
	c.begins(n)
	c.rebill(n.who)
	c.resuming = c.dialect.Numbered()
	c.known()
	c.srv.stats.Resumed.Add(1)
	c.srv.note(n, store.SessionResumed)
	c.empty(wire.Rsession, wire.NoTag)
	return nil
}

// past tells whether the guest went back in time since it had the session
// (packet.ErrPast). Then it must not resume the session.
func (c *conn) past() bool {
	l := c.link()
	return l != nil && l.Past()
}

// announce answers a Tsession whose key leads nowhere. If the channel proves its peer, the
// key becomes this connection's; otherwise it counts as a wrong key. Rsession in the
// draft's form only says that the key is known now.
func (c *conn) announce(k key) error {
	if c.foreign() {
		c.srv.stats.Misses.Add(1)
		c.miss()
		return errs.CannotResume
	}
	c.sess.key = k
	if k.draft {
		c.empty(wire.Rsession, wire.NoTag)
		return nil
	}
	return errs.CannotResume
}

// lookUpLater delays a Tsession after too many wrong keys. The loop goes on; if the client
// sends more meanwhile, it has given the session up.
func (c *conn) lookUpLater(k key, wait time.Duration) {
	seq := c.seq
	r := c.answerAfter(wire.NoTag, wait, func() error {
		if c.seq != seq {
			return errs.CannotResume
		}
		return c.lookUp(k)
	})
	r.msg = k.message()
}

// answerAfter answers a request after wait: step answers it, or returns the error for its
// reply. step is called with the monitor held, and may release it meanwhile.
func (c *conn) answerAfter(tag uint16, wait time.Duration, step func() error) *request {
	r := &request{tag: tag}
	timer := time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.answerNow(r, step)
		var p cpu.Place // not the loop's place: the loop goes on
		c.send(&p)
		p.Give()
	})
	r.cancel = func() { timer.Stop() }
	c.enter(r)
	return r
}

// answerNow is called after the wait. The request may be cancelled before it or during
// step.
func (c *conn) answerNow(r *request, step func() error) {
	if c.waiting[r.tag] != r {
		return
	}
	err := step()
	if c.waiting[r.tag] != r {
		return
	}
	delete(c.waiting, r.tag)
	if err != nil {
		c.refuse(r.tag, err)
	}
}
