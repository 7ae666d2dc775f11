package session

import (
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session/wire"
)

// foreign tells that the channel proves nobody, so that a key is all that a
// client can show.
func (c *conn) foreign() bool { return !c.peer.Resumes || c.peer.Who.Nobody() }

// tsession resumes the session that the key leads to, or makes the key this
// connection's (9P2000.e, docs/protocol.md). It gives the monitor up while an old
// transport is taken over; the loop stands still until then, since what follows
// means the session that comes back.
func tsession(c *conn, m *wire.Msg) error {
	if c.seq != c.first || m.Tag != wire.NoTag {
		return errs.New(errs.Invalid, "Tsession comes right after Rversion, with the tag ~0")
	}
	k := keyOf(m)
	if !c.foreign() {
		return c.lookUp(k)
	}
	if m.Draft || !k.set {
		return errs.CannotRecover // four bytes could be guessed
	}
	wait, ok := c.srv.misses.turn(c.peer.Addr, c.srv.cfg.Now())
	switch {
	case !ok:
		return errs.CannotRecover
	case wait == 0:
		return c.lookUp(k)
	}
	c.lookUpLater(k, wait)
	return nil
}

// lookUp answers a Tsession: the session comes back, or the key is announced. It
// gives the monitor up.
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
	case err != nil:
		return err
	case n == nil:
		return c.announce(k)
	case c.seq != seq || c.sess != blank: // the client did not wait for it
		c.srv.leave(n, true)
		return errs.CannotRecover
	}
	c.sess = n
	c.resuming = c.dialect.Numbered()
	c.known()
	c.srv.stats.Resumed.Add(1)
	c.srv.note(n, store.SessionResumed)
	c.empty(wire.Rsession, wire.NoTag)
	return nil
}

// announce answers for a key that leads nowhere. Where the channel proves its
// peer, it becomes this connection's; elsewhere it is a miss. Rsession in the
// draft's form says only that the key is known now.
func (c *conn) announce(k key) error {
	if c.foreign() {
		c.srv.stats.Misses.Add(1)
		c.srv.misses.missed(c.peer.Addr, c.srv.cfg.Now())
		return errs.CannotRecover
	}
	c.sess.key = k
	if k.draft {
		c.empty(wire.Rsession, wire.NoTag)
		return nil
	}
	return errs.CannotRecover
}

// lookUpLater delays a Tsession from an address that has missed too often. The
// loop goes on; if the client does as well, it has given the session up.
func (c *conn) lookUpLater(k key, wait time.Duration) {
	r, seq := &request{tag: wire.NoTag}, c.seq
	timer := time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lookUpNow(r, k, seq)
		c.flush()
	})
	r.cancel = func() { timer.Stop() }
	c.enter(r)
}

func (c *conn) lookUpNow(r *request, k key, seq uint64) {
	if c.waiting[r.tag] != r {
		return
	}
	err := error(errs.CannotRecover)
	if c.seq == seq {
		err = c.lookUp(k)
	}
	if c.waiting[r.tag] != r {
		return
	}
	delete(c.waiting, r.tag)
	if err != nil {
		c.refuse(r.tag, err)
	}
}
