package keep

import (
	"fmt"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

// owner is the Keeper as its redial.Conn sees it.
type owner struct{ *Keeper }

// Begin makes a new session: with the fids of the old one restored, or an empty one for a
// Tversion of the client's.
func (o owner) Begin(t *redial.Talk, unproven error) error {
	if unproven != nil {
		return fmt.Errorf("MUMBLE: %w", unproven)
	}
	o.conn.Lock()
	o.stale = false // so that addRequest does not read fids meanwhile
	if v := o.asked; v != nil && !o.conn.Renewing() {
		o.fids.reset()
		o.base, o.fresh = v.dialect, true
	}
	o.conn.Unlock()
	if o.fresh && !t.Dialect.Numbered() && o.base != wire.U {
		o.opt.Log.Warn().Stringer("version", t.Dialect).Msg("the server keeps no sessions: after a lost connection, changes that were not answered fail")
	}
	stale, err := o.restore(t)
	if err != nil {
		return err
	}
	if !o.fresh {
		o.conn.Lock() // addRequest drops stale fids by now
		fids := len(o.byNum)
		o.conn.Unlock()
		o.opt.Log.Warn().Int("fids", fids).Int("stale", stale).Int("failed", o.failed).
			Msg("the session is lost; files are open again as far as they could be restored")
	}
	o.fresh, o.failed = false, 0
	return nil
}

// Up answers the Tversion that this session was made for.
func (o owner) Up(resumed bool) {
	o.lastFailure = ""
	o.conn.Lock()
	waiting := o.conn.Len()
	var answer []byte
	if v := o.asked; v != nil && !o.conn.Renewing() {
		_, msize, _ := o.conn.Session()
		answer = v.answer(msize)
		o.asked, o.begun = nil, true
		o.changed.Broadcast()
	}
	watch := o.watch
	o.conn.Unlock()
	o.answer(answer)
	if watch != nil {
		watch(true, resumed)
	}
	if resumed {
		o.opt.Log.Info().Int("unanswered", waiting).Msg("the session is resumed")
	}
}

// Reply learns about fids from a request and its reply, and passes the reply on.
func (o owner) Reply(r *redial.Request, frame []byte) ([]byte, error) {
	if err := o.learnReply(r, frame); err != nil {
		return nil, err
	}
	o.changed.Broadcast()
	d, _, _ := o.conn.Session()
	return o.translate(frame, d), nil
}

// Pass writes replies and answers to the client.
func (o owner) Pass(frames []byte) { o.answer(frames) }

// Down logs that the transport is lost and requests wait.
func (o owner) Down(why error, _ bool) {
	o.conn.Lock()
	watch := o.watch
	o.conn.Unlock()
	if watch != nil {
		watch(false, false)
	}
	o.opt.Log.Info().Err(why).Msg("the connection is lost; requests wait")
}

// Failed logs why an attempt failed, unless the one before failed for the same reason.
func (o owner) Failed(why error) {
	if text := why.Error(); text != o.lastFailure {
		o.lastFailure = text
		o.opt.Log.Warn().Err(why).Msg("no connection; trying on")
	}
}

// learnReply learns about fids from a request and its reply. conn is held.
func (k *Keeper) learnReply(r *redial.Request, frame []byte) error {
	if learners[r.Type] == nil && r.Type != wire.Tclunk && r.Type != wire.Tremove {
		return nil
	}
	if err := wire.Decode(&k.r, frame, k.base); err != nil {
		return err
	}
	if wire.Decode(&k.m, r.Frame, k.base) == nil { // else the server has refused the request
		k.learn(&k.m, &k.r)
	}
	return nil
}

// translate makes a reply one of the client's dialect. Only an Rerror's text differs: for
// plain 9P2000 it has no detail, which Linux would not understand. conn is held.
func (k *Keeper) translate(frame []byte, from wire.Dialect) []byte {
	if _, typ, _, _ := wire.Split(frame); typ != wire.Rerror || k.base.Detail() || !from.Detail() {
		return frame
	}
	if wire.Decode(&k.r, frame, from) != nil {
		return frame
	}
	if kind := errs.FromText(k.r.Ename); kind != 0 {
		return wire.AppendError(nil, k.r.Tag, kind, k.base)
	}
	return frame
}
