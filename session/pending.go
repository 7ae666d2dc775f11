package session

import (
	"slices"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/wire"
)

// mayComeAgain tells whether a request that ended with err can be handled again: the answer
// of another service was missing (fs.Pending), or room for its reply (errShort).
func mayComeAgain(err error) bool {
	_, pending := fs.AsPending(err)
	return pending || err == errShort
}

// postpone adds a request that ended with why (mayComeAgain). When what was missing is
// there, the request is handled again, as if it had come only then. In a numbered dialect
// it already has its number, and Tflush cancels it.
func (c *conn) postpone(m *wire.Msg, why error) error {
	if err := c.mayWait(); err != nil {
		return err
	}
	kept := *m // a copy, because m's lists end with the call; requests with Data are changes, and do not come here
	kept.Names, kept.Data = slices.Clone(m.Names), nil
	r := &request{tag: m.Tag, again: askAgain, msg: &kept}
	r.cancel = func() {} // when the answer comes, it is not in c.waiting any more
	c.await(r, why)
	return nil
}

// await lets r wait for what was missing.
func (c *conn) await(r *request, why error) {
	c.enter(r)
	if p, pending := fs.AsPending(why); pending {
		r.answers = append(r.answers, p)
		p.Start(r.woken)
		return
	}
	r.fid = c.sess.fids[r.msg.Fid]
	c.awaitRoomFor(r)
}

// awaitRoomFor lets r, which was added, wait for the memory that its reply needs.
func (c *conn) awaitRoomFor(r *request) {
	w := c.output.bill.account.Wait(c.need, r.woken)
	r.room, r.cancel = w, w.End
}

// takeRoom gives the connection what r has waited for, if anything.
func (c *conn) takeRoom(r *request) error {
	w := r.room
	if w == nil {
		return nil
	}
	r.room = nil
	if err := w.Take(); err != nil {
		return err
	}
	c.granted += w.Bytes()
	c.output.bill.paid += w.Bytes()
	return nil
}

// hasRoom is takeRoom for a request of a fid, which may be gone by now.
func (c *conn) hasRoom(r *request) error {
	if r.room == nil {
		return nil
	}
	if err := c.takeRoom(r); err != nil {
		return err
	}
	if c.sess.fids[r.msg.Fid] != r.fid {
		return errs.UnknownFid
	}
	return nil
}

// askAgain handles a request with what it has waited for. First it sends the replies
// before it: so each reply has a buffer of the usual size, and none has one as large as
// all of them. The loop may be reading meanwhile, or handling another request, so its work
// is not used.
func askAgain(r *request) {
	c := r.c
	if len(c.out) >= sendSize {
		c.stalled = append(c.stalled, r)
		return
	}
	delete(c.waiting, r.tag)
	now, tag, w := c.now, c.nowTag, c.work
	c.now, c.nowTag, c.work = r.asked, r.tag, new(work)
	err := c.hasRoom(r)
	if err == nil {
		err = c.sess.view.Answered(r.answers, func() error { return c.dispatch(r.msg) })
	}
	c.granted = 0
	c.settleOut()
	if mayComeAgain(err) {
		c.await(r, err)
	} else if err != nil {
		c.refuse(r.tag, err)
	}
	c.now, c.nowTag, c.work = now, tag, w
}
