package session

import (
	"slices"

	"meta9/fs"
	"meta9/session/wire"
)

// await enters a request whose file somebody else has to be asked for (fs.Pending). It
// is handled once more when the answer is there, as if it came only then; but in a
// numbered dialect it has its number, and Tflush cancels it.
func (c *conn) await(m *wire.Msg, p *fs.Pending) error {
	if err := c.mayWait(); err != nil {
		return err
	}
	kept := *m // whose lists live as long as the call; what has Data changes something, and does not come here
	kept.Names, kept.Data = slices.Clone(m.Names), nil
	r := &request{tag: m.Tag, again: askAgain, cancel: func() {}, msg: &kept}
	c.ask(r, p)
	return nil
}

// ask lets r wait for an answer. One that was cancelled is not in c.waiting any more
// when that comes.
func (c *conn) ask(r *request, p *fs.Pending) {
	r.answers = append(r.answers, p)
	c.enter(r)
	p.Start(r.woken)
}

// askAgain handles a request with the answers that it has waited for. The loop may be
// about to read meanwhile, or handle another request: its place to work in is not ours.
func askAgain(r *request) {
	c := r.c
	delete(c.waiting, r.tag)
	now, tag, w := c.now, c.nowTag, c.work
	c.now, c.nowTag, c.work = r.asked, r.tag, new(work)
	err := c.sess.view.Answered(r.answers, func() error { return c.dispatch(r.msg) })
	if p, pending := fs.AsPending(err); pending {
		c.ask(r, p)
	} else if err != nil {
		c.refuse(r.tag, err)
	}
	c.now, c.nowTag, c.work = now, tag, w
}
