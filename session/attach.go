package session

import (
	"bytes"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// tattach gives the client its root, or the folder that aname names (attach(5)).
// Any uname may attach and gets no rights by it. Authentication belongs to the
// connection, so afid may be NOFID even then.
func tattach(c *conn, m *wire.Msg) error {
	if err := c.vacant(m.Fid); err != nil {
		return err
	}
	s := c.sess
	if err := s.checkAfid(m.Afid); err != nil {
		return err
	}
	if s.who.Nobody() {
		return errs.New(errs.AuthFailed, "this connection has not said who it is")
	}
	if s.view == nil {
		s.view = c.srv.cfg.Tree.View(s.who)
	}
	ref, err := s.view.Attach(m.Uname, m.Aname)
	if err != nil {
		return err
	}
	s.add(&fid{num: m.Fid, ref: ref})
	if s.id == 0 {
		c.srv.enroll(c, s)
	}
	c.answerQID(wire.Rattach, m.Tag, ref.QID())
	return nil
}

// checkAfid refuses an afid that is not an auth fid.
func (s *session) checkAfid(num uint32) error {
	if num == wire.NoFid {
		return nil
	}
	f, err := s.find(num)
	if err == nil && !f.auth {
		return errs.BadUse
	}
	return err
}

// authPath is the qid path of every auth fid; the tree has none so high.
const authPath = 1<<64 - 1

// tauth makes an auth fid, to which a MUMBLE message can be written (docs/protocol.md,
// "MUMBLE"). Linux's clients take ENOENT for "not needed here".
func tauth(c *conn, m *wire.Msg) error {
	if !c.authenticates() {
		return errs.New(errs.NotFound, "nothing is to be authenticated here")
	}
	if err := c.vacant(m.Afid); err != nil {
		return err
	}
	c.sess.add(&fid{num: m.Afid, auth: true})
	c.answerQID(wire.Rauth, m.Tag, p9.QID{Type: p9.TypeAuth, Path: authPath})
	return nil
}

// authenticates tells whether a Tauth makes sense. Where the channel has proved its peer,
// attach(5) asks for an error, and clients go on without (diodcat, py9p, 9pfuse). But
// Erlang on Xen sends its message on every channel, because the message also sets its
// session key, and our own programs may do the same.
func (c *conn) authenticates() bool {
	switch c.dialect {
	case wire.Plain, wire.U, wire.L:
		return c.srv.cfg.Auth != nil && c.peer.Who.Nobody()
	}
	return c.srv.cfg.Auth != nil
}

// stays is the principal of the connection's client after a Tversion. A VM that was proved
// here by MUMBLE stays proved: eoxmount of Erlang on Xen authenticates and then hands the
// transport to Linux, which begins with a Tversion of its own. The admin does not stay:
// nothing needs that, and the right would outlive its session.
func (c *conn) stays() fs.Principal {
	if c.peer.Who.Nobody() {
		return fs.Principal{VM: c.proved}
	}
	return c.peer.Who
}

// maxMessage is the longest MUMBLE message that is looked at, in bytes.
const maxMessage = 4096

// authenticate is a Twrite to an auth fid: the whole message at once. It is judged
// after a delay where tries have failed before. Meanwhile no other is judged, so that
// many that are sent together gain nothing.
func (c *conn) authenticate(m *wire.Msg) error {
	switch {
	case m.Offset != 0, len(m.Data) > maxMessage, c.try != nil && c.waiting[c.try.tag] == c.try:
		return c.refuseMessage()
	}
	tag, count, fid, wait := m.Tag, m.Count, m.Fid, c.tryDelay()
	if wait == 0 {
		return c.judge(tag, count, m.Data)
	}
	if err := c.mayWait(); err != nil {
		return err
	}
	data := bytes.Clone(m.Data)
	c.try = c.answerAfter(tag, wait, func() error { return c.judge(tag, count, data) })
	c.try.msg = &wire.Msg{Type: wire.Twrite, Tag: tag, Fid: fid, Count: count, Data: data}
	return nil
}

// refuseMessage counts and logs a MUMBLE message that is refused.
func (c *conn) refuseMessage() error {
	c.srv.stats.AuthFailures.Add(1)
	c.miss()
	c.srv.warn(c.peer, "auth "+prefix(c.peer.Addr).String(), "MUMBLE message refused", errs.AuthFailed)
	return errs.AuthFailed
}

// judge answers a MUMBLE message. It proves who the client is, or, where the channel
// has done so, must name the same one; and it sets the session key.
func (c *conn) judge(tag uint16, count uint32, message []byte) error {
	id, err := c.srv.cfg.Auth.Check(message)
	if err != nil {
		return c.refuseMessage()
	}
	s := c.sess
	switch {
	case s.who.Nobody():
		if err := c.become(id.Who); err != nil {
			return err
		}
	case s.who != id.Who:
		return errs.AuthFailed
	}
	s.key = keyOf(&wire.Msg{Key: id.Key})
	if s.id != 0 {
		c.srv.enroll(c, s)
	}
	c.answer(&wire.Msg{Type: wire.Rwrite, Tag: tag, Count: count})
	return nil
}

// become gives a connection whose peer was unknown its principal.
func (c *conn) become(who fs.Principal) error {
	if err := c.srv.countFor(c, who.VM); err != nil {
		if err == errFrozen {
			c.shut() // it gets no answer, and will connect again
		}
		return err
	}
	c.sess.who = who
	c.works()
	c.rebill(who)
	c.sess.rebill(c.srv, who)
	if who.VM != "" {
		c.proved = who.VM
	}
	c.known()
	return nil
}

// known stops the timer of a connection whose peer had to prove who it is.
func (c *conn) known() {
	if c.clock != nil {
		c.clock.Stop()
	}
}
