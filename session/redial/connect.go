package redial

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
)

var (
	errSilent = errors.New("the server is silent")
	errClosed = errors.New("the server closed it")
	errEnded  = errors.New("the session has ended")
)

// inWords is err with a clear text for the end of a stream and for a deadline.
func inWords(err error) error {
	var ne net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errClosed
	case errors.As(err, &ne) && ne.Timeout():
		return errSilent
	}
	return err
}

// connect makes a transport and greets the server: the session is resumed, or made
// anew. Nobody else is on the transport yet.
func (c *Conn) connect(ctx context.Context) (t *transport, resumed bool, err error) {
	dial, cancel := context.WithTimeoutCause(ctx, greetTime, errSilent)
	defer cancel()
	nc, err := c.cfg.Dial(dial)
	if err != nil {
		if dial.Err() != nil && ctx.Err() == nil {
			err = errSilent
		}
		return nil, false, err
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	t = newTransport(nc, c.cfg.FreshFrames)
	if resumed, err = c.greet(t); err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	err = inWords(err)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, false, err
	}
	t.frames.nc = nc
	return t, resumed, nil
}

// timed sets a deadline of greetTime for the answer with each write.
type timed struct{ net.Conn }

func (c timed) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(greetTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// greet agrees on a version and resumes the session, or makes one.
func (c *Conn) greet(t *transport) (resumed bool, err error) {
	talk := &Talk{w: timed{t.nc}, frames: t.frames}
	has, err := c.ask(talk)
	if err == nil && has == found {
		if resumed, err = c.resume(talk); err == nil && !resumed {
			// The session cannot be used: Begin failed half-way, or the server's count of
			// requests is another. A second Tversion ends it.
			_, err = c.ask(talk)
		}
	}
	if err == nil && !resumed {
		err = c.begin(talk)
	}
	if err != nil {
		return false, err
	}
	c.Lock()
	defer c.Unlock()
	c.agreed = true
	c.dialect, c.msize, c.kept = talk.Dialect, talk.Msize, c.known
	return resumed, nil
}

// ask agrees on a version and asks for the session; a new key is announced so. A key from
// MUMBLE is asked for only when the server may know it: Tauth sets it, and the server
// counts unknown keys as guesses.
func (c *Conn) ask(t *Talk) (standing, error) {
	msize := c.cfg.Msize
	if c.cfg.FixedMsize && c.agreed {
		msize = c.msize
	}
	if err := t.version(msize, c.cfg.Offers...); err != nil {
		return sessionless, err
	}
	switch {
	case c.cfg.FixedMsize && c.agreed && t.Msize != c.msize:
		return sessionless, errs.New(errs.Protocol, "the server's msize is %d now, the client relies on %d", t.Msize, c.msize)
	case c.cfg.NumberedOnly && !t.Dialect.Numbered(), c.cfg.Mumble != "" && !c.known:
		return sessionless, nil
	}
	has, err := t.session(c.cfg.Key)
	if err == nil {
		c.known = has != sessionless
	}
	return has, err
}

// resume resumes the session that the server has; false: it cannot.
func (c *Conn) resume(t *Talk) (bool, error) {
	switch {
	case !c.complete:
		return false, nil
	case !t.Dialect.Numbered():
		c.lost()
		return true, nil
	case !t.Dialect.Follows(c.dialect) || t.Msize != c.msize:
		return false, nil
	}
	c.Lock()
	numbers, sent := c.unanswered(), c.Count
	c.Unlock()
	states, token, err := t.resume(numbers, sent, c.token)
	switch {
	case IsRefusal(err):
		c.newKey(t.Dialect)
		return false, nil
	case err != nil:
		return false, err
	}
	if t.Dialect.Tokens() {
		if err := c.keptReplies(t, states); err != nil {
			return false, err
		}
	}
	c.token = token
	c.Lock()
	defer c.Unlock()
	c.applyStates(states, t.Dialect)
	return true, nil
}

// keptReplies takes the replies that come right behind Rresume: to each request that was
// answered, and is not simply sent again, in their order. Where they are not those, the
// server has answered another life of this client's, which was set back and has sent as
// many requests since: the session is left, and errSetBack returned.
func (c *Conn) keptReplies(t *Talk, states []uint8) error {
	c.Lock()
	var due []*Request
	for i, r := range c.Sent {
		if states[i] == wire.Answered && !r.Type.Again() {
			due = append(due, r)
		}
	}
	c.Unlock()
	var ahead [][]byte
	next := 0 // of ahead: who it is for is not known yet
	for i, r := range due {
		if !slices.ContainsFunc(due[i:], func(r *Request) bool { return !r.Flushed }) {
			break // one that was flushed may have no reply
		}
		if next == len(ahead) {
			frame, err := t.frames.Next(max(t.Msize, wire.MinMsize))
			if err != nil {
				return c.missing(err, t.Dialect)
			}
			ahead = append(ahead, slices.Clone(frame))
		}
		switch _, typ, tag, _ := wire.Split(ahead[next]); {
		case tag == r.Tag && (typ == r.Type+1 || typ == wire.Rerror || typ == wire.Rlerror):
			next++
		case !r.Flushed:
			return c.setBack(t.Dialect)
		}
	}
	c.misses = 0
	t.frames.ahead = ahead
	return nil
}

// missing is keptReplies' error where err came in place of a reply. A server that is there
// and does not have it, again and again, never will.
func (c *Conn) missing(err error, d wire.Dialect) error {
	if inWords(err) != errSilent {
		return err
	}
	if c.misses++; c.misses < maxMisses {
		return err
	}
	return c.setBack(d)
}

const maxMisses = 3

var errSetBack = errs.New(errs.Protocol, "the server has answered other requests than these: this client was set back, and begins anew")

func (c *Conn) setBack(d wire.Dialect) error {
	c.misses = 0
	c.known = false
	c.newKey(d)
	return errSetBack
}

// newKey leaves the session to whom the server has taken for its client: this one went back
// in time, or it runs twice. With a key from MUMBLE there is no other.
func (c *Conn) newKey(d wire.Dialect) {
	if d.Tokens() && c.cfg.Mumble == "" {
		_, _ = rand.Read(c.cfg.Key[:]) // never fails (crypto/rand)
	}
}

// lost calls Owner.Lost for the requests that were sent and will get no answer.
func (c *Conn) lost() {
	c.Lock()
	pass := c.cfg.Owner.Lost(&c.Window)
	c.Unlock()
	if len(pass) > 0 {
		c.cfg.Owner.Pass(pass)
	}
}

// begin makes a new session.
func (c *Conn) begin(t *Talk) error {
	c.complete = false
	c.lost()
	var unproven error
	if c.cfg.Mumble != "" {
		unproven = t.authenticate(c.cfg.Mumble, c.cfg.User)
		if unproven != nil && !IsRefusal(unproven) {
			return unproven
		}
		c.known = c.known || unproven == nil
	}
	if err := c.cfg.Owner.Begin(t, unproven); err != nil {
		return err
	}
	c.complete, c.token = true, 0
	c.Lock()
	defer c.Unlock()
	c.Count = t.Count
	return nil
}
