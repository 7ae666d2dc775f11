// Package greet is the talk that makes a transport good for requests: Tversion,
// Tsession, Tresume, Tauth. session/client and session/keep begin every transport
// with it. Nothing else is on the line meanwhile, so each message waits for its
// reply. What Tresume is about, the requests of a session without an answer, is a
// Window.
//
// A Talk belongs to one goroutine. It has no clock: the caller closes the
// transport when it takes too long. A Window is guarded by its user.
package greet

import (
	"bufio"
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

// Unwrap gives the kind, so that errors.Is finds it.
func (r *Refusal) Unwrap() error {
	if r.Kind == 0 {
		return nil
	}
	return r.Kind
}

// Refused is the Refusal that m is; nil if it is none.
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

// Talk is a transport that is being greeted.
type Talk struct {
	Dialect wire.Dialect
	Msize   uint32
	// Count is how many requests were sent that both sides of a numbered session
	// count.
	Count uint64

	w     io.Writer
	r     *bufio.Reader
	out   []byte
	in    []byte
	reply wire.Msg
}

// New begins a Talk. What r has read ahead in the end is the caller's to read.
func New(w io.Writer, r *bufio.Reader) *Talk { return &Talk{w: w, r: r} }

// Ask sends m and waits for the reply, which lives until the next Ask. An error
// that the server answers is a *Refusal.
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
	if err := t.receive(); err != nil {
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

// receive reads a frame into reply.
func (t *Talk) receive() error {
	header, err := t.r.Peek(wire.HeaderLen)
	if err != nil {
		return err
	}
	size, _, _, _ := wire.Split(header)
	if limit := max(t.Msize, wire.MinMsize); size < wire.HeaderLen || size > limit {
		return errs.New(errs.Protocol, "the server sent a frame of %d bytes, %d is the limit", size, limit)
	}
	t.in = slices.Grow(t.in[:0], int(size))[:size]
	if _, err := io.ReadFull(t.r, t.in); err != nil {
		return err
	}
	return wire.Decode(&t.reply, t.in, t.Dialect)
}

// Version agrees on one of offers, the best first. A server that does not know one
// answers less, or "unknown", or an error, and is asked for the next: what it
// answers need not be the best that it has (meta9d answers 9P2000 to a suffix that
// it does not know). The error is errs.Unsupported when it has none of them.
func (t *Talk) Version(msize uint32, offers ...wire.Dialect) error {
	for i, offer := range offers {
		t.Dialect, t.Msize, t.Count = wire.None, 0, 0
		reply, err := t.Ask(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: msize, Version: offer.String()})
		switch {
		case IsRefusal(err):
			continue
		case err != nil:
			return err
		}
		next := offers[i:min(i+2, len(offers))]
		k := slices.IndexFunc(next, func(d wire.Dialect) bool { return reply.Version == d.String() })
		if k < 0 {
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

// Standing is what a server has of a session.
type Standing uint8

// The standings.
const (
	Sessionless Standing = iota // it keeps none
	Announced                   // it had none; where it knows who is there, the key is good from now on
	Resumed                     // its fids are as they were
)

// Session asks for the session of key, right after Version. The error is for the
// next transport to try again: the session may still be there.
func (t *Talk) Session(key [wire.KeyLen]byte) (Standing, error) {
	if !t.Dialect.Sessions() || key == [wire.KeyLen]byte{} {
		return Sessionless, nil
	}
	_, err := t.Ask(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: key})
	var r *Refusal
	switch {
	case err == nil:
		return Resumed, nil
	case !errors.As(err, &r):
		return Sessionless, err
	case r.Kind == errs.CannotRecover, r.Errno == errs.CannotRecover.ErrnoL():
		return Announced, nil
	case r.Kind == errs.Busy, r.Kind == errs.IO:
		return Sessionless, err
	}
	return Sessionless, nil
}

// Resume asks what became of the requests of a resumed session that have no
// answer, numbers ascending, and gives a state for each: those that are Unseen come
// last. Kept replies come next on the transport.
func (t *Talk) Resume(numbers []uint64) (states []uint8, err error) {
	reply, err := t.Ask(&wire.Msg{Type: wire.Tresume, Tag: wire.NoTag, Numbers: numbers})
	if err != nil {
		return nil, err
	}
	states = reply.States
	if len(states) != len(numbers) {
		return nil, errs.New(errs.Protocol, "%d states for %d numbers", len(states), len(numbers))
	}
	for i, s := range states {
		if s > wire.Running || (i > 0 && states[i-1] == wire.Unseen && s != wire.Unseen) {
			return nil, errs.New(errs.Protocol, "states %v", states)
		}
	}
	return slices.Clone(states), nil
}

// Authenticate writes a MUMBLE message to afid, which is free before and after: the
// authentication belongs to the connection, whatever is attached later. Tauth names
// the root as "/": LING's server refuses "" ("invalid aname").
func (t *Talk) Authenticate(message string, afid uint32, uname string) error {
	auth := wire.Msg{Type: wire.Tauth, Afid: afid, Uname: uname, Aname: "/", NUname: wire.NoUID}
	if _, err := t.Ask(&auth); err != nil {
		return err
	}
	_, err := t.Ask(&wire.Msg{Type: wire.Twrite, Fid: afid, Data: []byte(message)})
	if _, late := t.Ask(&wire.Msg{Type: wire.Tclunk, Fid: afid}); err == nil {
		err = late
	}
	return err
}
