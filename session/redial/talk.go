package redial

import (
	"errors"
	"io"
	"slices"

	"github.com/hugelgupf/p9/linux"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// Refusal is a server's answer that is an error.
type Refusal struct {
	Text  string      // of an Rerror; of an Rlerror, what Linux says for the errno
	Kind  errs.Kind   // that the text names, or the errno names best; 0: none has it
	Errno linux.Errno // of an Rlerror and of 9P2000.u; else 0
}

// Error is the server's text.
func (r *Refusal) Error() string { return r.Text }

// Unwrap is the kind, so that errors.Is finds it.
func (r *Refusal) Unwrap() error {
	if r.Kind == 0 {
		return nil
	}
	return r.Kind
}

// Refused is m as a Refusal; nil if m is no error.
func Refused(m *wire.Msg) *Refusal {
	switch m.Type {
	case wire.Rerror:
		return &Refusal{Text: m.Ename, Kind: errs.FromText(m.Ename), Errno: linux.Errno(m.Errno)}
	case wire.Rlerror:
		e := linux.Errno(m.Errno)
		return &Refusal{Text: e.Error(), Kind: errs.FromErrno(e), Errno: e}
	}
	return nil
}

// IsRefusal tells whether the server itself refused.
func IsRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}

// Talk is a transport that is being greeted: each message waits for its answer. It has
// no clock of its own.
type Talk struct {
	Dialect wire.Dialect // agreed on by version
	Msize   uint32       // the same
	// Count is how many requests were sent that get a number in a numbered session.
	Count uint64

	w      io.Writer
	frames *Frames
	out    []byte
	reply  wire.Msg
}

// Ask sends m and waits for the reply, which is valid until the next Ask. A server's
// error is a *Refusal.
func (t *Talk) Ask(m *wire.Msg) (*wire.Msg, error) {
	out, err := wire.Append(t.out[:0], m, t.Dialect)
	if err != nil {
		return nil, err
	}
	t.out = out
	if m.Type.Counted() {
		t.Count++
	}
	if _, err := t.w.Write(out); err != nil {
		return nil, err
	}
	frame, err := t.frames.Next(max(t.Msize, wire.MinMsize))
	if err != nil {
		return nil, err
	}
	if err := wire.Decode(&t.reply, frame, t.Dialect); err != nil {
		return nil, err
	}
	switch r := &t.reply; {
	case r.Tag != m.Tag:
		return nil, errs.New(errs.Protocol, "the server answered under tag %d, it was asked under %d", r.Tag, m.Tag)
	case r.Type == m.Type+1:
		return r, nil
	case Refused(r) != nil:
		return nil, Refused(r)
	}
	return nil, errs.New(errs.Protocol, "the server answered %s with %s", m.Type, t.reply.Type)
}

// version agrees on one of offers, the best first. A server that does not know one
// answers less, or "unknown", or an error, and is asked for the next: what it
// answers need not be the best that it has (meta9d answers 9P2000 to a suffix that
// it does not know). The error is errs.Unsupported when it has none of them.
func (t *Talk) version(msize uint32, offers ...wire.Dialect) error {
	for i, offer := range offers {
		t.Dialect, t.Msize, t.Count = wire.None, 0, 0
		reply, err := t.Ask(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: msize, Version: offer.String()})
		switch {
		case IsRefusal(err):
			continue
		case err != nil:
			return err
		}
		next := offers[i:min(i+3, len(offers))]
		k := slices.IndexFunc(next, func(d wire.Dialect) bool { return reply.Version == d.String() })
		if k < 0 || k == 2 && next[k] == wire.Plain { // a meta9d that does not know the first may know the second
			continue
		}
		if reply.Msize < wire.MinMsize || reply.Msize > msize {
			return errs.New(errs.Protocol, "the server's msize is %d, at least %d is needed and %d was asked for", reply.Msize, wire.MinMsize, msize)
		}
		t.Dialect, t.Msize = next[k], reply.Msize
		return nil
	}
	return errs.New(errs.Unsupported, "the server speaks none of %v", offers)
}

// standing is what a server knows of a session.
type standing uint8

const (
	sessionless standing = iota // the server keeps no sessions
	announced                   // it did not know the key; once the client is authenticated, the key is the session's
	found                       // it has the session: the fids are as they were
)

// session asks for the session of key, right after version. After an error the next
// transport asks again: the session may still be there.
func (t *Talk) session(key [wire.KeyLen]byte) (standing, error) {
	if !t.Dialect.Sessions() || key == [wire.KeyLen]byte{} {
		return sessionless, nil
	}
	_, err := t.Ask(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: key})
	var r *Refusal
	switch {
	case err == nil:
		return found, nil
	case !errors.As(err, &r):
		return sessionless, err
	case r.Kind == errs.CannotResume, r.Errno == errs.CannotResume.ErrnoL():
		return announced, nil
	case r.Kind == errs.Busy, r.Kind == errs.IO:
		return sessionless, err
	}
	return sessionless, nil
}

// resume asks what became of the requests of a session without an answer, given by their
// numbers, ascending. It returns a state for each; those with wire.Unseen come last. Kept
// replies come next on the transport. In a dialect with tokens, sent is how many requests
// the client has sent, and token that of the last resume; next is the next.
func (t *Talk) resume(numbers []uint64, sent, token uint64) (states []uint8, next uint64, err error) {
	reply, err := t.Ask(&wire.Msg{Type: wire.Tresume, Tag: wire.NoTag, Counted: sent, Token: token, Numbers: numbers})
	if err != nil {
		return nil, token, err
	}
	states = reply.States
	if len(states) != len(numbers) {
		return nil, token, errs.New(errs.Protocol, "%d states for %d numbers", len(states), len(numbers))
	}
	most := wire.Running
	if t.Dialect.Tokens() {
		most = wire.Undone
	}
	for i, s := range states {
		if s > most || (i > 0 && states[i-1] == wire.Unseen && s != wire.Unseen) {
			return nil, token, errs.New(errs.Protocol, "states %v", states)
		}
	}
	return slices.Clone(states), reply.Token, nil
}

// authFid is free during a greeting: users of a Conn count up from 0.
const authFid uint32 = wire.NoFid - 2

// authenticate writes a MUMBLE message to an auth fid and clunks it: the connection stays
// authenticated, for any attach later. Tauth names the root as "/": LING's server refuses
// "" ("invalid aname").
func (t *Talk) authenticate(message, uname string) error {
	auth := wire.Msg{Type: wire.Tauth, Afid: authFid, Uname: uname, Aname: "/", NUname: wire.NoUID}
	if _, err := t.Ask(&auth); err != nil {
		return err
	}
	_, err := t.Ask(&wire.Msg{Type: wire.Twrite, Fid: authFid, Data: []byte(message)})
	if _, late := t.Ask(&wire.Msg{Type: wire.Tclunk, Fid: authFid}); err == nil {
		err = late
	}
	return err
}
